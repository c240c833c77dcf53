"""Exact minimisation over one unit at a time, on the Gram matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from groundstate.components import Solver, State
from groundstate.problem import Problem, soft_threshold
from groundstate.structure import L1, Inhibition, Ridge


class CoordinateDescent(Solver[State]):
    """Moves one unit of each sample to the lowest energy along it, again and again; E never rises.

    ``greedy`` takes the unit with the largest move, measured in what its atom adds to the decoded (Li & Osher
    2009); under strong inhibition, from zeros, it ends much lower than ``cyclic``, which favours the units that come
    first. ``cyclic`` takes each sample's active units in turn. One iteration is ``block`` moves, or one pass over
    the active units.
    """

    class Config(Solver.Config):
        order: Literal["greedy", "cyclic"] = Field(
            "greedy", description="which unit is next: the largest move, or each active one in turn"
        )
        block: int | None = Field(
            None, ge=1, description="greedy moves in one iteration; by default a quarter of the units"
        )
        check_every: int = Field(1, ge=1, description="iterations between two certificates")
        differentiate: Literal["none", "implicit"] = Field(
            "none", description="path of the task's gradient through the code; moves in place cannot be unrolled"
        )

    def init(self, problem: Problem, start: Tensor) -> State:
        return State(start)

    def step(self, problem: Problem, state: State) -> State:
        moves = _Moves(problem, state.code)
        if self.config.order == "greedy":
            for _ in range(self.config.block or max(1, moves.units // 4)):
                if not moves.largest():
                    break
        else:
            moves.active()
        return State(moves.code.view_as(state.code))

    def refuses(self, problem: Problem) -> str | None:
        form = problem.structure
        if form is None:
            return (
                "coordinate-descent needs a squared error on a linear decoder and penalties that tell their "
                "structure; use solver 'fista'"
            )
        other = {type(part).__name__ for part in form.penalties} - {"L1", "Inhibition", "Ridge"}
        if other:
            return (
                "coordinate-descent takes l1, l2 and inhibition, but the energy also has "
                f"{', '.join(sorted(other)).lower()}; use solver 'fista'"
            )
        return None


@dataclass(frozen=True)
class _Form:
    """½‖√w(x − Dz)‖² + ½ρ‖z‖² + λᵀ|u| + ½|u|ᵀS|u| in u = scale·z, which has unit curvature along each u_i.

    scale: (units,), √(w‖d‖² + ρ), and 1 for a unit without an atom (not ``driven``). coupling: (units, units), the
    curvature between two units, 0 on the diagonal. sparsity λ: (units,). inhibition S: (units, units).
    """

    scale: Tensor
    driven: Tensor
    coupling: Tensor
    sparsity: Tensor
    inhibition: Tensor | None
    non_negative: bool

    @classmethod
    def of(cls, problem: Problem) -> _Form:
        form = problem.structure
        assert form is not None
        d, weight = form.dictionary.matrix.detach(), form.data.weight
        ridge, sparsity, inhibition, non_negative = 0.0, 0.0, None, False
        for part in form.penalties:
            match part:
                case Ridge(weight=own):
                    ridge += own
                case L1(weight=own):
                    sparsity += own
                    non_negative |= part.non_negative
                case Inhibition(weight=own):
                    sparsity += own * part.sparsity
                    matrix = 2 * own * part.matrix.detach()
                    inhibition = matrix if inhibition is None else inhibition + matrix
                    non_negative |= part.non_negative
        curvature = weight * d.square().sum(0) + ridge
        driven = curvature > 0
        scale = torch.where(driven, curvature, 1.0).sqrt()
        scaled = d / scale
        return cls(
            scale=scale,
            driven=driven,
            coupling=(weight * (scaled.T @ scaled)).fill_diagonal_(0),
            sparsity=sparsity / scale,
            inhibition=None if inhibition is None else inhibition / scale / scale[:, None],
            non_negative=non_negative,
        )


class _Moves:
    """Coordinate moves on a batch of scaled codes u.

    pull: (batch, units), where each u_i would go without a penalty. threshold: (units,), or (batch, units) with
    inhibition, λ + S|u|. Both are made anew for each block of moves, so that rounding does not build up.
    """

    def __init__(self, problem: Problem, code: Tensor) -> None:
        form = _Form.of(problem)
        self.form = form
        self.units = len(form.scale)
        self.scaled = code.flatten(1) * form.scale
        self.pull = self.scaled * form.driven - problem.gradient(code).flatten(1) / form.scale
        self.threshold = form.sparsity
        if form.inhibition is not None:
            self.threshold = torch.addmm(form.sparsity, self.scaled.abs(), form.inhibition)
        # moves below rounding are not made; the norm of √w·x bounds every pull at z = 0
        size = torch.linalg.vector_norm(problem.batch.x.flatten(1), dim=1)
        self.least = 4 * torch.finfo(code.dtype).eps * problem.data_weight**0.5 * size

    @property
    def code(self) -> Tensor:
        """The code after the moves made so far, (batch, units)."""
        return self.scaled / self.form.scale

    def _targets(self) -> Tensor:
        """Where the energy along each unit is lowest with all others fixed, (batch, units)."""
        return soft_threshold(self.pull, self.threshold, non_negative=self.form.non_negative)

    def largest(self) -> bool:
        """Make each sample's largest move; False where none is left to make."""
        moves = self._targets().sub_(self.scaled)
        unit = moves.abs().argmax(1, keepdim=True)
        move = moves.gather(1, unit)
        worth = move.abs() > self.least[:, None]
        self._make(unit, move * worth)
        return bool(worth.any())

    def active(self) -> None:
        """One pass over the units that are active or would be, each sample in the order of its own."""
        wanted = (self.scaled != 0) | (self._targets() != 0)
        # stable: those units first, in their order; a sample with fewer than others makes empty moves
        order = torch.sort(wanted, dim=1, descending=True, stable=True).indices
        thresholds = self.threshold.expand_as(self.scaled)
        for position in range(int(wanted.sum(1).max())):
            unit = order[:, position, None]
            target = soft_threshold(
                self.pull.gather(1, unit), thresholds.gather(1, unit), non_negative=self.form.non_negative
            )
            self._make(unit, (target - self.scaled.gather(1, unit)) * wanted.gather(1, unit))

    def _make(self, unit: Tensor, move: Tensor) -> None:
        """Move one unit of each sample; unit, move: (batch, 1)."""
        before = self.scaled.gather(1, unit)
        after = before + move
        self.scaled.scatter_(1, unit, after)
        self.pull.addcmul_(self.form.coupling[unit[:, 0]], move, value=-1)
        if self.form.inhibition is not None:
            self.threshold.addcmul_(self.form.inhibition[unit[:, 0]], after.abs() - before.abs())
