"""The inverse of a small Gram matrix, kept while units join and leave.

Q: (capacity, stride) float64, zero beyond the inverse of gram[S][:, S] at its upper left; rows are handled in whole
multiples of PAD, so that no loop has a scalar rest. Each of the inner loops is a function of its own: there the
compiler knows that its arrays do not overlap.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

PAD = 16
FAST = {"reassoc", "contract", "nsz"}
"""Sums may be reordered and fused; NaN and infinity keep their meaning."""
LEFT = 1e-9
"""A unit depends on others where this part of its atom's square is left of it."""
JOINED, DEPENDENT, FULL = 1, 0, -1

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def subtract(target: Vector, row: Vector, factor: float) -> None:
    """target −= factor·row."""
    for i in range(target.shape[0]):
        target[i] -= factor * row[i]


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def product(inverse: Matrix, g: Vector, out: Vector, size: int) -> None:
    """out = Q g over ``size`` units; g is set to zero up to a multiple of four."""
    padded = (size + PAD - 1) // PAD * PAD
    for i in range(size, size + 4):
        g[i] = 0.0
    for i in range(padded):
        out[i] = 0.0
    for j in range(0, size, 4):
        a, b, c, d = g[j], g[j + 1], g[j + 2], g[j + 3]
        one, two, three, four = inverse[j], inverse[j + 1], inverse[j + 2], inverse[j + 3]
        for i in range(padded):
            out[i] += a * one[i] + b * two[i] + c * three[i] + d * four[i]


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def add_outer(inverse: Matrix, u: Vector, factor: float, size: int, padded: int) -> None:
    """Q += factor·u uᵀ."""
    for i in range(size):
        a = u[i] * factor
        row = inverse[i]
        for j in range(padded):
            row[j] += a * u[j]


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def join(gram: Matrix, units: NDArray[np.int64], size: int, unit: int, inverse: Matrix, u: Vector, g: Vector) -> int:
    """Let a unit join the first ``size``: JOINED, DEPENDENT (nothing done, u = Q g) or FULL (nothing done)."""
    if size >= inverse.shape[0] - 4:
        return FULL
    row = gram[unit]
    for i in range(size):
        g[i] = row[units[i]]
    product(inverse, g, u, size)
    left = row[unit]
    for i in range(size):
        left -= u[i] * g[i]
    if not left > LEFT * row[unit]:
        return DEPENDENT
    padded = (size + PAD - 1) // PAD * PAD
    add_outer(inverse, u, 1 / left, size, padded)
    if size == padded:
        inverse[: size + 1, size : size + PAD] = 0.0
    inverse[size, : size + PAD] = 0.0
    for i in range(size):
        inverse[i, size] = -u[i] / left
        inverse[size, i] = -u[i] / left
    inverse[size, size] = 1 / left
    units[size] = unit
    return JOINED


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def leave(inverse: Matrix, size: int, position: int, u: Vector) -> None:
    """Let the unit at a position leave; the last one takes its place."""
    last = size - 1
    if position != last:
        for i in range(size):
            inverse[position, i], inverse[last, i] = inverse[last, i], inverse[position, i]
        for i in range(size):
            inverse[i, position], inverse[i, last] = inverse[i, last], inverse[i, position]
    padded = (size + PAD - 1) // PAD * PAD
    for i in range(padded):
        u[i] = inverse[last, i]
        inverse[last, i] = 0.0
    add_outer(inverse, u, -1 / u[last], last, padded)
    for i in range(last):
        inverse[i, last] = 0.0
