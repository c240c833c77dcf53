"""Newton's method for the prox of a sum of norms over overlapping pools: what block ascent leaves, it ends.

Block ascent slows down where a pool's norm is small without being 0. A primal-dual Newton method for sums of norms
(Andersen, Christiansen, Conn & Overton 2000) does not: it solves u − v + Σ_P t_P b_P∘y_P = 0 and
√(‖b_P∘u_P‖² + ε²)·y_P = b_P∘u_P while ε goes to 0. It costs one factorisation of (units, units) per sample and step.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from .tilings import Tilings

LARGEST = 512
"""Units up to which it is worth its factorisations."""
STEPS = 40
ENTRIES = 1 << 22
"""Of the largest tensor: more samples are taken in turns."""
DECREASE = 0.2
"""Of ε in a step."""


class Newton:
    """Multipliers g_P = t_P·y_P of some samples, improved from where they are.

    tilings: in float64. v: (samples, units), level: (samples,), multipliers: (samples, pools, size).
    """

    def __init__(self, tilings: Tilings, v: Tensor, level: Tensor) -> None:
        self.v = v
        self.units = tilings.units
        self.index = torch.cat([tile.view(tilings.size, -1).T for tile in tilings.tiles])
        self.entries = tilings.by_pool(tilings.entries)[0] if tilings.entries is not None else None
        self.radius = level[:, None] * tilings.radius[:, 0]

    def _gather(self, u: Tensor) -> Tensor:
        parts = pad(u, (0, 1))[:, self.index]
        return parts if self.entries is None else parts * self.entries

    def _scatter(self, parts: Tensor) -> Tensor:
        parts = parts if self.entries is None else parts * self.entries
        flat = parts.new_zeros(len(parts), self.units + 1)
        return flat.index_add_(1, self.index.flatten(), parts.flatten(1))[:, : self.units]

    def rest(self, y: Tensor) -> Tensor:
        return self.v - self._scatter(self.radius[:, :, None] * y)

    def gap(self, u: Tensor, y: Tensor) -> Tensor:
        """As ``Ascent.gap``."""
        rest = self.rest(y)
        penalty = (self.radius * self._gather(u).norm(dim=2)).sum(1)
        return 0.5 * (u - rest).square().sum(1) + penalty - (u * (self.v - rest)).sum(1)

    def improve(self, multipliers: Tensor, target: Tensor) -> Tensor:
        """Multipliers of the lowest gap on the way to ``target``, (samples,), or after 40 steps."""
        tiny = torch.finfo(self.v.dtype).tiny
        y = multipliers / self.radius[:, :, None].clamp_min(tiny)
        u = self.rest(y)
        least, best = self.gap(u, y), y
        scale = self.v.abs().amax(1).clamp_min(tiny)
        epsilon = (least / self.radius.sum(1).clamp_min(tiny)).clamp(1e-12 * scale, 0.01 * scale)
        for _ in range(STEPS):
            u, y = self._step(u, y, epsilon[:, None])
            gap = self.gap(u, y)
            better = gap < least
            least = torch.where(better, gap, least)
            best = torch.where(better[:, None, None], y, best)
            if bool((least <= target).all()):
                break
            epsilon = torch.maximum(DECREASE * epsilon, 1e-14 * scale)
        return best * self.radius[:, :, None]

    def _step(self, u: Tensor, y: Tensor, epsilon: Tensor) -> tuple[Tensor, Tensor]:
        w = self._gather(u)
        eta = (w.square().sum(2) + epsilon.square()).sqrt()
        q, weight = w / eta[:, :, None], self.radius / eta
        slope = u - self.v + self._scatter(weight[:, :, None] * w)
        factor, failed = torch.linalg.cholesky_ex(self._hessian(y, q, weight))
        move = -torch.cholesky_solve(slope[:, :, None], factor)[:, :, 0]
        move = torch.where((failed > 0)[:, None], 0.0, move)
        u_next = u + self._length(u, move, slope, epsilon)[:, None] * move
        moved = self._gather(move)
        along = q * (y * moved).sum(2, keepdim=True) + y * (q * moved).sum(2, keepdim=True)
        ahead = (moved - 0.5 * along + w) / eta[:, :, None]
        return u_next, ahead / ahead.norm(dim=2, keepdim=True).clamp_min(1.0)

    def _hessian(self, y: Tensor, q: Tensor, weight: Tensor) -> Tensor:
        """1 + Σ_P (t/η) B(1 − ½(yqᵀ + qyᵀ))B, (samples, units, units): positive definite as ‖y‖ ≤ 1 and ‖q‖ < 1."""
        blocks = -0.5 * (y[:, :, :, None] * q[:, :, None, :] + q[:, :, :, None] * y[:, :, None, :])
        blocks.diagonal(dim1=2, dim2=3).add_(1)
        blocks *= weight[:, :, None, None]
        if self.entries is not None:
            blocks *= self.entries[:, :, None] * self.entries[:, None, :]
        side = self.units + 1
        place = (side * self.index[:, :, None] + self.index[:, None, :]).flatten()
        flat = blocks.new_zeros(len(blocks), side * side).index_add_(1, place, blocks.flatten(1))
        hessian = flat.view(-1, side, side)[:, :-1, :-1].contiguous()
        hessian.diagonal(dim1=1, dim2=2).add_(1)
        return hessian

    def _length(self, u: Tensor, move: Tensor, slope: Tensor, epsilon: Tensor) -> Tensor:
        """A step length that lowers ½‖u − v‖² + Σ_P t_P √(‖b_P∘u_P‖² + ε²), (samples,)."""

        def cost(at: Tensor) -> Tensor:
            norms = (self._gather(at).square().sum(2) + epsilon.square()).sqrt()
            return 0.5 * (at - self.v).square().sum(1) + (self.radius * norms).sum(1)

        here, along = cost(u), (slope * move).sum(1)
        length = torch.ones_like(here)
        for _ in range(20):
            wanted = here + 1e-4 * length * along + 1e-15 * here.abs()
            raised = cost(u + length[:, None] * move) > wanted
            if not bool(raised.any()):
                break
            length = torch.where(raised, 0.5 * length, length)
        return length


def improve(tilings: Tilings, v: Tensor, level: Tensor, multipliers: Tensor, target: Tensor) -> Tensor:
    """Better multipliers, (rows, samples) as an ``Ascent`` has them, for samples as columns v: (units + 1, samples)."""
    exact = tilings.double()
    pools = len(exact.radius)
    largest = max(pools * exact.size**2, (exact.units + 1) ** 2)
    turn = max(1, ENTRIES // largest)
    found = []
    for first in range(0, v.shape[1], turn):
        some = slice(first, first + turn)
        newton = Newton(exact, v[:-1, some].T.double(), level[some].double())
        better = newton.improve(exact.by_pool(multipliers[:, some].double()), target[some].double())
        found.append(exact.by_row(better))
    return torch.cat(found, 1).to(v.dtype)
