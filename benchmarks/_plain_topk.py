"""The TopK sparse auto-encoder hand-written in plain torch: what the framework is timed against."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PlainTopK(nn.Module):
    """z: the k largest entries of E x + b, all others 0; ½‖x − D z‖².

    gathered: D z by a gather of k columns, and the gradient of E from the kept entries alone; else by products with all
    of D and E.
    """

    def __init__(self, dictionary: Tensor, keep: int, *, gathered: bool) -> None:
        super().__init__()
        self.keep, self.gathered = keep, gathered
        # a gather wants the columns of D one after another
        self.D = nn.Parameter(dictionary.T.contiguous() if gathered else dictionary.clone())
        self.E = nn.Parameter(dictionary.T.contiguous())
        self.b = nn.Parameter(torch.zeros(dictionary.shape[1]))

    def loss(self, x: Tensor) -> Tensor:
        if self.gathered:
            entries, kept = KeptEntries.apply(x, self.E, self.b, self.keep)
            decoded = F.embedding_bag(kept, self.D, per_sample_weights=entries, mode="sum")
        else:
            before = F.linear(x, self.E, self.b)
            entries, kept = before.topk(self.keep, dim=1)
            decoded = F.linear(torch.zeros_like(before).scatter_(1, kept, entries), self.D)
        return 0.5 * (x - decoded).square().sum(1).mean()

    def optimiser(self, rate: float) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=rate, fused=True)

    @torch.no_grad()
    def project(self) -> None:
        norm = self.D.norm(dim=1 if self.gathered else 0, keepdim=True)
        self.D.mul_((1.0 / norm.clamp_min(1e-30)).clamp_max(1.0))

    def train_step(self, optimiser: torch.optim.Optimizer, x: Tensor) -> Tensor:
        optimiser.zero_grad(set_to_none=True)
        loss = self.loss(x)
        loss.backward()
        optimiser.step()
        self.project()
        return loss.detach()


class KeptEntries(torch.autograd.Function):
    """The k largest entries of E x + b and where they are; backward adds up k rows for each sample."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, keep: int) -> tuple[Tensor, Tensor]:
        entries, kept = torch.addmm(bias, x, weight.T).topk(keep, dim=1)
        ctx.save_for_backward(x, weight, kept)
        ctx.mark_non_differentiable(kept)
        return entries, kept

    @staticmethod
    def backward(ctx: Any, slopes: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        x, weight, kept = ctx.saved_tensors
        with torch.enable_grad():
            rows = weight.detach().requires_grad_()
            bag = F.embedding_bag(kept, rows, per_sample_weights=slopes, mode="sum")
        (to_weight,) = torch.autograd.grad(bag, rows, x)
        to_bias = slopes.new_zeros(len(weight)).index_add_(0, kept.flatten(), slopes.flatten())
        return None, to_weight, to_bias, None
