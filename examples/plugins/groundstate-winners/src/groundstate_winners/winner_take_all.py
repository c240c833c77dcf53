"""An encoder that keeps the largest entries."""

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from groundstate import Code, Context, Encoder


class WinnerTakeAll(Encoder):
    """E x + b with all but the k largest entries set to 0 (k-sparse auto-encoder, Makhzani & Frey 2014)."""

    feedforward: Tensor
    bias: Tensor

    class Config(Encoder.Config):
        keep: int = Field(8, ge=1, description="k, entries that are kept; all of them where the code has fewer")

    def build(self, context: Context) -> None:
        """E: (units, inputs), the transposed dictionary where there is one, and b: (units,)."""
        units = context.flat_units()
        rows = context.randn(units, context.inputs) / context.inputs**0.5
        if context.decoder is not None:
            rows = context.decoder.matrix.detach().T.clone()
        self.declare("feedforward", rows, unit_dims=(0,))
        self.declare("bias", torch.zeros(units), unit_dims=(0,))

    def forward(self, x: Tensor) -> Code:
        """x: (batch, *input_shape). Returns codes (batch, units)."""
        before = functional.linear(x.flatten(1), self.feedforward, self.bias)
        kept = before.topk(min(self.config.keep, before.shape[1]), dim=1)
        return Code(torch.zeros_like(before).scatter(1, kept.indices, kept.values), pre_activation=before)
