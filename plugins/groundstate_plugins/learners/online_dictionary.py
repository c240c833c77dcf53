"""Online dictionary learning (Mairal, Bach, Ponce & Sapiro 2010)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from groundstate.components import Learner, needs
from groundstate.data import Batch
from groundstate.errors import InputError
from groundstate.model import Model
from groundstate.parameters import NormBound, select_units
from groundstate.processes import Processes
from groundstate.structure import LeastSquares

BLOCK = 16
"""Columns whose gradient is brought up to date together, by one matrix product."""


class OnlineDictionary(Learner):
    """The dictionary by block coordinate descent on sums over all codes so far, the rest by gradient.

    After each batch, A ← β A + Σ z zᵀ and B ← β B + Σ x zᵀ, with β = (1 − 1/t)^ρ at batch t; then each column goes
    to its best place while the others stay, u = d_j + (b_j − D a_j)/A_jj, and onto the decoder's constraint
    (Mairal et al. 2010, algorithms 1 and 2). There is no learning rate. An atom that no code has used for a while
    starts again from an input that the others explain badly.
    """

    _a: Tensor
    _b: Tensor
    _idle: Tensor

    class Config(Learner.Config):
        batch_size: int = Field(500, ge=1, description="samples per step")
        forgetting: float = Field(
            1.0, ge=0, description="ρ: before batch t the sums so far are multiplied by (1 − 1/t)^ρ; 0 keeps all"
        )
        passes: int = Field(1, ge=1, description="passes over the columns per batch")
        replace_after: int = Field(
            20, ge=0, description="batches that an atom may go unused before it starts again; 0: for ever"
        )

    def build(self, model: Model) -> Collection[str]:
        """InputError where the sums do not hold all that the energy says of the dictionary."""
        name = model.dictionary
        if name is None:
            raise InputError("this learner needs a linear decoder on flat codes, e.g. [model.decoder] type = 'linear'")
        self._model, self._name = model, name
        self._processes = Processes(model.backend)
        self._data = [key for key, term in model.energy.terms.items() if isinstance(term.structure(), LeastSquares)]
        for key, term in model.energy.terms.items():
            if key not in self._data and {"decoded", "decode"} & set(needs(term.energy)):
                raise InputError(
                    f"this learner takes the dictionary, but knows nothing of the energy '{key}', which depends on it; "
                    "it needs the squared error alone, or use the gradient"
                )
        if not self._data:
            raise InputError("this learner needs a squared error among the energy's terms")
        if model.solver.config.differentiate != "none":
            raise InputError(
                f"this learner takes the dictionary, so no task can reach it by differentiate = "
                f"'{model.solver.config.differentiate}'; set it to 'none', or use the gradient"
            )
        constraint = self._constraint
        if constraint is not None and not (isinstance(constraint, NormBound) and constraint.dims == (0,)):
            raise InputError(
                f"this learner moves column by column; the dictionary's constraint {type(constraint).__name__} is not "
                "a bound on each column's norm"
            )
        self._reset()
        return (name,)

    def update(
        self, batch: Batch, code: Tensor, weights: Mapping[str, float], generator: torch.Generator | None
    ) -> None:
        if not any(weights.get(key) for key in self._data):
            return
        x = batch.x.flatten(1)
        a, b = self._sums(x, code)
        self._batches += 1
        keep = (1 - 1 / self._batches) ** self.config.forgetting if self._batches > 1 else 0.0
        self._a.mul_(keep).add_(a)
        self._b.mul_(keep).add_(b)
        self._idle = torch.where(a.diagonal() > 0, 0, self._idle + 1)
        descend_columns(self._matrix.detach(), self._a, self._b, self._constraint, self.config.passes)
        if self.config.replace_after:
            self._replace((self._idle >= self.config.replace_after).nonzero().flatten(), x, code, generator)

    def state(self) -> dict[str, Tensor]:
        return {"a": self._a, "b": self._b, "idle": self._idle, "batches": torch.tensor(self._batches)}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """A run that began with another learner has no sums: they begin here."""
        self._reset()
        if tensors:
            self._a, self._b, self._idle = (tensors[key].clone().to(self._a.device) for key in ("a", "b", "idle"))
            self._batches = int(tensors["batches"])

    def select(self, units: Tensor) -> None:
        self._a = select_units(self._a, (0, 1), units)
        self._b = select_units(self._b, (1,), units)
        self._idle = self._idle[units]

    @property
    def _matrix(self) -> Tensor:
        """D, (n, units): pruning makes a new one."""
        return self._model.get_parameter(self._name)

    @property
    def _constraint(self) -> Any:
        assert self._model.decoder is not None
        spec = self._model.decoder.specs.get(self._name.removeprefix("decoder."))
        return spec.constraint if spec is not None else None

    def _reset(self) -> None:
        n, units = self._matrix.shape
        self._a, self._b = self._matrix.new_zeros(units, units), self._matrix.new_zeros(n, units)
        self._idle = torch.zeros(units, dtype=torch.int64, device=self._matrix.device)
        self._batches = 0

    def _sums(self, x: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
        """Σ z zᵀ (units, units) and Σ x zᵀ (n, units) over the batch, in all processes that share the work."""
        sums = code.T @ code, x.T @ code
        self._processes.reduce(sums)
        return sums

    def _replace(self, atoms: Tensor, x: Tensor, code: Tensor, generator: torch.Generator | None) -> None:
        """Put an input, drawn with its squared error as weight, in the place of each of these atoms.

        The inputs of all processes: each draws from the same ones, and what the first draws counts.
        """
        if not len(atoms):
            return
        error = self._processes.together((x - code @ self._matrix.T).square().sum(1))
        if not bool((error > 0).any()):
            return
        drawn = torch.multinomial(error, len(atoms), replacement=True, generator=generator)
        new = self._processes.together(x)[self._processes.share(drawn.tolist())].T
        self._matrix[:, atoms] = new / new.norm(dim=0).clamp_min(torch.finfo(new.dtype).tiny)
        self._a[atoms] = 0
        self._a[:, atoms] = 0
        self._b[:, atoms] = 0
        self._idle[atoms] = 0


def descend_columns(d: Tensor, a: Tensor, b: Tensor, constraint: NormBound | None, passes: int) -> None:
    """Minimise ½tr(DᵀDA) − tr(DᵀB) over D in place, one column after another, each onto the constraint.

    d, b: (n, units). a: (units, units), symmetric. Columns with A_jj = 0 stay. On the CPU whatever the device: a few
    hundred short steps, each of which waits for the one before.
    """
    rows, gram, target = (np.ascontiguousarray(tensor.cpu().numpy()) for tensor in (d.T, a, b.T))
    rows = rows.copy()
    diagonal = gram.diagonal()
    used = np.flatnonzero(diagonal > np.finfo(gram.dtype).eps * max(float(diagonal.max()), np.finfo(gram.dtype).tiny))
    for _ in range(passes):
        for first in range(0, len(used), BLOCK):
            _descend_block(rows, gram, target, used[first : first + BLOCK], constraint)
    d.copy_(torch.from_numpy(rows).T)


def _descend_block(
    rows: NDArray[Any], gram: NDArray[Any], target: NDArray[Any], block: NDArray[Any], constraint: NormBound | None
) -> None:
    """Some columns of D (rows of its transpose) in turn; the others stand still meanwhile."""
    slope = target[block] - gram[block] @ rows
    inside = gram[np.ix_(block, block)]
    moved = np.zeros_like(slope)
    for number, unit in enumerate(block):
        new = rows[unit] + (slope[number] - inside[number] @ moved) / inside[number, number]
        if constraint is not None:
            norm = np.sqrt(new @ new)
            if norm > constraint.radius or (constraint.sphere and norm > 0):
                new *= constraint.radius / norm
        moved[number] = new - rows[unit]
    rows[block] += moved
