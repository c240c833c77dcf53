"""The TopK sparse auto-encoder hand-written in plain torch: what the framework is timed against."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PlainTopK(nn.Module):
    """z: the k largest entries of E x + b, all others 0; ½‖x − D z‖².

    gathered: D z by a gather of k columns, else by the product with all of D.
    """

    def __init__(self, dictionary: Tensor, keep: int, *, gathered: bool) -> None:
        super().__init__()
        self.keep, self.gathered = keep, gathered
        # a gather wants the columns of D one after another
        self.D = nn.Parameter(dictionary.T.contiguous() if gathered else dictionary.clone())
        self.E = nn.Parameter(dictionary.T.contiguous())
        self.b = nn.Parameter(torch.zeros(dictionary.shape[1]))

    def loss(self, x: Tensor) -> Tensor:
        before = F.linear(x, self.E, self.b)
        entries, kept = before.topk(self.keep, dim=1)
        if self.gathered:
            decoded = F.embedding_bag(kept, self.D, per_sample_weights=entries, mode="sum")
        else:
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
