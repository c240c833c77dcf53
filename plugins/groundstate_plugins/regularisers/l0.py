"""The number of active units: sparse codes whose size costs nothing."""

from __future__ import annotations

from torch import Tensor

from groundstate.components import Regulariser
from groundstate.problem import Step
from groundstate.structure import L0 as L0Structure


class L0(Regulariser):
    """‖z‖₀, the number of units that are not zero.

    Not convex: a solver ends at a code that no small move improves, and ``cpu-native`` at a lower one by orthogonal
    matching pursuit. Unlike L1 it does not shrink what is active.
    """

    def energy(self, z: Tensor) -> Tensor:
        """z: (batch, *code_shape). Returns (batch,)."""
        flat = z.flatten(1)
        # the second part is 0, and lets automatic differentiation find the gradient 0
        return (flat != 0).to(flat).sum(1) + 0 * flat.sum(1)

    def prox(self, v: Tensor, step: Step) -> Tensor:
        """Hard threshold: v where v² > 2·step, else 0."""
        return v.where(v.square() > 2 * step, 0)

    def structure(self) -> L0Structure:
        return L0Structure()

    def formula(self) -> str:
        return "‖z‖₀"
