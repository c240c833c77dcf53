"""Parameters that know how they learn: direction, learning-rate multiplier, constraint, unit axes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Direction = Literal["descend", "ascend"]
ROUNDING = 1e-4
"""How far below its bound, relatively, a projected value may lie."""


class Constraint(ABC):
    """A closed set that a parameter stays in; after each step the learner projects onto it.

    ``bounded`` says that the set is bounded: an ascending parameter needs such a set, or it diverges.
    """

    bounded: bool = True

    @abstractmethod
    def project_(self, value: Tensor) -> None:
        """Replace value, in place, by the nearest point of the set."""

    @abstractmethod
    def violation(self, value: Tensor) -> float:
        """How far outside the set value lies, 0 inside; the unit is that of value's entries."""

    def activity(self, value: Tensor) -> float | None:
        """The share of value's vectors or entries that the constraint holds back; None where that tells nothing."""
        return None

    def select(self, dim: int, units: Tensor) -> Constraint:
        """The same constraint for the parameter whose axis ``dim`` keeps only ``units``."""
        return self


@dataclass(frozen=True)
class NormBound(Constraint):
    """The L2 norm over ``dims`` is at most ``radius`` (ball), or exactly ``radius`` (sphere).

    dims: the axes that are summed over; a dictionary (n, units) with unit-norm columns has dims (0,).
    A vector of zeros has no nearest point on a sphere and stays as it is.
    """

    dims: tuple[int, ...]
    radius: float = 1.0
    sphere: bool = False

    def project_(self, value: Tensor) -> None:
        # over a first axis this is several times faster than torch's vector_norm
        norm = value.square().sum(self.dims, keepdim=True).sqrt_()
        if self.sphere:
            value.div_(norm.clamp_min_(torch.finfo(value.dtype).tiny)).mul_(self.radius)
        else:
            value.div_(norm.div_(self.radius).clamp_min_(1.0))

    def violation(self, value: Tensor) -> float:
        excess = torch.linalg.vector_norm(value, dim=self.dims) - self.radius
        return float(excess.abs().max() if self.sphere else excess.clamp_min(0).max())

    def activity(self, value: Tensor) -> float | None:
        """The share of norms at the radius; on a sphere all of them always are."""
        if self.sphere:
            return None
        return _share(torch.linalg.vector_norm(value, dim=self.dims) >= self.radius * (1 - ROUNDING))


@dataclass(frozen=True)
class NonNegative(Constraint):
    """Every entry is at least 0; an unbounded set."""

    bounded = False

    def project_(self, value: Tensor) -> None:
        value.clamp_min_(0)

    def violation(self, value: Tensor) -> float:
        return float((-value).clamp_min(0).max())

    def activity(self, value: Tensor) -> float:
        """The share of entries at 0."""
        return _share(value <= 0)


@dataclass(frozen=True)
class ParameterSpec:
    """How one parameter learns, declared where it is made (``Component.declare``).

    direction: ``descend`` the energy (weights) or ``ascend`` it (learned inhibition).
    rate: multiplies the learning rate, e.g. 1/T for a matrix that is applied T times.
    constraint: the set it is projected onto after each step.
    unit_dims: the axes that run over the units of the code; pruning slices them.
    """

    direction: Direction = "descend"
    rate: float = 1.0
    constraint: Constraint | None = None
    unit_dims: tuple[int, ...] = ()

    def select(self, units: Tensor) -> ParameterSpec:
        constraint = self.constraint
        for dim in self.unit_dims:
            constraint = constraint.select(dim, units) if constraint is not None else None
        return ParameterSpec(self.direction, self.rate, constraint, self.unit_dims)


def _share(true: Tensor) -> float:
    return float(true.double().mean())


def select_units(value: Tensor, dims: tuple[int, ...], units: Tensor) -> Tensor:
    """Keep only ``units`` along each of ``dims``."""
    for dim in dims:
        value = value.index_select(dim, units)
    return value
