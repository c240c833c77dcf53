"""Codes under lateral inhibition: exact moves of one unit, the largest first, then Newton steps on the support.

In u = √(w‖d‖² + ρ)·z the energy ½‖√w(x − Dz)‖² + ½ρ‖z‖² + Σ λ|u| + ½|u|ᵀS|u| has unit curvature along each unit, and
its minimum over one is a soft threshold at λ + S|u|. Greedy moves from zeros find low minima of this energy, which is
not convex (Li & Osher 2009 for the order). While no unit comes or goes it is quadratic: there a Newton step ends what
moves only approach.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from groundstate.components import Solver
from groundstate.inference import Solved
from groundstate.problem import Problem
from groundstate.structure import Inhibition, ProblemStructure
from groundstate_plugins.backends.native.dense import FAST, FINITE, LANES, factorise, largest, substitute
from groundstate_plugins.backends.native.quadratic import BLOCK, Quadratic
from groundstate_plugins.backends.native.threads import in_blocks

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def takes(structure: ProblemStructure) -> bool:
    """One inhibition."""
    return sum(isinstance(penalty, Inhibition) for penalty in structure.penalties) == 1


def solve(structure: ProblemStructure, problem: Problem, start: Tensor, config: Solver.Config) -> Solved:
    """Codes whose fixed-point residual, of any step, is at most the tolerance; the caller certifies them."""
    form = next(penalty for penalty in structure.penalties if isinstance(penalty, Inhibition))
    quadratic = Quadratic.of(structure, problem)
    curvature = np.diag(quadratic.gram)
    scale = np.sqrt(np.where(curvature > 0, curvature, 1.0))
    coupling = quadratic.gram / scale / scale[:, None]
    np.fill_diagonal(coupling, 0.0)
    inhibition = 2 * float(form.weight) * form.matrix.detach().double().numpy() / scale / scale[:, None]
    sparsity = float(form.weight) * form.sparsity / scale
    drive = quadratic.drive / scale
    code, iterations = quadratic.start(start) * scale, np.zeros(len(drive), np.int64)

    def work(first: int, end: int) -> None:
        rows = slice(first, end)
        descend(
            *(coupling, inhibition, sparsity, scale, drive[rows], code[rows], iterations[rows]),
            *(form.non_negative, config.tolerance, config.max_iterations),
        )

    in_blocks(work, len(code), BLOCK)
    return Solved(quadratic.back(code / scale, start), torch.from_numpy(iterations))


@numba.njit(cache=True, nogil=True, fastmath=FINITE)
def _largest(
    u: Floats,
    pull: Floats,
    threshold: Floats,
    coupling: Floats,
    inhibition: Floats,
    move: float,
    growth: float,
    signed: float,
    size: Floats,
    lane: Floats,
) -> int:
    """Follow a unit's ``move``, by which its size grew so much, in pull and threshold; the unit of the next one.

    coupling, inhibition: (units,), that unit's rows. signed: 1, or 0 for u ≥ 0. size, lane: scratch.
    """
    units = len(u)
    for i in range(units):
        p = pull[i] - move * coupling[i]
        t = threshold[i] + growth * inhibition[i]
        pull[i], threshold[i] = p, t
        size[i] = abs(max(p - t, 0.0) - signed * max(-p - t, 0.0) - u[i])
    return largest(size, units, lane)


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def _refresh(
    u: Floats, drive: Floats, sparsity: Floats, coupling: Floats, inhibition: Floats, pull: Floats, threshold: Floats
) -> None:
    """pull and threshold of u from nothing, so that rounding does not build up."""
    units = len(u)
    for i in range(units):
        pull[i], threshold[i] = drive[i], sparsity[i]
    for j in range(units):
        if u[j] != 0.0:
            value, size = u[j], abs(u[j])
            near, against = coupling[j], inhibition[j]
            for i in range(units):
                pull[i] -= value * near[i]
                threshold[i] += size * against[i]


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def _residual(u: Floats, pull: Floats, threshold: Floats, scale: Floats, non_negative: bool) -> float:
    """The largest entry of the shortest subgradient in z: at least the fixed-point residual of any step."""
    largest = 0.0
    for i in range(len(u)):
        if u[i] > 0.0:
            slope = abs(u[i] - pull[i] + threshold[i])
        elif u[i] < 0.0:
            slope = abs(u[i] - pull[i] - threshold[i])
        elif non_negative:
            slope = max(pull[i] - threshold[i], 0.0)
        else:
            slope = max(abs(pull[i]) - threshold[i], 0.0)
        largest = max(largest, slope * scale[i])
    return largest


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def _newton(
    u: Floats,
    pull: Floats,
    threshold: Floats,
    coupling: Floats,
    inhibition: Floats,
    hessian: Floats,
    active: Integers,
    move: Floats,
) -> bool:
    """To the minimum over the active units with their signs, or to where one of them is 0; False if there is none."""
    count = 0
    for i in range(len(u)):
        if u[i] != 0.0:
            active[count] = i
            sign = 1.0 if u[i] > 0.0 else -1.0
            move[count] = pull[i] - u[i] - sign * threshold[i]
            count += 1
    for a in range(count):
        i = active[a]
        for b in range(a):
            j = active[b]
            sign = 1.0 if u[i] * u[j] > 0.0 else -1.0
            hessian[a, b] = coupling[i, j] + sign * inhibition[i, j]
        hessian[a, a] = 1.0
    if count == 0 or not factorise(hessian, count):
        return False
    substitute(hessian, move, count)
    length = 1.0
    for a in range(count):
        i = active[a]
        if u[i] * (u[i] + move[a]) <= 0.0:
            length = min(length, -u[i] / move[a])
    for a in range(count):
        i = active[a]
        after = u[i] + length * move[a]
        u[i] = 0.0 if u[i] * after <= 1e-14 * u[i] * u[i] else after
    return True


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def descend(
    coupling: Floats,
    inhibition: Floats,
    sparsity: Floats,
    scale: Floats,
    drive: Floats,
    code: Floats,
    iterations: Integers,
    non_negative: bool,
    tolerance: float,
    limit: int,
) -> None:
    """Scaled codes of some samples, in place, each to a residual of tolerance times that of the code 0.

    coupling, inhibition: (units, units), without diagonal. sparsity, scale: (units,). drive: (samples, units), pull
    at the code 0. An iteration is a quarter as many moves as there are units.
    """
    units = len(scale)
    pull, threshold, move = np.empty(units), np.empty(units), np.empty(units)
    active, hessian = np.empty(units, np.int64), np.empty((units, units))
    nothing = np.zeros(units)
    size, lane = np.zeros(-(-units // LANES) * LANES), np.empty(LANES)
    signed = 0.0 if non_negative else 1.0
    for row in range(len(code)):
        u = code[row]
        target = tolerance * _residual(nothing, drive[row], sparsity, scale, non_negative)
        _refresh(u, drive[row], sparsity, coupling, inhibition, pull, threshold)
        while iterations[row] < limit and _residual(u, pull, threshold, scale, non_negative) > target:
            calm = True
            unit = _largest(u, pull, threshold, nothing, nothing, 0.0, 0.0, signed, size, lane)
            for _ in range(max(1, units // 4)):
                before = u[unit]
                after = max(pull[unit] - threshold[unit], 0.0) - signed * max(-pull[unit] - threshold[unit], 0.0)
                if after == before:
                    break
                u[unit] = after
                calm &= before * after > 0.0
                near, against, growth = coupling[unit], inhibition[unit], abs(after) - abs(before)
                unit = _largest(u, pull, threshold, near, against, after - before, growth, signed, size, lane)
            if calm:
                _newton(u, pull, threshold, coupling, inhibition, hessian, active, move)
            _refresh(u, drive[row], sparsity, coupling, inhibition, pull, threshold)
            iterations[row] += 1
