"""Squared error between the input and its reconstruction."""

from __future__ import annotations

from torch import Tensor

from groundstate.components import Reconstruction
from groundstate.structure import LeastSquares


class SquaredError(Reconstruction):
    """½‖x − decoded‖², summed over all entries of an input: Gaussian noise of unit variance."""

    quadratic = True

    def energy(self, x: Tensor, decoded: Tensor) -> Tensor:
        """x, decoded: (batch, *input_shape). Returns (batch,)."""
        return 0.5 * (x - decoded).flatten(1).square().sum(1)

    def structure(self) -> LeastSquares:
        return LeastSquares()

    def formula(self) -> str:
        return "½‖x − D z‖²"
