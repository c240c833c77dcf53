"""Squared error where the input is known: for inputs with missing entries."""

from __future__ import annotations

from torch import Tensor

from groundstate.components import Reconstruction
from groundstate.structure import MaskedLeastSquares


class MaskedSquaredError(Reconstruction):
    """½‖m ∘ (x − decoded)‖², with m the batch's field ``mask``: 1 where an entry is known, 0 where it is missing.

    What x holds at missing entries changes nothing, as long as it is finite. Values of m between 0 and 1 trust an
    entry less.
    """

    quadratic = True

    def energy(self, x: Tensor, decoded: Tensor, mask: Tensor) -> Tensor:
        """x, decoded, mask: (batch, *input_shape). Returns (batch,)."""
        return 0.5 * (mask * (x - decoded)).flatten(1).square().sum(1)

    def structure(self) -> MaskedLeastSquares:
        return MaskedLeastSquares()

    def formula(self) -> str:
        return "½‖m ∘ (x − D z)‖²"
