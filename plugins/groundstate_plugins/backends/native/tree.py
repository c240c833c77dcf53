"""Codes under tree-structured groups: proximal steps find which groups act, Newton steps end on them.

Samples are solved one by one, on the trees that may act. Accelerated proximal steps tell the support; on it the
penalty is smooth, and a few Newton steps with a line search reach its minimum. The gap of the whole problem says
whether trees left out have to come in.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from groundstate.components import Solver
from groundstate.inference import Solved
from groundstate.problem import Problem
from groundstate.structure import ProblemStructure, Tree
from groundstate_plugins.backends.native.dense import FAST, correlate, factorise, substitute
from groundstate_plugins.backends.native.quadratic import Quadratic

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

SETTLED = 5
"""Proximal steps with one support before Newton steps are tried on it."""
NEWTON = 15
"""Newton steps on one support, at the most."""


def takes(structure: ProblemStructure) -> bool:
    """One set of trees, each group with a weight."""
    trees = [penalty for penalty in structure.penalties if isinstance(penalty, Tree)]
    return len(trees) == 1 and bool((np.asarray(trees[0].weight) > 0).all())


def solve(structure: ProblemStructure, problem: Problem, start: Tensor, config: Solver.Config) -> Solved:
    """Codes with their duality gaps; an iteration is a proximal or a Newton step."""
    form = next(penalty for penalty in structure.penalties if isinstance(penalty, Tree))
    given = form.parent.numpy()
    order, first = _preorder(given)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    parent = np.where(given[order] < 0, -1, place[given[order]])
    weight = np.broadcast_to(np.asarray(form.weight, np.float64), order.shape)[order]
    quadratic = Quadratic.of(structure, problem, order)
    curvature = problem.lipschitz().value

    def run(rows: slice, code: Floats, iterations: Integers, gap: Floats, limit: int) -> None:
        drive, half = quadratic.drive[rows], quadratic.half[rows]
        codes(
            *(quadratic.gram, drive, half, code, iterations, gap, parent, weight, first),
            *(form.non_negative, curvature, config.tolerance, limit),
        )

    return quadratic.certified(run, start, config)


def _preorder(parent: Integers) -> tuple[Integers, Integers]:
    """Units tree after tree, each with its descendants right behind it; and where each tree starts, with the end."""
    children: list[list[int]] = [[] for _ in parent]
    roots = []
    for unit, above in enumerate(parent.tolist()):
        (roots if above < 0 else children[above]).append(unit)
    order: list[int] = []
    first = [0]
    for root in roots:
        waiting = [root]
        while waiting:
            unit = waiting.pop()
            order.append(unit)
            waiting += reversed(children[unit])
        first.append(len(order))
    return np.array(order), np.array(first)


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def _shrink(v: Floats, parent: Integers, weight: Floats, level: float, first: int, end: int, square: Floats) -> float:
    """By what each node's group shrinks at ``level``, into square; what the largest root has left, ≤ 0 for none.

    Nodes first … end − 1 are whole trees, parents before children.
    """
    left = -np.inf
    for j in range(first, end):
        square[j] = v[j] * v[j]
    for j in range(end - 1, first - 1, -1):
        norm, threshold, above = square[j] ** 0.5, level * weight[j], parent[j]
        shrink = 0.0
        if norm > threshold:
            shrink = 1.0 - threshold / norm
            if above >= 0:
                square[above] += shrink * shrink * square[j]
        if above < 0:
            left = max(left, norm - threshold)
        square[j] = shrink
    return left


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def _prox(v: Floats, parent: Integers, weight: Floats, level: float, end: int, square: Floats) -> None:
    """v becomes its prox, in one pass up and one down (Jenatton, Mairal, Obozinski & Bach 2011)."""
    _shrink(v, parent, weight, level, 0, end, square)
    for j in range(end):
        if parent[j] >= 0:
            square[j] *= square[parent[j]]
        v[j] *= square[j]


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def _penalty(z: Floats, parent: Integers, weight: Floats, end: int, norm: Floats) -> float:
    """Σ_g weight_g‖z_g‖; leaves the norms in ``norm``."""
    total = 0.0
    for j in range(end):
        norm[j] = z[j] * z[j]
    for j in range(end - 1, -1, -1):
        if norm[j] > 0.0:
            if parent[j] >= 0:
                norm[parent[j]] += norm[j]
            norm[j] = norm[j] ** 0.5
            total += weight[j] * norm[j]
    return total


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def _dual_norm(
    c: Floats, parent: Integers, weight: Floats, first: int, end: int, least: float, square: Floats
) -> float:
    """max(least, the level at which the prox of this tree's c vanishes), at most 1 + 1e-13 times too large."""
    low, at_low = least, _shrink(c, parent, weight, least, first, end, square)
    if at_low <= 0.0:
        return least
    total = 0.0
    for j in range(first, end):
        total += c[j] * c[j]
    high = max(total**0.5 / weight[first], low) * (1 + 1e-12)
    at_high, kept = _shrink(c, parent, weight, high, first, end, square), 0
    for step in range(100):
        if high - low <= 1e-13 * high:
            break
        # false position, the end that stays counting half (Dowell & Jarratt 1971)
        middle = (low * at_high - high * at_low) / (at_high - at_low) if step % 4 < 3 else 0.5 * (low + high)
        middle = min(max(middle, low + 1e-14 * high), high - 1e-14 * high)
        at = _shrink(c, parent, weight, middle, first, end, square)
        if at > 0.0:
            at_high *= 0.5 if kept == 1 else 1.0
            low, at_low, kept = middle, at, 1
        else:
            at_low *= 0.5 if kept == 2 else 1.0
            high, at_high, kept = middle, at, 2
    return high


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def _gap(
    z: Floats,
    c: Floats,
    drive: Floats,
    half: float,
    parent: Integers,
    weight: Floats,
    start: Integers,
    trees: int,
    non_negative: bool,
    scratch: Floats,
    clamped: Floats,
) -> float:
    """The duality gap (1 − s)²·fit + Ω(z) − s⟨z, c⟩ of ``Problem.certificate``, of these trees alone."""
    end = start[trees]
    inner, fit = 0.0, half
    for j in range(end):
        inner += z[j] * c[j]
        fit -= 0.5 * z[j] * (drive[j] + c[j])
        clamped[j] = max(c[j], 0.0) if non_negative else c[j]
    dual = 1.0
    for tree in range(trees):
        dual = _dual_norm(clamped, parent, weight, start[tree], start[tree + 1], dual, scratch)
    scale = 1.0 / dual
    gap = (1.0 - scale) ** 2 * max(fit, 0.0) + _penalty(z, parent, weight, end, scratch) - scale * inner
    return max(gap, 0.0)


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def _newton(
    gram: Floats,
    z: Floats,
    c: Floats,
    parent: Integers,
    weight: Floats,
    leaf: NDArray[np.bool_],
    size: int,
    non_negative: bool,
    hessian: Floats,
    active: Integers,
    scratch: Floats,
    trial: Floats,
) -> int:
    """Newton steps on the units that are not 0, each no further than to where one of them gets there; how many.

    c follows z. The penalty's second derivative is Σ_g w_g(1/‖z_g‖ − z zᵀ/‖z_g‖³) over the groups of a unit: sums from
    the root down.
    """
    norm, linear, cubic = scratch[0], scratch[1], scratch[2]
    slope, move, along = scratch[3], scratch[4], scratch[5]
    for step in range(NEWTON):
        here = _penalty(z, parent, weight, size, norm)
        count = 0
        largest, scale = 0.0, 0.0
        for j in range(size):
            if norm[j] == 0.0:
                continue
            linear[j] = weight[j] / norm[j]
            cubic[j] = linear[j] / (norm[j] * norm[j])
            if parent[j] >= 0:
                linear[j] += linear[parent[j]]
                cubic[j] += cubic[parent[j]]
            if z[j] != 0.0:
                active[count] = j
                slope[count] = linear[j] * z[j] - c[j]
                largest = max(largest, abs(slope[count]))
                scale = max(scale, abs(c[j]))
                count += 1
        if count == 0 or largest <= 1e-13 * scale:
            return step
        for a in range(count):
            i = active[a]
            row = gram[i]
            for b in range(a + 1):
                j = active[b]
                hessian[a, b] = row[j]
            hessian[a, a] = (hessian[a, a] + linear[i]) * (1 + 1e-11)  # atoms may be equal
            # the groups that i and j share are those of their nearest common ancestor: walk up from i
            low = i
            b = a
            while b >= 0:
                j = active[b]
                above, under = low, j
                while above != under and above >= 0:
                    if under > above:
                        under = parent[under]
                    else:
                        above = parent[above]
                if above < 0:
                    break
                low = above
                hessian[a, b] -= cubic[above] * z[i] * z[j]
                b -= 1
            move[a] = -slope[a]
        if not factorise(hessian, count):
            return step
        substitute(hessian, move, count)
        length, down = 1.0, 0.0
        for a in range(count):
            j = active[a]
            down += move[a] * slope[a]
            if (leaf[j] or non_negative) and z[j] * (z[j] + move[a]) <= 0.0:
                length = min(length, -z[j] / move[a])
        if not down < 0.0:
            return step
        for j in range(size):
            along[j] = 0.0
        for a in range(count):
            value, row = move[a], gram[active[a]]
            for j in range(size):
                along[j] += value * row[j]
        linear_part, bend = 0.0, 0.0
        for a in range(count):
            linear_part -= move[a] * c[active[a]]
            bend += move[a] * along[active[a]]
        accepted = False
        for _ in range(30):
            for j in range(size):
                trial[j] = z[j]
            for a in range(count):
                j = active[a]
                value = z[j] + length * move[a]
                stuck = (leaf[j] or non_negative) and z[j] * value <= 1e-14 * z[j] * z[j]
                trial[j] = 0.0 if stuck else value
            change = length * (linear_part + 0.5 * length * bend) + _penalty(trial, parent, weight, size, norm) - here
            if change <= 1e-4 * length * down + 1e-15 * (abs(here) + abs(linear_part)):
                accepted = True
                break
            length *= 0.5
        if not accepted:
            return step
        for j in range(size):
            z[j] = trial[j]
            c[j] -= length * along[j]
    return NEWTON


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def _settle(
    gram: Floats,
    small: Floats,
    members: Integers,
    have: NDArray[np.bool_],
    drive: Floats,
    half: float,
    z: Floats,
    c: Floats,
    parent: Integers,
    weight: Floats,
    start: Integers,
    trees: int,
    leaf: NDArray[np.bool_],
    non_negative: bool,
    curvature: float,
    target: float,
    limit: int,
    active: Integers,
    hessian: Floats,
    scratch: Floats,
) -> int:
    """Lower the energy on a few trees until their own gap is at most target; how many steps it took.

    small: the Gram matrix of the members, whose rows are copied when first needed.
    """
    size = start[trees]
    before, c_before, ahead = scratch[6], scratch[7], scratch[8]
    momentum, taken, calm = 1.0, 0, 0
    _rows(gram, small, members, have, z, size)
    correlate(small, drive, z, size, c)
    before[:size] = z[:size]
    c_before[:size] = c[:size]
    since = 0
    while taken < limit:
        following = 0.5 * (1.0 + (1.0 + 4.0 * momentum * momentum) ** 0.5)
        beyond = (momentum - 1.0) / following
        for j in range(size):
            y = z[j] + beyond * (z[j] - before[j])
            v = y + (c[j] + beyond * (c[j] - c_before[j])) / curvature
            scratch[9, j] = y
            ahead[j] = max(v, 0.0) if non_negative else v
        _prox(ahead, parent, weight, 1.0 / curvature, size, scratch[0])
        uphill, same = 0.0, True
        for j in range(size):
            uphill += (scratch[9, j] - ahead[j]) * (ahead[j] - z[j])
            same &= (ahead[j] != 0.0) == (z[j] != 0.0)
            before[j], c_before[j] = z[j], c[j]
            z[j] = ahead[j]
        momentum = 1.0 if uphill > 0.0 else following
        _rows(gram, small, members, have, z, size)
        correlate(small, drive, z, size, c)
        taken += 1
        since += 1
        calm = calm + 1 if same else 0
        if calm >= SETTLED or since >= 10 * SETTLED:
            calm, since = 0, 0
            taken += _newton(small, z, c, parent, weight, leaf, size, non_negative, hessian, active, scratch, ahead)
            correlate(small, drive, z, size, c)
            gap = _gap(z, c, drive, half, parent, weight, start, trees, non_negative, scratch[0], scratch[1])
            if gap <= target:
                break
            momentum = 1.0
            before[:size] = z[:size]
            c_before[:size] = c[:size]
    return taken


@numba.njit(cache=True, nogil=True)
def _rows(gram: Floats, small: Floats, members: Integers, have: NDArray[np.bool_], z: Floats, size: int) -> None:
    """Copy what rows of the Gram matrix z needs."""
    for i in range(size):
        if z[i] != 0.0 and not have[i]:
            have[i] = True
            row, into = gram[members[i]], small[i]
            for j in range(size):
                into[j] = row[members[j]]


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def codes(
    gram: Floats,
    drive: Floats,
    half: Floats,
    code: Floats,
    iterations: Integers,
    gap: Floats,
    parent: Integers,
    weight: Floats,
    start: Integers,
    non_negative: bool,
    curvature: float,
    tolerance: float,
    limit: int,
) -> None:
    """Codes of some samples, in place, each to a gap of tolerance·half; units in trees one after the other.

    gram: (units, units). drive: (samples, units), Dᵀx. parent, weight: (units,), parents first. start: (trees + 1,).
    """
    units, trees = len(parent), len(start) - 1
    leaf = np.ones(units, np.bool_)
    for j in range(units):
        if parent[j] >= 0:
            leaf[parent[j]] = False
    c = np.empty(units)
    scratch = np.empty((10, units))
    members, small_start = np.empty(units, np.int64), np.zeros(trees + 1, np.int64)
    place = np.empty(units, np.int64)
    small_parent, small_weight = np.empty(units, np.int64), np.empty(units)
    small_leaf, have = np.empty(units, np.bool_), np.empty(units, np.bool_)
    small_z, small_c, small_drive = np.empty(units), np.empty(units), np.empty(units)
    active = np.empty(units, np.int64)
    small, hessian = np.empty((units, units)), np.empty((units, units))
    chosen = np.zeros(trees, np.bool_)
    for row in range(len(code)):
        z, b = code[row], drive[row]
        chosen[:] = False
        share = 0.3
        while True:
            correlate(gram, b, z, units, c)
            gap[row] = _gap(z, c, b, half[row], parent, weight, start, trees, non_negative, scratch[0], scratch[1])
            if gap[row] <= tolerance * half[row] or iterations[row] >= limit:
                break
            added, size, count = False, 0, 0
            for tree in range(trees):
                first, end = start[tree], start[tree + 1]
                if not chosen[tree]:
                    acts = False
                    for j in range(first, end):
                        acts |= z[j] != 0.0
                        scratch[1, j] = max(c[j], 0.0) if non_negative else c[j]
                    if acts or _shrink(scratch[1], parent, weight, 1.0, first, end, scratch[0]) > 0.0:
                        chosen[tree] = True
                        added = True
                if chosen[tree]:
                    for j in range(first, end):
                        place[j] = size
                        members[size] = j
                        small_parent[size] = place[parent[j]] if parent[j] >= 0 else -1
                        small_weight[size], small_leaf[size] = weight[j], leaf[j]
                        small_z[size], small_drive[size] = z[j], b[j]
                        have[size] = False
                        size += 1
                    count += 1
                    small_start[count] = size
            if not added:
                share *= 0.1
                if share < 1e-4:
                    break
            iterations[row] += _settle(
                gram,
                small,
                members,
                have,
                small_drive,
                half[row],
                small_z,
                small_c,
                small_parent,
                small_weight,
                small_start,
                count,
                small_leaf,
                non_negative,
                curvature,
                share * tolerance * half[row],
                limit - iterations[row],
                active,
                hessian,
                scratch,
            )
            for j in range(size):
                z[members[j]] = small_z[j]
