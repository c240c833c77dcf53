"""Codes of a few atoms, chosen one after another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from groundstate.components import Solver, State
from groundstate.problem import Problem
from groundstate.structure import Cardinality, Ridge

DEPENDENT = 1e-10
"""An atom with less than this share of its squared norm outside the span of those chosen does not come in."""


@dataclass
class PursuitState(State):
    """done: (batch,) bool, whether the pursuit has run; another would choose the same atoms."""

    done: Tensor


class MatchingPursuit(Solver[PursuitState]):
    """Orthogonal matching pursuit: an atom comes in, and the code becomes the least-squares one on all atoms chosen.

    Which one comes in: by ``decrease``, the one that lowers the energy most (Rebollo-Neira & Lowe 2002, and SPAMS);
    by ``correlation``, the one that correlates most with the residual (Pati, Rezaiifar & Krishnaprasad 1993, and
    scikit-learn). On the Gram matrix, with a Cholesky factor that grows a row at a time (Rubinstein, Zibulevsky & Elad
    2008). The start is not looked at, and one iteration is the whole pursuit.
    """

    any_minimiser = True  # a kernel for this restriction runs the same pursuit, by the same rule

    class Config(Solver.Config):
        choose: Literal["decrease", "correlation"] = Field("decrease", description="the rule for the next atom")
        max_iterations: int = Field(1, ge=0, description="pursuits; each gives the same code")
        check_every: int = Field(1, ge=1, description="iterations between two certificates")
        differentiate: Literal["none"] = Field("none", description="the choice of atoms has no gradient")

    def init(self, problem: Problem, start: Tensor) -> PursuitState:
        return PursuitState(start, torch.zeros(len(start), dtype=torch.bool, device=start.device))

    def step(self, problem: Problem, state: PursuitState) -> PursuitState:
        if bool(state.done.all()):
            return state
        form = problem.structure
        assert form is not None
        matrix = form.dictionary.matrix.detach()
        gram = form.data.weight * (matrix.T @ matrix)
        ridge = sum(float(part.weight) for part in form.penalties if isinstance(part, Ridge))
        gram.diagonal().add_(ridge)
        count = min(part.count for part in form.penalties if isinstance(part, Cardinality))
        drive = form.data.weight * (problem.batch.x.flatten(1) @ matrix)
        code = pursue(gram, drive, count, by_decrease=self.config.choose == "decrease")
        return PursuitState(code.view_as(state.code), torch.ones_like(state.done))

    def refuses(self, problem: Problem) -> str | None:
        form = problem.structure
        if form is None:
            return "matching-pursuit needs a squared error on a linear decoder, and cardinality; use solver 'fista'"
        kinds = {type(part) for part in form.penalties}
        if Cardinality not in kinds:
            return "matching-pursuit needs the term cardinality, which says how many entries to keep; or use 'fista'"
        other = {kind.__name__.lower() for kind in kinds - {Cardinality, Ridge}}
        if other:
            found = ", ".join(sorted(other))
            return f"matching-pursuit takes cardinality and l2, but the energy also has {found}; use solver 'fista'"
        return None


def pursue(gram: Tensor, drive: Tensor, count: int, *, by_decrease: bool) -> Tensor:
    """Codes of at most count atoms for ½zᵀGz − driveᵀz. gram: (units, units); drive: (batch, units).

    Each atom chosen is kept orthogonal to those before it, as its products with all atoms: (batch, count, units).
    A sample for which no atom is left that lowers its energy takes no more.
    """
    samples, units = drive.shape
    count = min(count, units)
    norms = gram.diagonal()
    tiny = torch.finfo(gram.dtype).tiny
    least = torch.maximum(max(DEPENDENT, 8 * torch.finfo(gram.dtype).eps) * norms, norms.new_tensor(tiny))
    outside = norms.expand(samples, units).clone()
    free = (norms > tiny).expand(samples, units).clone()
    pull = drive.clone()
    basis = drive.new_zeros(samples, count, units)
    weight = drive.new_zeros(samples, count)
    chosen = torch.zeros_like(weight, dtype=torch.int64)
    nothing = torch.finfo(gram.dtype).eps ** 1.5 * drive.square().amax(1, keepdim=True)
    for taken in range(count):
        fits = free & (outside > least)
        gain = torch.where(fits, pull.square() / (torch.maximum(outside, least) if by_decrease else norms), 0.0)
        best, unit = gain.max(1, keepdim=True)
        live = best > nothing / norms[unit]
        before = basis[:, :taken].gather(2, unit[:, None].expand(samples, taken, 1))
        new = gram[unit[:, 0]] - (before * basis[:, :taken]).sum(1)
        root = outside.gather(1, unit).clamp_min(tiny).sqrt()
        new = torch.where(live, new / root, 0.0)
        move = torch.where(live, pull.gather(1, unit) / root, 0.0)
        pull -= move * new
        outside -= new.square()
        free.scatter_(1, unit, value=False)
        basis[:, taken], weight[:, taken], chosen[:, taken] = new, move[:, 0], unit[:, 0]
    # the factor's entry (later, earlier) is basis[earlier, chosen[later]]; an atom that did not come in has row 0
    upper = basis.gather(2, chosen[:, None].expand(samples, count, count)).triu()
    diagonal = upper.diagonal(dim1=1, dim2=2)
    diagonal.copy_(torch.where(diagonal > 0, diagonal, 1.0))
    values = torch.linalg.solve_triangular(upper, weight[..., None], upper=True)[..., 0]
    return torch.zeros_like(drive).scatter_add_(1, chosen, values)
