"""Small dense systems inside compiled kernels, in place."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FAST = {"contract", "reassoc", "nsz", "arcp"}
"""Sums may be reordered, so that they run in vector instructions; NaN and infinity keep their meaning."""
FINITE = FAST | {"nnan"}
"""For loops over numbers that are known to be finite: maxima run in vector instructions only so."""
LANES = 16
"""Maxima taken side by side."""


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def factorise(matrix: NDArray[np.float64], size: int) -> bool:
    """The Cholesky factor of the leading block of ``size``, into its lower half; False where it is not definite."""
    for i in range(size):
        for j in range(i + 1):
            total = matrix[i, j]
            for k in range(j):
                total -= matrix[i, k] * matrix[j, k]
            if j < i:
                matrix[i, j] = total / matrix[j, j]
            elif total <= 1e-13 * matrix[i, i] or not total > 0.0:
                return False
            else:
                matrix[i, i] = total**0.5
    return True


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def substitute(factor: NDArray[np.float64], right: NDArray[np.float64], size: int) -> None:
    """right becomes (L Lᵀ)⁻¹ right."""
    for i in range(size):
        total = right[i]
        for k in range(i):
            total -= factor[i, k] * right[k]
        right[i] = total / factor[i, i]
    for i in range(size - 1, -1, -1):
        right[i] /= factor[i, i]
        for k in range(i):
            right[k] -= factor[i, k] * right[i]


@numba.njit(cache=True, nogil=True, fastmath=FINITE)
def largest(size: NDArray[np.float64], count: int, lane: NDArray[np.float64]) -> int:
    """Where the largest of the first ``count`` numbers stands; all ≥ 0, and 0 behind them up to a multiple of LANES.

    lane: (LANES,), scratch.
    """
    lane[:] = 0.0
    for first in range(0, len(size), LANES):
        for i in range(LANES):
            lane[i] = max(lane[i], size[first + i])
    best = 0
    for i in range(1, LANES):
        if lane[i] > lane[best]:
            best = i
    for i in range(best, count, LANES):
        if size[i] == lane[best]:
            return i
    return 0


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def correlate(gram: Floats, drive: Floats, z: Floats, size: int, c: Floats) -> None:
    """c = drive − G z on the first ``size`` units."""
    for j in range(size):
        c[j] = drive[j]
    for i in range(size):
        if z[i] != 0.0:
            value, row = z[i], gram[i]
            for j in range(size):
                c[j] -= value * row[j]
