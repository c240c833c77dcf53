"""What terms and decoders may say of their form, so that solvers and backends can take a faster way.

A structure is data, never behaviour: a backend picks a kernel by the types it sees here, and the generic
solver gives the same codes to the same tolerance.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Structure:
    """Base of all structures; ``weight`` multiplies the whole expression (a number, or one per pool)."""

    weight: Any = 1.0

    def scaled(self, factor: float) -> Self:
        """The structure of factor · term."""
        return replace(self, weight=self.weight * factor)


@dataclass(frozen=True, kw_only=True)
class LeastSquares(Structure):
    """weight · ½‖x − decoded‖²."""


@dataclass(frozen=True, kw_only=True)
class MaskedLeastSquares(Structure):
    """weight · ½‖m ∘ (x − decoded)‖², with m the batch's field ``mask``, shaped like x, 0 ≤ m ≤ 1."""


@dataclass(frozen=True, kw_only=True)
class Ridge(Structure):
    """weight · ½‖z‖²."""


@dataclass(frozen=True, kw_only=True)
class L1(Structure):
    """weight · ‖z‖₁, with z ≥ 0 where non_negative."""

    non_negative: bool = False


@dataclass(frozen=True, kw_only=True)
class L0(Structure):
    """weight · the number of units that are not zero."""


@dataclass(frozen=True, kw_only=True)
class Cardinality(Structure):
    """At most ``count`` entries of z are not 0; a restriction, which a weight does not change."""

    count: int


@dataclass(frozen=True, kw_only=True)
class Pooled(Structure):
    """Base of sums over pools P_j of the flattened code.

    index: (pools, size) int64 unit numbers, padded with −1. weight: (pools,) ≥ 0.
    scale: (pools, size) the entries' weights a within their pool, None for ones.
    disjoint: no unit stands in two pools. sheet: (height, width) where the units stand on one and the pools are
    its windows, for pictures alone.
    """

    index: Tensor
    disjoint: bool
    scale: Tensor | None = None
    sheet: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class Groups(Pooled):
    """Σ_j weight_j ‖a_j ∘ z_{P_j}‖₂, with z ≥ 0 where non_negative."""

    non_negative: bool = False


@dataclass(frozen=True, kw_only=True)
class SmoothedGroups(Pooled):
    """Σ_j weight_j √(‖a_j ∘ z_{P_j}‖₂² + smoothing)."""

    smoothing: float


@dataclass(frozen=True, kw_only=True)
class Tree(Structure):
    """Σ_g weight_g ‖z_g‖₂ over nested groups: each node with all its descendants.

    parent: (units,) int64, −1 at a root. weight: (units,) ≥ 0, of the group rooted at each unit.
    """

    parent: Tensor
    non_negative: bool = False


@dataclass(frozen=True, kw_only=True)
class Inhibition(Structure):
    """weight · (sparsity ‖z‖₁ + |z|ᵀ matrix |z|), with z ≥ 0 where non_negative.

    matrix: (units, units), symmetric, ≥ 0, zero diagonal. parent: (units,) int64, −1 at a root, where the matrix is
    in tree form (zero between a unit and those above and below it), for pictures alone.
    """

    matrix: Tensor
    sparsity: float
    non_negative: bool = False
    parent: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class LinearMap:
    """A decoder that is one matrix: decoded = z Dᵀ, with matrix D: (n, units)."""

    matrix: Tensor

    def squared_norm(self) -> float:
        """λmax(DᵀD), from the smaller of the two Gram matrices, in float64."""
        with torch.no_grad():
            d = self.matrix.detach().double()
            gram = d @ d.T if d.shape[0] <= d.shape[1] else d.T @ d
            return float(torch.linalg.eigvalsh(gram)[-1].clamp_min(0))

    def angles(self, rows: Tensor) -> Tensor:
        """The angle in radians between each unit's encoder row, (units, n), and its column of D: (units,), float64.

        Rolfe & LeCun 2013 tell part-units (below 0.5) from categorical-units (above 0.7) by it.
        """
        with torch.no_grad():
            cosine = torch.cosine_similarity(rows.double(), self.matrix.T.double(), dim=1)
            return cosine.clamp(-1, 1).arccos()


@dataclass(frozen=True, kw_only=True)
class ProblemStructure:
    """A whole inference problem, data + penalties on a linear decoder, for backends that own a kernel."""

    dictionary: LinearMap
    data: LeastSquares
    penalties: tuple[Structure, ...]
