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
    code, iterations = np.zeros(quadratic.drive.shape), np.ones(len(quadratic.drive), np.int64)
    energy, residual, strongest = np.zeros((3, len(code)))
    curvature = problem.lipschitz().value

    def work(first: int, end: int) -> None:
        rows = slice(first, end)
        pursue(
            *(quadratic.gram, quadratic.drive[rows], quadratic.half[rows], code[rows], energy[rows], residual[rows]),
            *(strongest[rows], count, by_decrease, curvature),
        )

    in_blocks(work, len(code), BLOCK)
    found, steps = quadratic.back(code, start), torch.from_numpy(iterations)
    if found.dtype != torch.float64:  # rounding moves a code off its fixed point
        return Solved(found, steps)
    value = torch.where(quadratic.broken, torch.nan, torch.from_numpy(residual))
    relative = value / torch.from_numpy(strongest).clamp_min(torch.finfo(value.dtype).eps)
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
def _subtract(new: Floats, rows: Floats, unit: int) -> None:
    """new −= Σ rows[k, unit]·rows[k], over four rows."""
    one, two, three, four = rows[0], rows[1], rows[2], rows[3]
    a, b, c, d = one[unit], two[unit], three[unit], four[unit]
    for i in range(len(new)):
        new[i] -= a * one[i] + b * two[i] + c * three[i] + d * four[i]


@numba.njit(cache=True, nogil=True, fastmath=FINITE)
def _advance(new: Floats, c: Floats, size: Floats, free: Floats, inverse: float, move: float) -> None:
    """Scale a chosen atom's products to length one, and take it off all correlations; size: their squares."""
    for i in range(len(new)):
        value = new[i] * inverse
        left = c[i] - move * value
        new[i], c[i] = value, left
        size[i] = left * left * free[i]


@numba.njit(cache=True, nogil=True, fastmath=FINITE)
def _divide(size: Floats, new: Floats, outside: Floats, least: Floats) -> None:
    """Take a chosen atom off all squared norms, and divide the squared correlations by what is left of them."""
    for i in range(len(new)):
        left = outside[i] - new[i] * new[i]
        outside[i] = left
        size[i] /= max(left, least[i])


@numba.njit(cache=True, nogil=True, fastmath=FINITE)
def pursue(
    gram: Floats,
    drive: Floats,
    half: Floats,
    code: Floats,
    energy: Floats,
    residual: Floats,
    strongest: Floats,
    count: int,
    by_decrease: bool,
    curvature: float,
) -> None:
    """Codes of at most count atoms, energies, fixed-point residuals and largest correlations of some samples; in place.

    gram: (units, units), DᵀD. drive: (samples, units), Dᵀx. half: (samples,), ½‖x‖². code: (samples, units), 0 before.
    curvature: L, of the step 1/L.
    """
    units = len(gram)
    most = min(count, units)
    # each atom's squared norm, and that of its part outside those chosen
    square, outside = np.empty(units), np.empty(units)
    # what an atom's squared correlation is multiplied by: 0 where it may not come in
    least, usable, free = np.empty(units), np.empty(units), np.empty(units)
    for i in range(units):
        square[i], least[i] = gram[i, i], max(DEPENDENT * gram[i, i], TINY)
        usable[i] = 1.0 if gram[i, i] > TINY else 0.0
        if not by_decrease:
            usable[i] /= max(gram[i, i], TINY)
    # each chosen atom orthogonal to those before it, as its products with all atoms
    basis = np.empty((most, units))
    weight, chosen = np.empty(most), np.empty(most, np.int64)
    c = np.empty(units)
    lane, padded = np.empty(LANES), np.zeros(-(-units // LANES) * LANES)
    size = padded[:units]
    for row in range(len(code)):
        left, taken, top = half[row], 0, 0.0
        c[:], outside[:], free[:] = drive[row], square, usable
        for i in range(units):
            top = max(top, abs(c[i]))
            size[i] = c[i] * c[i] * free[i]
            if by_decrease:
                size[i] /= max(square[i], least[i])
        strongest[row] = top
        while taken < most:
            unit = largest(padded, units, lane)
            if size[unit] <= 1e-24 * half[row]:
                break
            free[unit], size[unit] = 0.0, 0.0
            rest = outside[unit]
            if not by_decrease:
                for k in range(taken):
                    rest -= basis[k, unit] ** 2
            if rest <= least[unit]:
                continue
            new = basis[taken]
            for i in range(units):
                new[i] = gram[unit, i]
            last = taken - taken % 4
            for k in range(0, last, 4):  # a quarter of the passes over ``new``
                _subtract(new, basis[k : k + 4], unit)
            for k in range(last, taken):
                a, old = basis[k, unit], basis[k]
                for i in range(units):
                    new[i] -= a * old[i]
            inverse = 1.0 / rest**0.5
            move = c[unit] * inverse
            _advance(new, c, size, free, inverse, move)
            if by_decrease:
                _divide(size, new, outside, least)
            weight[taken], chosen[taken] = move, unit
            left -= 0.5 * move * move
            taken += 1
        # back substitution: the factor's entry (later, earlier) is basis[earlier, chosen[later]]
        for k in range(taken - 1, -1, -1):
            value = weight[k]
            for later in range(k + 1, taken):
                value -= basis[k, chosen[later]] * code[row, chosen[later]]
            code[row, chosen[k]] = value / basis[k, chosen[k]]
        energy[row] = max(left, 0.0)
        residual[row] = _fixed_point(code[row], c, chosen, taken, most, curvature)
