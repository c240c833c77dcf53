"""The curvature of a sum of norms over overlapping pools, for backward passes through its prox."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from .tilings import Tilings


class Curvature:
    """∇Ω and level·∇²Ω at u on the units of pools that are not 0; u: (batch, units), level: (batch,)."""

    def __init__(self, tilings: Tilings, u: Tensor, level: Tensor) -> None:
        self.level = level[:, None]
        self.index = torch.cat([tile.view(tilings.size, -1).T for tile in tilings.tiles])
        self.entries: Tensor | float = 1.0
        if tilings.entries is not None:
            self.entries = tilings.by_pool(tilings.entries)[0]
        self.units = tilings.units
        norm = (self._gather(u) * self.entries).norm(dim=2)  # (batch, pools)
        self.weight = torch.where(norm > 0, tilings.radius[:, 0] / torch.where(norm > 0, norm, 1.0), 0.0)
        self.direction = self._gather(u) * self.entries / torch.where(norm > 0, norm, 1.0)[:, :, None]
        self.free = self._scatter((norm == 0).to(u.dtype)[:, :, None].expand(-1, -1, tilings.size)) == 0
        self.slope = self._scatter(self.weight[:, :, None] * self.entries * self._gather(u) * self.entries)

    def _gather(self, u: Tensor) -> Tensor:
        return pad(u, (0, 1))[:, self.index]

    def _scatter(self, parts: Tensor) -> Tensor:
        flat = parts.new_zeros(len(parts), self.units + 1)
        return flat.index_add_(1, self.index.flatten(), parts.flatten(1))[:, : self.units]

    def apply(self, p: Tensor) -> Tensor:
        """(1 + level·∇²Ω) p."""
        part = self._gather(p) * self.entries
        along = (part * self.direction).sum(2, keepdim=True)
        curved = self.weight[:, :, None] * (part - along * self.direction)
        return (p + self.level * self._scatter(curved * self.entries)) * self.free

    def solve(self, right: Tensor) -> Tensor:
        """(1 + level·∇²Ω)⁻¹ by conjugate gradients, to the dtype's precision."""
        x, rest = torch.zeros_like(right), right * self.free
        diagonal = 1 + self.level * self._scatter(
            self.weight[:, :, None] * (1 - self.direction.square()) * torch.as_tensor(self.entries).square()
        )
        size = rest.square().sum(1)
        accuracy = (4 * torch.finfo(right.dtype).eps) ** 2 * size
        preconditioned = rest / diagonal
        direction, product = preconditioned, (rest * preconditioned).sum(1)
        for _ in range(4 * self.units):
            if bool((rest.square().sum(1) <= accuracy).all()):
                break
            image = self.apply(direction)
            length = (product / (direction * image).sum(1).clamp_min(torch.finfo(right.dtype).tiny))[:, None]
            x, rest = x + length * direction, rest - length * image
            preconditioned = rest / diagonal
            before, product = product, (rest * preconditioned).sum(1)
            direction = (
                preconditioned + (product / before.clamp_min(torch.finfo(right.dtype).tiny))[:, None] * direction
            )
        return x
