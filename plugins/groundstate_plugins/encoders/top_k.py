"""One matrix, and only the largest entries of what it gives."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from groundstate.components import Code, Context, Encoder


class TopK(Encoder):
    """z: the k largest entries of E x + b, all others 0; with ``rectify``, of max(E x + b, 0).

    The k-sparse auto-encoder of Makhzani & Frey 2014; rectified, the TopK sparse auto-encoder of Gao et al. 2024.
    Gradients reach the entries that were kept alone. Parameters: ``feedforward`` E (units, n), ``bias`` b (units,).
    """

    feedforward: Tensor
    bias: Tensor
    examples = ({"keep": 3}, {"keep": 3, "rectify": True})

    class Config(Encoder.Config):
        keep: int = Field(ge=1, description="k, entries that are kept; all of them where the code has fewer")
        rectify: bool = Field(False, description="keep positive entries only; fewer than k where there are fewer")
        units: int | None = Field(None, ge=1, description="units of the code; by default those of the decoder")

    def code_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...] | None:
        return None if self.config.units is None else (self.config.units,)

    def build(self, context: Context) -> None:
        """Make E, the transposed dictionary where there is one, and b = 0."""
        units = context.flat_units(self.config.units)
        rows = context.randn(units, context.inputs) / context.inputs**0.5
        if context.decoder is not None:
            rows = context.decoder.matrix.detach().T.clone()
        self.declare("feedforward", rows, unit_dims=(0,))
        self.declare("bias", torch.zeros(units), unit_dims=(0,))

    def forward(self, x: Tensor) -> Code:
        """x: (batch, *input_shape). Shares E x + b, and which entries of it were kept, the largest first."""
        before = functional.linear(x.flatten(1), self.feedforward, self.bias)
        entries, kept = before.topk(min(self.config.keep, before.shape[1]), dim=1)
        if self.config.rectify:
            entries = torch.relu(entries)
        value = torch.zeros_like(before).scatter_(1, kept, entries)
        return Code(value, pre_activation=before, kept=kept, entries=entries)

    def select(self, units: Tensor) -> None:
        super().select(units)
        if self.config.units is not None:
            self.config = self.config.model_copy(update={"units": len(units)})
