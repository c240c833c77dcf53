"""The discriminative recurrent sparse auto-encoder hand-written in plain torch: what the framework is timed against."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PlainDrsae(nn.Module):
    """z⁰ = 0, z ← relu(E x + R z − b) T times; ½‖x − D z‖² + λ‖z‖₁ + w·cross-entropy(C z/‖z‖)."""

    def __init__(
        self,
        dictionary: Tensor,
        classes: int,
        steps: int,
        sparsity: float,
        task: float,
        clip: float | None = None,
        average: float | None = None,
    ) -> None:
        super().__init__()
        self.steps, self.sparsity, self.task = steps, sparsity, task
        self.clip, self.decay = clip, average
        gram = dictionary.T @ dictionary
        alpha = 1.0 / float(torch.linalg.eigvalsh(gram)[-1])
        units = dictionary.shape[1]
        self.D = nn.Parameter(dictionary.clone())
        self.E = nn.Parameter(alpha * dictionary.T.contiguous())
        self.R = nn.Parameter(torch.eye(units) - alpha * gram)
        self.b = nn.Parameter(torch.full((units,), alpha * sparsity))
        self.C = nn.Parameter(torch.zeros(classes, units))
        self.c = nn.Parameter(torch.zeros(classes))
        self.average = [value.detach().clone() for value in self.parameters()] if average is not None else []

    def encode(self, x: Tensor) -> Tensor:
        drive = F.linear(x, self.E, -self.b)
        z = F.relu(drive)
        for _ in range(self.steps - 1):
            z = F.relu(torch.addmm(drive, z, self.R.T))
        return z

    def loss(self, x: Tensor, y: Tensor, *, supervised: bool = True) -> Tensor:
        z = self.encode(x)
        loss = 0.5 * (x - z @ self.D.T).square().sum(1).mean() + self.sparsity * z.abs().sum(1).mean()
        if supervised:
            scores = F.linear(z / z.norm(dim=1, keepdim=True).clamp_min(1e-8), self.C, self.c)
            loss = loss + self.task * F.cross_entropy(scores, y)
        return loss

    def optimiser(self, rate: float) -> torch.optim.Optimizer:
        slow = {"params": [self.E, self.R, self.b], "lr": rate / self.steps}
        return torch.optim.Adam([{"params": [self.D, self.C, self.c], "lr": rate}, slow], fused=True)

    @torch.no_grad()
    def project(self) -> None:
        self.D.mul_((1.0 / self.D.norm(dim=0, keepdim=True).clamp_min(1e-30)).clamp_max(1.0))
        self.E.mul_((1.25 / (self.steps - 1) / self.E.norm(dim=1, keepdim=True).clamp_min(1e-30)).clamp_max(1.0))
        self.C.mul_((5.0 / self.C.norm(dim=1, keepdim=True).clamp_min(1e-30)).clamp_max(1.0))

    def train_step(self, optimiser: torch.optim.Optimizer, x: Tensor, y: Tensor, *, supervised: bool = True) -> Tensor:
        optimiser.zero_grad(set_to_none=True)
        loss = self.loss(x, y, supervised=supervised)
        loss.backward()
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.parameters(), self.clip)
        optimiser.step()
        self.project()
        if self.average:
            torch._foreach_lerp_(self.average, [value.detach() for value in self.parameters()], 1 - self.decay)
        return loss.detach()
