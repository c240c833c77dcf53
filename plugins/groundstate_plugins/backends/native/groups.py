"""Codes under disjoint groups: sweeps over the groups find those that act, Newton steps end on them.

A sweep moves each group by its own proximal step, with the other groups' part of the residual up to date. On the
groups that act the penalty is smooth, so that Newton steps there are taken wherever they lower the gap.
"""

from __future__ import annotations

from itertools import pairwise

import numba
import numpy as np
import torch
from torch import Tensor

from groundstate.components import Solver
from groundstate.inference import Solved
from groundstate.problem import Problem
from groundstate.structure import Groups, ProblemStructure
from groundstate_plugins.backends.native.dense import FAST, correlate, factorise, substitute
from groundstate_plugins.backends.native.inverse import subtract
from groundstate_plugins.backends.native.quadratic import Floats, Integers, Quadratic

SWEEPS = 10
"""Sweeps between two looks at the gap."""
NEWTON = 5
"""Newton steps in a row, at the most."""


def takes(structure: ProblemStructure) -> bool:
    """One set of disjoint groups that covers every unit, each with a weight and its entries alike."""
    sets = [penalty for penalty in structure.penalties if isinstance(penalty, Groups)]
    if len(sets) != 1 or not sets[0].disjoint or sets[0].scale is not None:
        return False
    covered = int((sets[0].index >= 0).sum()) == structure.dictionary.matrix.shape[1]
    return covered and bool((torch.as_tensor(sets[0].weight) > 0).all())


def solve(structure: ProblemStructure, problem: Problem, start: Tensor, config: Solver.Config) -> Solved:
    """Codes with their duality gaps; an iteration is ten sweeps, or a Newton step."""
    form = next(penalty for penalty in structure.penalties if isinstance(penalty, Groups))
    index = form.index.cpu().numpy()
    sizes = (index >= 0).sum(1)
    order = np.concatenate([row[row >= 0] for row in index])  # each group's units side by side
    first = np.concatenate([[0], np.cumsum(sizes)])
    weight = np.ascontiguousarray(np.broadcast_to(np.asarray(form.weight, np.float64), sizes.shape))
    quadratic = Quadratic.of(structure, problem, order)
    blocks = [quadratic.gram[a:b, a:b] for a, b in pairwise(first)]
    curvature = np.array([np.linalg.eigvalsh(block)[-1] * (1 + 1e-12) for block in blocks])

    def run(rows: slice, code: Floats, iterations: Integers, gap: Floats, limit: int) -> None:
        drive, half = quadratic.drive[rows], quadratic.half[rows]
        codes(
            *(quadratic.gram, drive, half, code, iterations, gap, first, weight, curvature),
            *(form.non_negative, config.tolerance, limit),
        )

    return quadratic.certified(run, start, config)


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def _sweep(
    gram: Floats, z: Floats, c: Floats, first: Integers, weight: Floats, curvature: Floats, non_negative: bool
) -> None:
    """One proximal step of each group; c: the residual's correlations, kept up to date."""
    for group in range(len(weight)):
        own = curvature[group]
        if own <= 0:
            continue
        square, acts = 0.0, False
        for i in range(first[group], first[group + 1]):
            target = own * z[i] + c[i]
            acts |= z[i] != 0
            if not non_negative or target > 0:
                square += target * target
        norm = square**0.5
        if not acts and norm <= weight[group]:
            continue
        shrink = max(1.0 - weight[group] / norm, 0.0) / own if norm > 0 else 0.0
        moves = z[first[group] : first[group + 1]].copy()
        for i in range(first[group], first[group + 1]):
            target = own * z[i] + c[i]
            z[i] = shrink * (max(target, 0.0) if non_negative else target)
        for i in range(len(moves)):
            move = z[first[group] + i] - moves[i]
            if move != 0:
                subtract(c, gram[first[group] + i], move)


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def _gap(
    z: Floats, c: Floats, drive: Floats, half: float, first: Integers, weight: Floats, non_negative: bool
) -> float:
    """The duality gap, as in ``Problem.certificate``."""
    top, penalty, inner, driven = 1.0, 0.0, 0.0, 0.0
    for group in range(len(weight)):
        pull, square = 0.0, 0.0
        for i in range(first[group], first[group + 1]):
            if not non_negative or c[i] > 0:
                pull += c[i] * c[i]
            square += z[i] * z[i]
            inner += z[i] * c[i]
            driven += z[i] * drive[i]
            if non_negative and z[i] < 0:
                return np.inf
        top = max(top, pull**0.5 / weight[group])
        penalty += weight[group] * square**0.5
    scale = 1.0 / top
    fit = half - 0.5 * (driven + inner)
    return max((1 - scale) ** 2 * fit + penalty - scale * inner, 0.0)


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def _newton(gram: Floats, z: Floats, c: Floats, first: Integers, weight: Floats, units: Integers, step: Floats) -> int:
    """The Newton step on the units that act, into step by their order in ``units``; their number, 0 for none."""
    size = 0
    for i in range(len(z)):
        if z[i] != 0:
            units[size] = i
            size += 1
    hessian = np.empty((size, size))
    for i in range(size):
        for j in range(size):
            hessian[i, j] = gram[units[i], units[j]]
        step[i] = c[units[i]]
    at = 0
    for group in range(len(weight)):
        end, square = at, 0.0
        while end < size and units[end] < first[group + 1]:
            square += z[units[end]] ** 2
            end += 1
        norm = square**0.5
        for i in range(at, end):
            slope = weight[group] / norm
            step[i] -= slope * z[units[i]]
            hessian[i, i] += slope
            for j in range(at, end):
                hessian[i, j] -= slope * z[units[i]] * z[units[j]] / square
        at = end
    if size == 0 or not factorise(hessian, size):
        return 0
    substitute(hessian, step, size)
    return size


@numba.njit(cache=True, nogil=True)
def codes(
    gram: Floats,
    drives: Floats,
    halves: Floats,
    found: Floats,
    iterations: Integers,
    gaps: Floats,
    first: Integers,
    weight: Floats,
    curvature: Floats,
    non_negative: bool,
    tolerance: float,
    limit: int,
) -> None:
    """Solve some samples, in place."""
    size = gram.shape[0]
    c, tried, tried_c, step = np.empty(size), np.empty(size), np.empty(size), np.empty(size)
    units = np.empty(size, np.int64)
    for row in range(len(found)):
        z, drive, half = found[row], drives[row], halves[row]
        correlate(gram, drive, z, len(z), c)
        gap = _gap(z, c, drive, half, first, weight, non_negative)
        while gap > tolerance * half and iterations[row] < limit:
            iterations[row] += 1
            for _ in range(SWEEPS):
                _sweep(gram, z, c, first, weight, curvature, non_negative)
            correlate(gram, drive, z, len(z), c)
            gap = _gap(z, c, drive, half, first, weight, non_negative)
            for _ in range(NEWTON):
                if gap <= tolerance * half or iterations[row] >= limit:
                    break
                acting = _newton(gram, z, c, first, weight, units, step)
                tried[:] = z
                for i in range(acting):
                    tried[units[i]] += step[i]
                correlate(gram, drive, tried, len(tried), tried_c)
                lower = _gap(tried, tried_c, drive, half, first, weight, non_negative)
                if not lower < gap:
                    break
                z[:], c[:], gap = tried, tried_c, lower
                iterations[row] += 1
        gaps[row] = gap
