"""One matrix, and only the largest entries of what it gives."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from groundstate.components import Code, Context, Encoder

GATHERED = 32
"""Where at most one entry in so many is kept, its gradient is faster by a gather than by a product."""


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
        keep = min(self.config.keep, len(self.bias))
        given = (x.flatten(1), self.feedforward, self.bias, keep)
        largest = _Largest.apply if GATHERED * keep <= len(self.bias) else _largest
        before, entries, kept = largest(*given)
        if self.config.rectify:
            entries = torch.relu(entries)
        value = torch.zeros_like(before).scatter_(1, kept, entries)
        return Code(value, pre_activation=before, kept=kept, entries=entries)

    def select(self, units: Tensor) -> None:
        super().select(units)
        if self.config.units is not None:
            self.config = self.config.model_copy(update={"units": len(units)})


def _largest(x: Tensor, feedforward: Tensor, bias: Tensor, keep: int) -> tuple[Tensor, Tensor, Tensor]:
    """E x + b (batch, units), its largest entries and where they stand, both (batch, keep)."""
    before = functional.linear(x, feedforward, bias)
    entries, kept = before.topk(keep, dim=1)
    return before, entries, kept


class _Largest(torch.autograd.Function):
    """``_largest``, whose gradient touches the kept entries alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, feedforward: Tensor, bias: Tensor, keep: int) -> tuple[Tensor, Tensor, Tensor]:
        before, entries, kept = _largest(x, feedforward, bias, keep)
        ctx.save_for_backward(x, feedforward, kept)
        ctx.mark_non_differentiable(kept)
        ctx.set_materialize_grads(False)
        return before, entries, kept

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, whole: Tensor | None, some: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        x, feedforward, kept = ctx.saved_tensors
        to_x = to_feedforward = to_bias = None
        if some is not None:
            # Σ_j g_j E_(kept_j) is the gradient of x, and that bag's own gradient at x is E's
            with torch.enable_grad():
                rows = feedforward.detach().requires_grad_()
                bag = functional.embedding_bag(kept, rows, per_sample_weights=some, mode="sum")
            (to_feedforward,) = torch.autograd.grad(bag, rows, x)
            to_x = bag.detach()
            to_bias = some.new_zeros(len(feedforward)).index_add_(0, kept.flatten(), some.flatten())
        if whole is not None:
            parts = whole @ feedforward, whole.T @ x, whole.sum(0)
            found = (to_x, to_feedforward, to_bias)
            to_x, to_feedforward, to_bias = (a if b is None else a + b for a, b in zip(parts, found, strict=True))
        return to_x, to_feedforward, to_bias, None
