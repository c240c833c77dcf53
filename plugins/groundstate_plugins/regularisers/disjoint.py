"""Sums of norms over disjoint pools: prox and dual norm in closed form, or by one equation per pool."""

from __future__ import annotations

import torch
from torch import Tensor

NEWTON_STEPS = 100


def prox(parts: Tensor, level: Tensor, entries: Tensor | None) -> Tensor:
    """argmin_u level_P·‖b∘u‖ + ½‖u − v‖² for each pool v of ``parts``, (batch, pools, size); differentiable.

    level: (batch, pools), ≥ 0. entries: (pools, size) b in (0, 1] with a 1 in each pool, None for ones: then the
    block soft threshold v·max(0, 1 − level/‖v‖) (Yuan & Lin 2006). Otherwise u = v·μ/(b² + μ), where μ solves
    ‖b∘v/(b² + μ)‖ = level, or 0 where ‖v/b‖ ≤ level.
    """
    if entries is None:
        square = parts.square().sum(2)
        active = square > level.square()
        shrink = 1 - level / torch.where(active, square, 1.0).sqrt()
        return parts * torch.where(active, shrink, 0.0)[:, :, None]
    active = (parts / entries).square().sum(2) > level.square()
    solved = active & (level > 0)  # at level 0 the answer is v itself
    v = torch.where(solved[:, :, None], parts, 1.0)
    level = torch.where(solved, level, 0.5)
    with torch.no_grad():
        multiplier = _multiplier(v, level, entries, solved)
    if v.requires_grad or level.requires_grad:
        # one step of Newton's method from the root has the root's value and its derivative
        excess, slope = _newton(v, level, entries, multiplier)
        multiplier = torch.where(solved, multiplier + excess * slope.detach(), 1.0)
    u = v / (1 + entries.square() / multiplier[:, :, None])
    return torch.where(solved[:, :, None], u, torch.where(active[:, :, None], parts, 0.0))


def _newton(v: Tensor, level: Tensor, entries: Tensor, multiplier: Tensor) -> tuple[Tensor, Tensor]:
    """Newton's step for 1/‖g(μ)‖ = 1/level, g = b∘v/(b² + μ), as excess · slope, both (batch, pools)."""
    reach = entries.square() + multiplier[:, :, None]
    g = entries * v / reach
    square = g.square().sum(2)
    return square.sqrt() / level - 1, square / (g.square() / reach).sum(2)


def _multiplier(v: Tensor, level: Tensor, entries: Tensor, active: Tensor) -> Tensor:
    # 1/‖g(μ)‖ is concave and grows: from the left Newton's method rises to the root; b ≤ 1 gives the start
    multiplier = ((entries * v).square().sum(2).sqrt() / level - 1).clamp_min(0)
    multiplier = torch.where(active, multiplier, 1.0)
    waiting = active.clone()
    precision = 4 * torch.finfo(v.dtype).eps
    for _ in range(NEWTON_STEPS):
        excess, slope = _newton(v, level, entries, multiplier)
        move = torch.where(waiting, excess * slope, 0.0)
        multiplier = (multiplier + move).clamp_min(0)
        waiting &= move.abs() > precision * multiplier
        if not bool(waiting.any()):
            break
    return multiplier.clamp_min(torch.finfo(v.dtype).tiny)


def dual_norm(parts: Tensor, radius: Tensor, entries: Tensor | None) -> Tensor:
    """max_P ‖c_P/b‖/radius_P, exact, (batch,); parts: (batch, pools, size) of c, radius: (pools,)."""
    if entries is not None:
        parts = parts / entries
    return (parts.square().sum(2).sqrt() / radius).amax(1)
