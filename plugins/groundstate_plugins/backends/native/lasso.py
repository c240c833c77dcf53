"""w·½‖x − Dz‖² + λ‖z‖₁ + ρ·½‖z‖², with z ≥ 0 where asked, each sample by an active set.

Coordinate descent in float32 along a falling threshold guesses the support; there the minimiser is known in closed
form from the inverse Gram matrix (float64), and the way to it ends at the first entry that would change its sign,
which leaves; units whose correlation exceeds λ join (Osborne, Presnell & Turlach 2000). The energy falls in each
step, and the last one is exact.

Where the support grows to half as many units as inputs before the threshold has come down to λ, the guess would be
bad: most of its units would leave again. Coordinate descent ends there, and the active set goes on along the falling
threshold, with one such step for each.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from groundstate.components import Solver
from groundstate.inference import Solved
from groundstate.problem import Certificate, Problem
from groundstate.structure import L1, ProblemStructure, Ridge
from groundstate_plugins.backends.native.inverse import DEPENDENT, FAST, JOINED, PAD, join, leave, product, subtract
from groundstate_plugins.backends.native.threads import in_blocks

BLOCK = 64
CHUNK = 2**23
"""Correlations held at once (64 MiB)."""
CAPACITY = 1024
"""Units of one active set; a code with more is finished by coordinate descent."""
RATIO = np.float32(0.7)
"""From one threshold of the path to the next."""
STEP = 0.8
"""The same for the active set."""
JOINS = 1000
"""Times that units may join before coordinate descent makes a new guess."""
LOST = 1e-3
"""The inverse is built anew where its minimiser's correlations are off by this share of the threshold."""
SWEEPS = 5
CARE = 30
"""Sweeps of coordinate descent in float64, where the active set stalls."""

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


def takes(structure: ProblemStructure) -> bool:
    """L1 with a weight, with or without a ridge."""
    return all(isinstance(part, Ridge) or (isinstance(part, L1) and part.weight > 0) for part in structure.penalties)


def solve(structure: ProblemStructure, problem: Problem, start: Tensor, config: Solver.Config) -> Solved:
    """The codes, with their certificate where there is one penalty."""
    penalties = [part for part in structure.penalties if isinstance(part, L1)]
    level = float(sum(part.weight for part in penalties))
    ridge = float(sum(part.weight for part in structure.penalties if isinstance(part, Ridge)))
    weight = float(structure.data.weight)
    matrix = structure.dictionary.matrix.detach().double()
    x = problem.batch.x.detach().flatten(1)
    units = matrix.shape[1]
    gram = weight * matrix.T @ matrix
    gram.diagonal().add_(ridge)
    grams = gram.numpy(), gram.float().numpy()
    capacity = min(units, CAPACITY, units if ridge else len(matrix)) + 8
    most = len(matrix) // 2
    code = torch.zeros(len(x), units, dtype=start.dtype)
    figures = torch.zeros(3, len(x), dtype=torch.float64)
    iterations = torch.zeros(len(x), dtype=torch.int64)
    warm = bool(start.any())
    begin = start.detach().flatten(1) if warm else code
    settings = (level, any(part.non_negative for part in penalties), warm, config.tolerance, config.max_iterations)
    size = max(1, CHUNK // units)
    for top in range(0, len(x), size):
        rows = slice(top, top + size)
        some = x[rows].double()
        half = 0.5 * weight * torch.linalg.vecdot(some, some)
        parts = [(some @ matrix).mul_(weight), half, begin[rows], code[rows], iterations[rows]]
        arrays = [part.numpy() for part in parts]
        found = figures[:, rows].numpy()

        def work(first: int, end: int, arrays: list[NDArray[np.float64]] = arrays, found: Matrix = found) -> None:
            _block(*grams, *(part[first:end] for part in arrays), found[:, first:end], capacity, most, *settings)

        in_blocks(work, len(some), BLOCK)
    gap, energy, half = figures.to(start.dtype)
    certificate = Certificate("gap", gap, gap / half.clamp_min(torch.finfo(half.dtype).tiny))
    return Solved(code.view_as(start), iterations, certificate if len(penalties) == 1 else None, energy)


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def _path(
    gram: NDArray[np.float32],
    pull: NDArray[np.float32],
    z: NDArray[np.float32],
    active: NDArray[np.int64],
    listed: NDArray[np.uint8],
    count: int,
    level: np.float32,
    non_negative: bool,
    most: int,
) -> tuple[int, float]:
    """Coordinate descent along a falling threshold, with at most so many units; how many are active, and for which."""
    units = pull.shape[0]
    threshold = np.float32(0)
    for i in range(units):
        threshold = max(threshold, abs(pull[i]))
    if count:  # a warm start
        threshold = level
    while True:
        threshold = max(level, threshold * RATIO)
        for _ in range(SWEEPS if threshold <= level else 1):
            before = count
            for i in range(units):
                active[count] = i
                beyond = pull[i] > threshold if non_negative else abs(pull[i]) > threshold
                count += int(beyond & (listed[i] == 0))
            if 0 < before < count and count > most:
                return before, threshold / RATIO
            for i in range(before, count):
                listed[active[i]] = 1
            for i in range(count):
                unit = active[i]
                row = gram[unit]
                target = pull[unit] + row[unit] * z[unit]
                size = max((target if non_negative else abs(target)) - threshold, np.float32(0)) / row[unit]
                move = (size if target >= 0 else -size) - z[unit]
                if move != 0:
                    z[unit] += move
                    for j in range(units):
                        pull[j] -= move * row[j]
        if threshold <= level:
            return count, threshold


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def _careful(gram: Matrix, drive: Vector, c: Vector, z: Vector, level: float, non_negative: bool) -> None:
    """Sweeps of coordinate descent on a dense code in float64; c: its correlations, on return too."""
    units = len(c)
    c[:] = drive
    for i in range(units):
        if z[i] != 0:
            subtract(c, gram[i], z[i])
    for _ in range(CARE):
        for i in range(units):
            own = gram[i, i]
            if own <= 0 or (z[i] == 0 and abs(c[i]) <= level):
                continue
            target = c[i] + own * z[i]
            size = max((target if non_negative else abs(target)) - level, 0.0) / own
            move = (size if target >= 0 else -size) - z[i]
            if move != 0:
                z[i] += move
                subtract(c, gram[i], move)


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def _descend(
    z: Vector, x: Vector, sign: Vector, units: NDArray[np.int64], size: int, inverse: Matrix, u: Vector
) -> int:
    """Go from z towards x, the minimiser for these signs; who would change sign leaves, and x moves for it."""
    while True:
        step, at = 1.0, -1
        for i in range(size):
            if x[i] * sign[i] <= 0:
                crossing = z[i] / (z[i] - x[i]) if z[i] != x[i] else 0.0
                if crossing < step:
                    step, at = crossing, i
        if at < 0:
            z[:size] = x[:size]
            return size
        for i in range(size):
            z[i] += step * (x[i] - z[i])
        subtract(x[:size], inverse[at, :size], x[at] / inverse[at, at])
        leave(inverse, size, at, u)
        size -= 1
        units[at], z[at], x[at], sign[at] = units[size], z[size], x[size], sign[size]


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def _exchange(
    gram: Matrix,
    units: NDArray[np.int64],
    size: int,
    unit: int,
    inverse: Matrix,
    u: Vector,
    g: Vector,
    z: Vector,
    sign: Vector,
    direction: float,
    listed: NDArray[np.uint8],
) -> int:
    """A unit that depends on others (u = Q g) grows at their cost, Dz unchanged, until it replaces one of them.

    Gives the new size, or −1 where nothing was done.
    """
    step, at = np.inf, -1
    for i in range(size):
        if u[i] * direction * sign[i] > 0 and abs(z[i]) < step * abs(u[i]):
            step, at = abs(z[i] / u[i]), i
    if at < 0:  # rounding alone; there is nothing to gain
        return -1
    for i in range(size):
        z[i] -= step * direction * u[i]
    listed[units[at]] = 0
    leave(inverse, size, at, u)
    units[at], z[at], sign[at] = units[size - 1], z[size - 1], sign[size - 1]
    size -= 1
    if join(gram, units, size, unit, inverse, u, g) == JOINED:
        z[size], sign[size] = step * direction, direction
        listed[unit] = 1
        size += 1
    return size


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def _gap(
    c: Vector,
    drive: Vector,
    z: Vector,
    units: NDArray[np.int64],
    size: int,
    half: float,
    level: float,
    non_negative: bool,
) -> tuple[float, float]:
    """(gap, energy), as in ``Problem.certificate``."""
    top = level
    for i in range(len(c)):
        top = max(top, c[i] if non_negative else abs(c[i]))
    scale = level / top
    norm, inner, driven = 0.0, 0.0, 0.0
    for i in range(size):
        norm += abs(z[i])
        inner += z[i] * c[units[i]]
        driven += z[i] * drive[units[i]]
    fit = half - 0.5 * (driven + inner)
    return max((1 - scale) ** 2 * fit + level * norm - scale * inner, 0.0), fit + level * norm


@numba.njit(cache=True, nogil=True)
def _block(
    gram: Matrix,
    gram32: NDArray[np.float32],
    drives: Matrix,
    halves: Vector,
    starts: Matrix,
    codes: Matrix,
    iterations: NDArray[np.int64],
    figures: Matrix,
    capacity: int,
    most: int,
    level: float,
    non_negative: bool,
    warm: bool,
    tolerance: float,
    limit: int,
) -> None:
    """The codes of some samples. figures: (3, samples), gap, energy and ½w‖x‖²."""
    units = gram.shape[0]
    pull, z32 = np.empty(units, np.float32), np.zeros(units, np.float32)
    active, listed = np.empty(units + 1, np.int64), np.zeros(units, np.uint8)
    stride = (capacity + PAD - 1) // PAD * PAD + PAD + 8
    inverse = np.zeros((capacity, stride))
    u, g, x, z, sign = np.zeros(stride), np.zeros(stride), np.zeros(stride), np.zeros(stride), np.zeros(stride)
    chosen = np.empty(stride, np.int64)
    c, dense = np.empty(units), np.zeros(units)
    for row in range(len(codes)):
        drive, half = drives[row], halves[row]
        figures[2, row] = half
        if not np.isfinite(half):
            codes[row] = np.nan
            figures[:2, row] = np.nan
            continue
        # a guess: the support and its signs
        count = 0
        pull[:] = drive.astype(np.float32)
        if warm:
            for i in range(units):
                value = starts[row, i]
                if value != 0 and gram[i, i] > 0 and not (non_negative and value < 0):
                    z32[i] = value
                    active[count] = i
                    listed[i] = 1
                    count += 1
                    for j in range(units):
                        pull[j] -= z32[i] * gram32[i, j]
        allowed = units if count else most
        count, now = _path(gram32, pull, z32, active, listed, count, np.float32(level), non_negative, allowed)
        now = level if now <= np.float32(level) else np.float64(now)
        for i in range(count):
            dense[active[i]] = z32[active[i]]
            z32[active[i]] = 0
            listed[active[i]] = 0
        best, rounds, attempt, done = np.inf, 0, 0, False
        while not done:
            size = 0
            for i in range(units):
                if dense[i] != 0 and join(gram, chosen, size, i, inverse, u, g) == JOINED:
                    z[size] = dense[i]
                    sign[size] = 1.0 if dense[i] > 0 else -1.0
                    listed[i] = 1
                    size += 1
            for i in range(size):
                g[i] = drive[chosen[i]] - now * sign[i]
            product(inverse, g, x, size)
            joined, lost = 1, False
            while (joined and attempt < JOINS) or now > level:
                final = now <= level
                rounds += int(final)
                attempt += int(final)
                before, now = now, max(level, now * STEP)
                for i in range(size):
                    listed[chosen[i]] = 0
                size = _descend(z, x, sign, chosen, size, inverse, u)
                c[:] = drive
                for i in range(size):
                    listed[chosen[i]] = 1
                    codes[row, chosen[i]] = z[i]
                    z[i] = codes[row, chosen[i]]  # as it is given back, perhaps in float32
                    codes[row, chosen[i]] = 0
                    subtract(c, gram[chosen[i]], z[i])
                gap, energy = _gap(c, drive, z, chosen, size, half, level, non_negative)
                done = final and (gap <= tolerance * half or rounds >= limit)
                off = 0.0
                for i in range(size):
                    off = max(off, abs(c[chosen[i]] - before * sign[i]))
                lost = off > LOST * before
                if done or lost:
                    break
                for i in range(size):  # what rounding left of the optimality on the support
                    g[i] = c[chosen[i]] - now * sign[i]
                product(inverse, g, u, size)
                for i in range(size):
                    x[i] = z[i] + u[i]
                joined = 0
                for i in range(units):
                    if (c[i] if non_negative else abs(c[i])) <= now or listed[i]:
                        continue
                    over = drive[i]
                    for j in range(size):
                        over -= gram[i, chosen[j]] * x[j]
                    if over * c[i] <= 0 or abs(over) <= now:
                        continue
                    outcome = join(gram, chosen, size, i, inverse, u, g)
                    if outcome == DEPENDENT and joined == 0:
                        direction = 1.0 if over > 0 else -1.0
                        left = _exchange(gram, chosen, size, i, inverse, u, g, z, sign, direction, listed)
                        if left < 0:
                            continue
                        size = left
                        for j in range(size):
                            g[j] = drive[chosen[j]] - now * sign[j]
                        product(inverse, g, x, size)
                        joined = 1
                        break
                    if outcome == JOINED:
                        sign[size] = 1.0 if over > 0 else -1.0
                        x[size] = (over - now * sign[size]) * inverse[size, size]
                        subtract(x[:size], u[:size], x[size])
                        z[size] = 0.0
                        listed[i] = 1
                        size += 1
                        joined += 1
            dense[:] = 0.0
            for i in range(size):
                dense[chosen[i]] = z[i]
                listed[chosen[i]] = 0
            if not done and not (lost and attempt < JOINS):
                done = not gap < 0.5 * best  # no way to go on in this precision
                best, attempt = min(best, gap), 0
                if not done:
                    _careful(gram, drive, c, dense, level, non_negative)
        for i in range(size):
            codes[row, chosen[i]] = z[i]
            dense[chosen[i]] = 0.0
        figures[0, row], figures[1, row], iterations[row] = gap, energy, rounds
