"""Sums of norms over overlapping pools: their prox and dual norm, by block ascent on the dual.

With g_P in the ball of radius step·w_P, the prox of step·Σ_P w_P‖b_P∘u_P‖ at v is u = v − Σ_P b_P∘g_P for the g
of least ½‖u‖² (Jenatton, Mairal, Obozinski & Bach 2011). Pools that do not meet are updated at once: a colouring
sorts them into disjoint tilings. Samples are columns here, so that every gather copies whole rows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from groundstate.components import Memory

from . import overlapping_newton as newton
from .overlapping_curvature import Curvature
from .tilings import Tilings, norms_of

SWEEPS = 300
"""At the most."""
PATIENCE = 20
"""Sweeps before Newton's method takes a turn, or a third of the units: its steps cost as much as many sweeps."""
BOUND_SWEEPS = 10
"""For a dual norm with the prox's multipliers: a certificate is asked again and again, tighter each time."""


class Ascent:
    """The multipliers of some samples, (rows, samples), and what they leave of v, (units + 1, samples).

    level: (samples,), the radius of the balls in units of w.
    """

    def __init__(self, tilings: Tilings, v: Tensor, multipliers: Tensor | None, level: Tensor) -> None:
        self.tilings = tilings
        self.blocks = tilings.blocks()
        self.level = level
        self.v = v
        if multipliers is None:
            self.multipliers, self.rest = v.new_zeros(tilings.rows, v.shape[1]), v.clone()
        else:
            self.multipliers = multipliers * level
            self.rest = self._rest()
        self.before: tuple[Tensor, Tensor] | None = None
        self.inertia = torch.ones_like(level)
        self.last = torch.full_like(level, torch.inf)
        self.keep = v.new_ones(len(tilings.radius), v.shape[1])

    def _rest(self) -> Tensor:
        taken, entries = self.multipliers, self.tilings.entries
        if entries is not None:
            taken = taken * entries
        rest = self.v.clone()
        for tile, rows, _ in self.blocks:
            rest.index_add_(0, tile, taken[rows], alpha=-1)
        return rest

    def restart(self, multipliers: Tensor) -> None:
        """Go on from other multipliers."""
        self.multipliers = multipliers
        self.rest = self._rest()
        self.before = None
        self.inertia = torch.ones_like(self.level)
        self.last = torch.full_like(self.level, torch.inf)

    def sweep(self) -> None:
        """Each tiling's multipliers once to their optimum, from a point extrapolated along the last sweep.

        A sample whose objective ½‖rest‖² rises starts its extrapolation afresh.
        """
        self._extrapolate()
        entries, size = self.tilings.entries, self.tilings.size
        ball = self.tilings.radius * self.level
        tiny = torch.finfo(ball.dtype).tiny
        for tile, rows, pools in self.blocks:
            old, rest = self.multipliers[rows], self.rest.index_select(0, tile)
            moved = rest * entries[rows] if entries is not None else rest
            moved = moved + old
            radius = ball[pools]
            norm = norms_of(moved, len(radius))
            torch.gt(norm, radius, out=self.keep[pools])
            shrink = radius / torch.maximum(norm, radius).clamp_min_(tiny)
            if entries is None:
                torch.mul(moved.view(size, *shrink.shape), shrink, out=old.view(size, *shrink.shape))
                rest = moved.sub_(old)
            else:
                moved.view(size, *shrink.shape).mul_(shrink)
                rest.sub_((moved - old).mul_(entries[rows]))
                old.copy_(moved)
            self.rest.index_copy_(0, tile, rest)

    def _extrapolate(self) -> None:
        objective = self.rest.square().sum(0)
        self.inertia = torch.where(objective > self.last, 1.0, self.inertia)
        self.last = objective
        following = 0.5 * (1 + (1 + 4 * self.inertia.square()).sqrt())
        ahead = 1 + (self.inertia - 1) / following
        self.inertia = following
        now = (self.multipliers, self.rest)
        if self.before is None:
            self.multipliers, self.rest = now[0].clone(), now[1].clone()
        else:
            self.multipliers, self.rest = (
                torch.lerp(old, new, ahead, out=old) for old, new in zip(self.before, now, strict=True)
            )
        self.before = now

    def candidate(self, *, masked: bool = True) -> Tensor:
        """The primal point: what is left of v where it has v's sign, exactly 0 elsewhere.

        masked: 0 in each pool whose multiplier is inside its ball, too. Where all are inside after a sweep, they sum
        to v: it is the proof that 0 is the prox.
        """
        rest = torch.where(self.rest * self.v > 0, self.rest, 0.0)
        return self.tilings.masked(rest, self.keep) if masked else rest

    def gap(self, u: Tensor) -> Tensor:
        """Duality gap of u and the multipliers, (samples,): ½‖u − rest‖² + level·Ω(u) − ⟨u, v − rest⟩."""
        penalty = self.level * self.tilings.value(u)
        return 0.5 * (u - self.rest).square().sum(0) + penalty - (u * (self.v - self.rest)).sum(0)

    def bound(self) -> Tensor:
        """An upper bound of Ω*(v), (samples,): what is left of v is shared out among the pools."""
        share = self.rest / self.tilings.cover
        largest = torch.zeros_like(self.level)
        for tile, rows, pools in self.blocks:
            part = share.index_select(0, tile)
            if self.tilings.entries is not None:
                part *= self.tilings.entries[rows]
            norm = norms_of(part.add_(self.multipliers[rows]), pools.stop - pools.start)
            largest = torch.maximum(largest, (norm / self.tilings.radius[pools]).amax(0))
        return largest

    def select(self, keep: Tensor) -> None:
        """Go on with some of the samples only."""
        for name in ("v", "multipliers", "rest", "keep"):
            setattr(self, name, getattr(self, name).index_select(1, keep))
        for name in ("level", "inertia", "last"):
            setattr(self, name, getattr(self, name)[keep])
        if self.before is not None:
            self.before = (self.before[0].index_select(1, keep), self.before[1].index_select(1, keep))


def prox(tilings: Tilings, v: Tensor, level: Tensor, tolerance: float, memory: Memory | None = None) -> Tensor:
    """argmin_u level·Σ_P w_P‖b_P∘u_P‖ + ½‖u − v‖², each sample to a duality gap of tolerance·½‖v‖².

    v: (batch, units); level: (batch,). memory keeps the multipliers, on unit balls, for the next call. Samples
    that are done leave the sweeps; one that is not after 300 gets what there is. Backward passes solve with the
    exact Jacobian on the pools that are not 0.
    """
    result: Tensor = _Prox.apply(v, level, tilings, tolerance, memory)
    return result


def _ascend(tilings: Tilings, v: Tensor, level: Tensor, tolerance: float, memory: Memory | None) -> Tensor:
    columns, start = _columns(v), _start(memory, tilings, v)
    ascent = Ascent(tilings, columns, start, level)
    result, multipliers = v.T.clone(), ascent.multipliers.clone()
    target = max(tolerance, 8 * torch.finfo(v.dtype).eps) * 0.5 * columns.square().sum(0)
    rows = torch.arange(len(v), device=v.device)
    waiting = torch.ones_like(rows, dtype=torch.bool)
    check, patience = 1, max(PATIENCE, tilings.units // 3)
    for sweep in range(1, SWEEPS + 1):
        if sweep % patience == 0 and tilings.units <= newton.LARGEST:
            wanted = target[rows] * 0.1 ** (sweep // patience)
            ascent.restart(newton.improve(tilings, ascent.v, ascent.level, ascent.multipliers, wanted))
            check = sweep
        ascent.sweep()
        if sweep < check and sweep < SWEEPS:
            continue
        check = sweep + max(1, sweep // 3)
        u = ascent.candidate()
        done = ascent.gap(u) <= target[rows]
        if tilings.entries is not None:
            # unlike for ones, multipliers inside their balls need not sum to v yet: 0 must be proven
            rest = ascent.rest.abs().amax(0) <= 8 * torch.finfo(v.dtype).eps * ascent.v.abs().amax(0)
            done &= rest | (u.abs().amax(0) > 0)
        if sweep == SWEEPS:
            u = torch.where(done, u, ascent.candidate(masked=False))
            done = torch.ones_like(done)
        if len(rows) == len(v) and bool(done.all() & waiting.all()):
            result, multipliers = u[:-1], ascent.multipliers
            break
        fresh = (done & waiting).nonzero().flatten()
        if len(fresh):
            result[:, rows[fresh]] = u[:-1, fresh]
            multipliers[:, rows[fresh]] = ascent.multipliers[:, fresh]
            waiting[fresh] = False
            left = waiting.nonzero().flatten()
            if len(left) == 0:
                break
            if len(left) < 0.8 * len(rows):
                ascent.select(left)
                rows, waiting = rows[left], waiting[left]
    if memory is not None:
        memory.value = (multipliers / level.clamp_min(torch.finfo(v.dtype).tiny)).T
    return result.T.contiguous()


def dual_norm(
    tilings: Tilings,
    c: Tensor,
    z: Tensor | None = None,
    memory: Memory | None = None,
    tolerance: float = 1e-6,
) -> Tensor:
    """An upper bound of Ω*(c) = sup ⟨c, u⟩ over Σ_P w_P‖b_P∘u_P‖ ≤ 1, (batch,), by a factor 1 + tolerance or less.

    c: (batch, units). From a decomposition c = Σ_P b_P∘g_P follows Ω*(c) ≤ max_P ‖g_P‖/w_P; sweeps at the level
    of the best lower bound ⟨c, u⟩/Ω(u) even it out. z, a code that may attain the supremum (a certificate's),
    gives the first lower bound; as far as it does not attain it, its certificate is loose anyway, and a tenth
    of that is precise enough. memory: the prox's, which near the optimum holds that decomposition; a few sweeps
    from there have to do, tolerance or not.
    """
    columns, tiny = _columns(c), torch.finfo(c.dtype).tiny
    floor = max(tolerance, 8 * torch.finfo(c.dtype).eps)
    level = _attained(tilings, columns, columns)
    if z is not None:
        by_code = _attained(tilings, columns, _columns(z))
        level = torch.maximum(level, by_code)
    start = _start(memory, tilings, c)
    most = SWEEPS if start is None else BOUND_SWEEPS
    if start is None and z is not None:
        start = tilings.directions(_columns(z))
    ascent = Ascent(tilings, columns, start, level)
    bound = ascent.bound()
    result, rows = bound.clone(), torch.arange(len(c), device=c.device)
    for _ in range(most + 1):
        slack = torch.full_like(bound, floor)
        if z is not None:
            loose = 0.1 * (ascent.level / by_code[rows].clamp_min(tiny) - 1)
            # where z = 0 the error enters the gap squared only
            slack = torch.maximum(slack, torch.where(by_code[rows] == 0, floor**0.5, loose))
        result[rows] = bound
        left = (bound > ascent.level * (1 + slack)).nonzero().flatten()
        if len(left) == 0:
            break
        if len(left) < len(rows):
            ascent.select(left)
            rows, bound = rows[left], bound[left]
        ascent.sweep()
        bound = torch.minimum(bound, ascent.bound())
        ascent.level = torch.maximum(ascent.level, _attained(tilings, ascent.v, ascent.candidate()))
    return result


def _attained(tilings: Tilings, c: Tensor, u: Tensor) -> Tensor:
    """⟨c, u⟩/Ω(u), a lower bound of Ω*(c); 0 at u = 0. Both (units + 1, samples)."""
    return (c * u).sum(0) / tilings.value(u).clamp_min(torch.finfo(c.dtype).tiny)


def _columns(v: Tensor) -> Tensor:
    """(batch, units) as (units + 1, batch): samples as columns, and the padding's row of zeros."""
    return torch.cat([v.detach().T, v.new_zeros(1, len(v))])


def _start(memory: Memory | None, tilings: Tilings, v: Tensor) -> Tensor | None:
    value = None if memory is None else memory.value
    if value is None or value.shape != (len(v), tilings.rows):
        return None
    return value.T.contiguous()


class _Prox(torch.autograd.Function):
    """The prox with a backward pass: its Jacobian is (1 + level·∇²Ω)⁻¹ on the units of pools that are not 0."""

    @staticmethod
    def forward(
        ctx: Any, v: Tensor, level: Tensor, tilings: Tilings, tolerance: float, memory: Memory | None
    ) -> Tensor:
        u = _ascend(tilings, v, level, tolerance, memory)
        ctx.save_for_backward(u, level)
        ctx.tilings = tilings
        return u

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (gradient,) = gradients
        u, level = ctx.saved_tensors
        curve = Curvature(ctx.tilings, u, level)
        pulled = curve.solve(gradient)
        slope = -(pulled * curve.slope).sum(1)
        return pulled, slope, None, None, None
