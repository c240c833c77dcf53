"""Codes under overlapping pools: Σ_P t_P‖b_P∘z_P‖, each sample by a primal-dual Newton method on the pools that act.

A short run of the alternating direction method of multipliers (ADMM, Boyd et al. 2011) tells pools that are surely 0
from the rest. They are held at 0, which takes all of their units away; on the units left Newton's method for sums of
norms (Andersen, Christiansen, Conn & Overton 2000, as in ``regularisers/overlapping_newton.py``) finds code and
multipliers. The multipliers g of the pools held, ‖g_P‖ ≤ t_P, prove that they were rightly held where
Σ_P b_P∘g_P is the residual's correlation c; block ascent on ½‖c − Σ_P b_P∘g_P‖² looks for such. Where it finds none,
ADMM goes on from there. In the end none is held, and Newton's method has the whole problem.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from torch import Tensor

from groundstate.components import Solver
from groundstate.inference import Solved
from groundstate.problem import Problem
from groundstate.structure import Groups, ProblemStructure, Ridge
from groundstate_plugins.backends.native.dense import FAST, correlate
from groundstate_plugins.backends.native.inverse import PAD, product
from groundstate_plugins.backends.native.overlapping_newton import Pools, Space, newton
from groundstate_plugins.backends.native.quadratic import Floats, Integers, Quadratic
from groundstate_plugins.backends.native.threads import in_blocks

BLOCK = 4
"""Samples that one thread takes at a time: milliseconds each, and some take ten times as long as others."""
ROUNDS = 40
"""Of ADMM, before Newton's method."""
RELAXED = 1.6
"""ADMM's over-relaxation."""
SURE = 0.8
"""A pool is held at 0 where ADMM's multiplier is at most this part of its ball's radius."""
SWEEPS = 20
"""Of block ascent on the multipliers of the pools held, in one go."""
TURNS = 4
"""Of ADMM and Newton's method, before no pool is held."""
DECREASE = (0.1, 0.3)
"""Of the smoothing ε in a Newton step; where no pool is held, more slowly."""
ZERO = 100.0
"""A pool is 0 where its norm is at most so many ε."""
LOOK = 5
"""Sweeps between two looks at the gap."""
LARGEST = 1024
"""Units up to which Newton's method is worth its factorisations."""


def takes(structure: ProblemStructure) -> bool:
    """One set of pools that covers every unit, each with a weight and its entries too."""
    sets = [penalty for penalty in structure.penalties if isinstance(penalty, Groups)]
    if len(sets) != 1 or len(structure.penalties) > 1 + sum(isinstance(p, Ridge) for p in structure.penalties):
        return False
    inside = sets[0].index >= 0
    units = structure.dictionary.matrix.shape[1]
    if units > LARGEST or len(sets[0].index[inside].unique()) < units:
        return False
    weighted = sets[0].scale is None or bool((sets[0].scale[inside] > 0).all())
    return weighted and bool((torch.as_tensor(sets[0].weight) > 0).all())


def pools_of(form: Groups, units: int) -> Pools:
    """The pools of a structure, the largest entry of each 1."""
    index = form.index.cpu().numpy()
    inside = index >= 0
    weight = np.broadcast_to(np.asarray(form.weight, np.float64), len(index))
    scale = np.ones(index.shape) if form.scale is None else form.scale.cpu().numpy().astype(np.float64)
    top = np.where(inside, scale, 0.0).max(1)
    pool = np.broadcast_to(np.arange(len(index))[:, None], index.shape)[inside]
    order = np.argsort(index[inside], kind="stable")
    return Pools(
        np.concatenate([[0], np.cumsum(inside.sum(1))]),
        index[inside],
        (scale / top[:, None])[inside],
        weight * top,
        np.searchsorted(index[inside][order], np.arange(units + 1)),
        pool[order],
    )


def solve(structure: ProblemStructure, problem: Problem, start: Tensor, config: Solver.Config) -> Solved:
    """Codes with their duality gaps; an iteration is a Newton step."""
    form = next(penalty for penalty in structure.penalties if isinstance(penalty, Groups))
    quadratic = Quadratic.of(structure, problem)
    units = len(quadratic.gram)
    pools = pools_of(form, units)
    cover = np.bincount(pools.unit, pools.entry**2, units)
    diagonal = np.diag(quadratic.gram)
    rho = 2.0 * max(float(diagonal.mean()), np.finfo(np.float64).tiny) / float(cover.mean())
    padded = (units + PAD - 1) // PAD * PAD
    inverse = np.zeros((padded, padded))
    inverse[:units, :units] = np.linalg.inv(quadratic.gram + np.diag(rho * cover))
    single = start.dtype == torch.float32

    def run(first: int, end: int) -> None:
        rows = slice(first, end)
        codes(
            *(pools, quadratic.gram, inverse, rho, quadratic.drive[rows], quadratic.half[rows], code[rows]),
            *(iterations[rows], gap[rows], form.non_negative, single, config.tolerance, config.max_iterations),
        )

    code = quadratic.start(start)
    iterations, gap = np.zeros(len(code), np.int64), np.zeros(len(code))
    in_blocks(run, len(code), BLOCK)
    return quadratic.solved(quadratic.back(code, start), iterations, gap)


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def _admm(
    pools: Pools, inverse: Floats, rho: float, drive: Floats, non_negative: bool, z: Floats, g: Floats, space: Space
) -> None:
    """Rounds from the copies v and the multipliers g of the space; z, v and g on return."""
    v, r = space.v, space.right
    for _ in range(ROUNDS):
        r[: len(z)] = drive
        for k in range(len(v)):
            r[pools.unit[k]] += pools.entry[k] * (rho * v[k] - g[k])
        product(inverse, r, space.image, len(z))
        z[:] = space.image[: len(z)]
        for pool in range(len(pools.radius)):
            square = 0.0
            for k in range(pools.first[pool], pools.first[pool + 1]):
                at = RELAXED * pools.entry[k] * z[pools.unit[k]] + (1.0 - RELAXED) * v[k]
                g[k] += rho * at
                part = max(g[k], 0.0) if non_negative else g[k]
                square += part * part
            norm = square**0.5
            keep = max(1.0 - pools.radius[pool] / norm, 0.0) / rho if norm > 0 else 0.0
            for k in range(pools.first[pool], pools.first[pool + 1]):
                v[k] = keep * (max(g[k], 0.0) if non_negative else g[k])
                g[k] -= rho * v[k]


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def _hold(pools: Pools, non_negative: bool, g: Floats, space: Space) -> int:
    """Which pools are held at 0, and the units left in ``chosen``; how many."""
    for pool in range(len(pools.radius)):
        square, acts = 0.0, False
        for k in range(pools.first[pool], pools.first[pool + 1]):
            g[k] = max(g[k], 0.0) if non_negative else g[k]
            square += g[k] * g[k]
            acts |= space.v[k] != 0
        space.held[pool] = not acts and square**0.5 <= SURE * pools.radius[pool]
    return _choose(pools, g, space)


@numba.njit(cache=True, nogil=True)
def _choose(pools: Pools, g: Floats, space: Space) -> int:
    """The units in no pool held, in ``chosen``; how many. Pools not held have no multiplier on the others."""
    size = 0
    for i in range(len(space.z)):
        free = True
        for k in range(pools.home[i], pools.home[i + 1]):
            free &= space.held[pools.above[k]] == 0
        space.place[i] = -1
        if free:
            space.place[i] = size
            space.chosen[size] = i
            size += 1
    space.cover[:] = 0.0
    for pool in range(len(pools.radius)):
        for k in range(pools.first[pool], pools.first[pool + 1]):
            inside = space.place[pools.unit[k]] >= 0
            if space.held[pool] == 0 and not inside:
                g[k] = 0.0
            else:
                space.cover[pools.unit[k]] += pools.entry[k] ** 2
    return size


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def _rest(pools: Pools, non_negative: bool, c: Floats, g: Floats, rest: Floats) -> None:
    """What the multipliers leave of c, or of max(c, 0) with z ≥ 0."""
    for i in range(len(rest)):
        rest[i] = max(c[i], 0.0) if non_negative else c[i]
    for k in range(len(g)):
        rest[pools.unit[k]] -= pools.entry[k] * g[k]


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def _tops(pools: Pools, g: Floats, space: Space) -> tuple[float, float]:
    """max ‖g_P‖/t_P with the rest shared out, over the pools that are not held, and over those that are."""
    top = np.ones(2)
    for pool in range(len(pools.radius)):
        square, held = 0.0, space.held[pool]
        for k in range(pools.first[pool], pools.first[pool + 1]):
            i = pools.unit[k]
            if held == 1 or space.place[i] >= 0:
                part = g[k] + pools.entry[k] * space.rest[i] / space.cover[i]
                square += part * part
        top[held] = max(top[held], square**0.5 / pools.radius[pool])
    return top[0], top[1]


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def _gaps(
    pools: Pools, z: Floats, drive: Floats, half: float, non_negative: bool, g: Floats, space: Space
) -> tuple[float, float]:
    """The duality gap as in ``Problem.certificate``, and as if the pools held were all within their balls.

    c of the space is z's.
    """
    _rest(pools, non_negative, space.c, g, space.rest)
    top, top_held = _tops(pools, g, space)
    inner, driven, penalty = 0.0, 0.0, 0.0
    for i in range(len(z)):
        inner += z[i] * space.c[i]
        driven += z[i] * drive[i]
    for pool in range(len(pools.radius)):
        square = 0.0
        for k in range(pools.first[pool], pools.first[pool + 1]):
            square += (pools.entry[k] * z[pools.unit[k]]) ** 2
        penalty += pools.radius[pool] * square**0.5
    fit = half - 0.5 * (driven + inner)
    scale, own = 1.0 / max(top, top_held), 1.0 / top
    whole = max((1 - scale) ** 2 * fit + penalty - scale * inner, 0.0)
    return whole, max((1 - own) ** 2 * fit + penalty - own * inner, 0.0)


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def _ascend(pools: Pools, non_negative: bool, g: Floats, space: Space) -> None:
    """A sweep of block ascent over the multipliers of the pools held; the rest is kept up to date."""
    rest = space.rest
    for pool in range(len(pools.radius)):
        if space.held[pool] == 0:
            continue
        first, end = pools.first[pool], pools.first[pool + 1]
        square = 0.0
        for k in range(first, end):
            part = g[k] + pools.entry[k] * rest[pools.unit[k]]
            part = max(part, 0.0) if non_negative else part
            square += part * part
        norm = square**0.5
        shrink = pools.radius[pool] / norm if norm > pools.radius[pool] else 1.0
        for k in range(first, end):
            i = pools.unit[k]
            part = g[k] + pools.entry[k] * rest[i]
            part = shrink * (max(part, 0.0) if non_negative else part)
            rest[i] -= pools.entry[k] * (part - g[k])
            g[k] = part


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def _candidate(pools: Pools, z: Floats, epsilon: float, single: bool, found: Floats, space: Space) -> None:
    """z with exact zeros where a pool is no larger than its smoothing, rounded as it will be given back."""
    found[:] = z
    for pool in range(len(pools.radius)):
        if space.held[pool] == 0:
            square = 0.0
            for k in range(pools.first[pool], pools.first[pool + 1]):
                square += (pools.entry[k] * z[pools.unit[k]]) ** 2
            if square <= (ZERO * epsilon) ** 2:
                for k in range(pools.first[pool], pools.first[pool + 1]):
                    found[pools.unit[k]] = 0.0
    if single:
        for i in range(len(found)):
            found[i] = np.float64(np.float32(found[i]))


@numba.njit(cache=True, nogil=True)
def _settle(
    pools: Pools,
    gram: Floats,
    drive: Floats,
    half: float,
    epsilon: float,
    floor: float,
    decrease: float,
    non_negative: bool,
    single: bool,
    target: float,
    limit: int,
    size: int,
    space: Space,
) -> tuple[int, float]:
    """Newton steps on the units chosen, then block ascent, until ``best`` has a gap of at most target: (steps, gap)."""
    z, g = space.z, space.g
    steps = 0
    while True:
        if size > 0:
            newton(pools, gram, drive, z, g, epsilon, non_negative, size, space)
            steps += 1
        _candidate(pools, z, epsilon, single, space.best, space)
        correlate(gram, drive, space.best, len(space.best), space.c)
        gap, own = _gaps(pools, space.best, drive, half, non_negative, g, space)
        if gap <= target or own <= 0.3 * target or epsilon <= floor or size == 0 or steps >= limit:
            break
        epsilon = max(decrease * epsilon, floor)
    sweep = 0
    while gap > target and sweep < SWEEPS:
        for _ in range(LOOK):
            _ascend(pools, non_negative, g, space)
        sweep += LOOK
        gap, own = _gaps(pools, space.best, drive, half, non_negative, g, space)
    return steps, gap


@numba.njit(cache=True, nogil=True)
def _solve(
    pools: Pools,
    gram: Floats,
    inverse: Floats,
    rho: float,
    drive: Floats,
    half: float,
    found: Floats,
    non_negative: bool,
    single: bool,
    target: float,
    limit: int,
    scale: float,
    space: Space,
) -> tuple[int, float]:
    """One sample's code, in place, and its (Newton steps, gap). scale: about the largest entry of a code."""
    z, g, v, best = space.z, space.g, space.v, space.best
    units = len(z)
    g[:] = 0.0
    best[:] = found
    least, steps = np.inf, 0
    for turn in range(TURNS + 1):
        for k in range(len(v)):
            v[k] = pools.entry[k] * best[pools.unit[k]]
        if turn == TURNS:
            space.held[:] = 0
            z[:] = best
            size = _choose(pools, g, space)
        else:
            _admm(pools, inverse, rho, drive, non_negative, z, g, space)
            size = _hold(pools, non_negative, g, space)
        for i in range(units):
            if space.place[i] < 0 or (non_negative and z[i] < 0):
                z[i] = 0.0
        decrease = DECREASE[int(turn == TURNS)]
        taken, gap = _settle(
            pools,
            gram,
            drive,
            half,
            1e-2 * scale,
            1e-12 * scale,
            decrease,
            non_negative,
            single,
            target,
            limit - steps,
            size,
            space,
        )
        steps += taken
        if gap < least:
            least = gap
            found[:] = best
        if least <= target or steps >= limit:
            break
    return steps, least


@numba.njit(cache=True, nogil=True)
def codes(
    pools: Pools,
    gram: Floats,
    inverse: Floats,
    rho: float,
    drives: Floats,
    halves: Floats,
    found: Floats,
    iterations: Integers,
    gaps: Floats,
    non_negative: bool,
    single: bool,
    tolerance: float,
    limit: int,
) -> None:
    """Solve some samples, in place. inverse: that of gram + ρ·Σ_P b_P²."""
    units, members, count = len(gram), len(pools.unit), len(pools.radius)
    padded = len(inverse) + 4
    space = Space(
        *(np.empty(units), np.empty(units), np.empty(units), np.empty(units), np.empty(units), np.empty(units)),
        *(np.empty(units), np.zeros(padded), np.zeros(padded), np.empty(members), np.empty(members), np.empty(units)),
        *(np.empty(count), np.empty((units, units)), np.empty(units, np.int64), np.empty(units, np.int64)),
        np.empty(count, np.int64),
    )
    diagonal = 0.0
    for i in range(units):
        diagonal = max(diagonal, gram[i, i])
    for row in range(len(found)):
        drive, half = drives[row], halves[row]
        largest = 0.0
        for i in range(units):
            largest = max(largest, abs(drive[i]))
        if largest == 0.0:
            found[row] = 0.0
            continue
        iterations[row], gaps[row] = _solve(
            *(pools, gram, inverse, rho, drive, half, found[row], non_negative, single, tolerance * half, limit),
            *(largest / diagonal, space),
        )
