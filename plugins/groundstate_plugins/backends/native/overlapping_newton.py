"""Newton's method for codes under overlapping pools, on the units of pools that are not held at 0.

A primal-dual method for sums of norms (Andersen, Christiansen, Conn & Overton 2000), as
``regularisers/overlapping_newton.py`` has it for a prox: Σ_P t_P √(‖b_P∘z_P‖² + ε²) while ε goes to 0.
"""

from __future__ import annotations

from typing import NamedTuple

import numba

from groundstate_plugins.backends.native.dense import FAST, correlate, factorise, substitute
from groundstate_plugins.backends.native.quadratic import Floats, Integers


class Pools(NamedTuple):
    """Pools' members one after another. first: (pools + 1,). unit, entry: (members,), entry b in (0, 1].

    radius: (pools,), t_P > 0. home: (units + 1,) where each unit's pools start in above: (members,).
    """

    first: Integers
    unit: Integers
    entry: Floats
    radius: Floats
    home: Integers
    above: Integers


class Space(NamedTuple):
    """Scratch of one thread.

    Per unit: the code z, its correlations c and what the multipliers leave of them, rest; cover, Σ b² of the pools that
    share it; place, its number among those chosen, or −1. Per member: multipliers g, ADMM's copies v. Per pool: held.
    """

    z: Floats
    c: Floats
    rest: Floats
    cover: Floats
    move: Floats
    slope: Floats
    best: Floats
    right: Floats
    image: Floats
    g: Floats
    v: Floats
    ahead: Floats
    eta: Floats
    hessian: Floats
    chosen: Integers
    place: Integers
    held: Integers


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def _expand(pools: Pools, gram: Floats, z: Floats, g: Floats, epsilon: float, size: int, space: Space) -> None:
    """Slope and Hessian of the smoothed energy on the units chosen; c of the space is z's."""
    hessian, place, chosen = space.hessian, space.place, space.chosen
    for i in range(size):
        row = gram[chosen[i]]
        for j in range(i + 1):
            hessian[i, j] = row[chosen[j]]
        space.slope[i] = -space.c[chosen[i]]
    for pool in range(len(pools.radius)):
        if space.held[pool] == 1:
            continue
        first, end = pools.first[pool], pools.first[pool + 1]
        square = epsilon * epsilon
        for k in range(first, end):
            square += (pools.entry[k] * z[pools.unit[k]]) ** 2
        eta, radius = square**0.5, pools.radius[pool]
        space.eta[pool] = eta
        weight = radius / eta
        for k in range(first, end):
            i = place[pools.unit[k]]
            if i < 0:
                continue
            one = pools.entry[k]
            q, y = one * z[pools.unit[k]] / eta, g[k] / radius
            space.slope[i] += one * radius * q
            hessian[i, i] += weight * one * one
            for other in range(first, end):
                j = place[pools.unit[other]]
                if 0 <= j <= i:
                    two = pools.entry[other]
                    curved = y * two * z[pools.unit[other]] / eta + q * g[other] / radius
                    hessian[i, j] -= 0.5 * weight * one * two * curved


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def _direct(gram: Floats, z: Floats, non_negative: bool, size: int, space: Space) -> bool:
    """Newton's move on the units chosen; with z ≥ 0 those at 0 that would go below stay. False where it fails."""
    hessian, move = space.hessian, space.move
    trace = 0.0
    for i in range(size):
        trace = max(trace, hessian[i, i])
    for i in range(size):
        hessian[i, i] += 1e-13 * trace
        move[i] = -space.slope[i]
        if non_negative and z[space.chosen[i]] <= 0 and space.slope[i] > 0:
            for j in range(i):
                hessian[i, j] = 0.0
            for j in range(i + 1, size):
                hessian[j, i] = 0.0
            move[i] = 0.0
    if not factorise(hessian, size):
        return False
    substitute(hessian, move, size)
    return True


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def _cost_change(
    pools: Pools, gram: Floats, z: Floats, ahead: Floats, epsilon: float, size: int, space: Space
) -> float:
    """How much the smoothed energy changes from z to ``ahead``, both over all units."""
    total = 0.0
    for i in range(size):
        unit = space.chosen[i]
        step = ahead[unit] - z[unit]
        if step != 0.0:
            row, pulled = gram[unit], 0.0
            for j in range(size):
                other = space.chosen[j]
                pulled += row[other] * (ahead[other] - z[other])
            total += step * (0.5 * pulled - space.c[unit])
    for pool in range(len(pools.radius)):
        if space.held[pool] == 0:
            square = epsilon * epsilon
            for k in range(pools.first[pool], pools.first[pool + 1]):
                square += (pools.entry[k] * ahead[pools.unit[k]]) ** 2
            total += pools.radius[pool] * (square**0.5 - space.eta[pool])
    return total


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def newton(
    pools: Pools,
    gram: Floats,
    drive: Floats,
    z: Floats,
    g: Floats,
    epsilon: float,
    non_negative: bool,
    size: int,
    space: Space,
) -> None:
    """A step of z and of the multipliers of pools that are not held."""
    correlate(gram, drive, z, len(z), space.c)
    _expand(pools, gram, z, g, epsilon, size, space)
    if not _direct(gram, z, non_negative, size, space):
        return
    ahead, slope = space.ahead, 0.0
    ahead[:] = 0.0
    for i in range(size):
        to = z[space.chosen[i]] + space.move[i]
        ahead[space.chosen[i]] = max(to, 0.0) if non_negative else to
        slope += space.slope[i] * (ahead[space.chosen[i]] - z[space.chosen[i]])
    # the multipliers follow the whole step
    for pool in range(len(pools.radius)):
        if space.held[pool] == 1:
            continue
        first, end = pools.first[pool], pools.first[pool + 1]
        eta, radius = space.eta[pool], pools.radius[pool]
        along_y, along_q = 0.0, 0.0
        for k in range(first, end):
            unit = pools.unit[k]
            moved = pools.entry[k] * (ahead[unit] - z[unit])
            along_y += g[k] / radius * moved
            along_q += pools.entry[k] * z[unit] / eta * moved
        square = 0.0
        for k in range(first, end):
            unit = pools.unit[k]
            if space.place[unit] >= 0:
                q, y = pools.entry[k] * z[unit] / eta, g[k] / radius
                g[k] = (pools.entry[k] * ahead[unit] - 0.5 * (q * along_y + y * along_q)) / eta
                square += g[k] * g[k]
        for k in range(first, end):
            g[k] *= radius / max(square**0.5, 1.0)
    length = 1.0
    for _ in range(30):
        if _cost_change(pools, gram, z, ahead, epsilon, size, space) <= 1e-4 * length * slope:
            break
        length *= 0.5
        for i in range(size):
            unit = space.chosen[i]
            to = z[unit] + length * space.move[i]
            ahead[unit] = max(to, 0.0) if non_negative else to
    z[:] = ahead
