"""No prediction."""

from __future__ import annotations

from torch import Tensor

from groundstate.components import Context, Encoder


class NoEncoder(Encoder):
    """z = 0, whatever the input: every inference starts from zeros."""

    def build(self, context: Context) -> None:
        self._code_shape = context.code_shape

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, *input_shape). Returns zeros, (batch, *code_shape)."""
        return x.new_zeros(len(x), *self._code_shape)

    def select(self, units: Tensor) -> None:
        super().select(units)
        self._code_shape = (len(units), *self._code_shape[1:])
