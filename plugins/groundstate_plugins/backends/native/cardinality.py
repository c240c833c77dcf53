"""Codes of a few atoms: orthogonal matching pursuit on the Gram matrix.

An atom comes in, and the code becomes the least-squares one on all atoms chosen. Which one: that of the largest
correlation (Pati, Rezaiifar & Krishnaprasad 1993), or the one that lowers the energy most (Rebollo-Neira & Lowe 2002).
The Cholesky factor grows a row at a time (Rubinstein, Zibulevsky & Elad 2008).
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from torch import Tensor

from groundstate.components import Solver
from groundstate.inference import Solved
from groundstate.problem import Certificate, Problem
from groundstate.structure import Cardinality, ProblemStructure
from groundstate_plugins.backends.native.dense import FINITE, LANES, largest
from groundstate_plugins.backends.native.quadratic import Floats, Integers, Quadratic
from groundstate_plugins.backends.native.threads import in_blocks

BLOCK = 256
"""Samples that one thread takes at a time: ten microseconds each, which a call may not double."""
DEPENDENT = 1e-10
"""An atom with less than this share of its squared norm outside those already chosen does not come in."""
TINY = 1e-200
"""A squared norm that is none."""


def takes(structure: ProblemStructure) -> bool:
    """A limit on the number of entries, beside a ridge or alone."""
    return any(isinstance(penalty, Cardinality) for penalty in structure.penalties)


def solve(structure: ProblemStructure, problem: Problem, start: Tensor, config: Solver.Config) -> Solved:
    """The codes of solver ``matching-pursuit``, with the fixed-point residuals where they are given in float64."""
    count = min(penalty.count for penalty in structure.penalties if isinstance(penalty, Cardinality))
    quadratic = Quadratic.of(structure, problem)
    by_decrease = getattr(config, "choose", "decrease") == "decrease"
    code, iterations = np.zeros_like(quadratic.drive), np.ones(len(quadratic.drive), np.int64)
    energy, residual = np.zeros(len(code)), np.zeros(len(code))
    curvature = problem.lipschitz().value

    def work(first: int, end: int) -> None:
        rows = slice(first, end)
        pursue(
            *(quadratic.gram, quadratic.drive[rows], quadratic.half[rows], code[rows], energy[rows], residual[rows]),
            *(count, by_decrease, curvature),
        )

    in_blocks(work, len(code), BLOCK)
    found, steps = quadratic.back(code, start), torch.from_numpy(iterations)
    if found.dtype != torch.float64:  # rounding moves a code off its fixed point
        return Solved(found, steps)
    value = torch.where(quadratic.broken, torch.nan, torch.from_numpy(residual))
    largest_drive = torch.from_numpy(np.abs(quadratic.drive).max(1))
    relative = value / largest_drive.clamp_min(torch.finfo(value.dtype).eps)
    energies = torch.where(quadratic.broken, torch.nan, torch.from_numpy(energy))
    return Solved(found, steps, Certificate("residual", value, relative), energies)


@numba.njit(cache=True, nogil=True, fastmath=FINITE)
def _fixed_point(z: Floats, c: Floats, chosen: Integers, taken: int, most: int, curvature: float) -> float:
    """‖z − P(z + c/L)‖∞·L, where c is 0 on the ``taken`` units, as many of ``most`` as came in.

    The projection P lets a unit outside in, at c/L, where that is more than the least of those chosen.
    """
    for k in range(taken):
        c[chosen[k]] = 0.0
    least = 1e300 if taken == most else 0.0
    for k in range(taken if taken == most else 0):
        least = min(least, abs(z[chosen[k]]))
    largest = 0.0
    for i in range(len(c)):
        largest = max(largest, abs(c[i]))
    if largest <= least * curvature:
        return 0.0
    size = np.sort(np.abs(c))[::-1]
    inside = np.sort(np.abs(z[chosen[:taken]]))
    for place in range(most):
        leaving = 0.0 if place < most - taken else inside[place - (most - taken)] * curvature
        if size[place] <= leaving:
            break
        largest = max(largest, leaving)
    return largest


@numba.njit(cache=True, nogil=True, fastmath=FINITE)
def pursue(
    gram: Floats,
    drive: Floats,
    half: Floats,
    code: Floats,
    energy: Floats,
    residual: Floats,
    count: int,
    by_decrease: bool,
    curvature: float,
) -> None:
    """Codes of some samples, of at most count atoms, with their energies and fixed-point residuals; in place.

    gram: (units, units), DᵀD. drive: (samples, units), Dᵀx. half: (samples,), ½‖x‖². curvature: L, of the step 1/L.
    """
    units = len(gram)
    most = min(count, units)
    # each atom's squared norm outside those chosen, which is 1/reach where the next one is chosen by it
    outside, reach, least, free = np.empty(units), np.empty(units), np.empty(units), np.empty(units)
    for i in range(units):
        least[i] = max(DEPENDENT * gram[i, i], TINY)
    # each chosen atom orthogonal to those before it, as its products with all atoms
    basis = np.empty((most, units))
    weight, chosen = np.empty(most), np.empty(most, np.int64)
    c = np.empty(units)
    size, lane = np.zeros(-(-units // LANES) * LANES), np.empty(LANES)
    for row in range(len(code)):
        left, taken = half[row], 0
        for i in range(units):
            c[i], outside[i] = drive[row, i], gram[i, i]
            free[i] = 1.0 if gram[i, i] > TINY else 0.0
            reach[i] = free[i] / max(gram[i, i], TINY)
        while taken < most:
            for i in range(units):
                size[i] = c[i] * c[i] * reach[i]
            unit = largest(size, units, lane)
            if size[unit] <= 1e-24 * half[row]:
                break
            free[unit], reach[unit] = 0.0, 0.0
            if outside[unit] <= least[unit]:
                continue
            new = basis[taken]
            for i in range(units):
                new[i] = gram[unit, i]
            pairs = taken - taken % 2
            for k in range(0, pairs, 2):  # two at a time: half the passes over ``new``
                a, b, old, other = basis[k, unit], basis[k + 1, unit], basis[k], basis[k + 1]
                for i in range(units):
                    new[i] -= a * old[i] + b * other[i]
            if pairs < taken:
                a, old = basis[pairs, unit], basis[pairs]
                for i in range(units):
                    new[i] -= a * old[i]
            inverse = 1.0 / outside[unit] ** 0.5
            move = c[unit] * inverse
            for i in range(units):
                new[i] *= inverse
            for i in range(units):
                c[i] -= move * new[i]
            for i in range(units):
                outside[i] -= new[i] * new[i]
            if by_decrease:
                for i in range(units):
                    reach[i] = free[i] / max(outside[i], least[i])
            weight[taken], chosen[taken] = move, unit
            left -= 0.5 * move * move
            taken += 1
        # back substitution: the factor's entry (later, earlier) is basis[earlier, chosen[later]]
        code[row, :] = 0.0
        for k in range(taken - 1, -1, -1):
            value = weight[k]
            for later in range(k + 1, taken):
                value -= basis[k, chosen[later]] * code[row, chosen[later]]
            code[row, chosen[k]] = value / basis[k, chosen[k]]
        energy[row] = max(left, 0.0)
        residual[row] = _fixed_point(code[row], c, chosen, taken, most, curvature)
