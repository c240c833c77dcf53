"""w·½‖x − Dz‖² + λ‖z‖₀, by orthogonal matching pursuit that stops where one more unit does not pay.

The Gram matrix and a Cholesky factor of its active part serve all steps (Rubinstein, Zibulevsky & Elad 2008).
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
from groundstate.structure import L0, ProblemStructure
from groundstate_plugins.backends.native.dense import FAST
from groundstate_plugins.backends.native.threads import in_blocks

BLOCK = 256
DEPENDENT = 1e-6
"""A unit whose column is this near to those of the active ones (squared distance over squared norm) adds nothing."""


def takes(structure: ProblemStructure) -> bool:
    return all(isinstance(penalty, L0) for penalty in structure.penalties)


def solve(structure: ProblemStructure, problem: Problem, start: Tensor, config: Solver.Config) -> Solved:
    """Codes from zero, whatever start is: a unit at a time, while the energy falls."""
    weight = float(structure.data.weight)
    cost = float(sum(penalty.weight for penalty in structure.penalties)) / weight
    matrix = structure.dictionary.matrix.detach().double()
    x = problem.batch.x.detach().flatten(1).double()
    norm = matrix.norm(dim=0)
    matrix = matrix / norm.clamp_min(torch.finfo(norm.dtype).tiny)  # greedy choice and stop know unit columns
    gram, drive = (matrix.T @ matrix).numpy(), (x @ matrix).numpy()
    code = np.zeros(drive.shape)
    iterations = np.zeros(len(x), np.int64)
    limit = min(config.max_iterations, *matrix.shape)

    def work(first: int, end: int) -> None:
        _pursue(gram, drive[first:end], code[first:end], iterations[first:end], cost, limit)

    in_blocks(work, len(code), BLOCK)
    found = torch.from_numpy(code) / norm.clamp_min(torch.finfo(norm.dtype).tiny)
    return Solved(found.to(start.dtype).view_as(start), torch.from_numpy(iterations))


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def _pursue(
    gram: NDArray[np.float64],
    drive: NDArray[np.float64],
    code: NDArray[np.float64],
    iterations: NDArray[np.int64],
    cost: float,
    limit: int,
) -> None:
    units = gram.shape[0]
    factor = np.zeros((limit, limit))  # gram of the active units = factor factorᵀ
    part = np.zeros(limit)  # factor⁻¹ of their drive: its squares are twice what each unit gained
    row, value = np.zeros(limit), np.zeros(limit)
    active = np.zeros(limit, np.int64)
    pull = np.zeros(units)
    for sample in range(len(drive)):
        pull[:] = drive[sample]
        count = 0
        while count < limit:
            best, largest = -1, 0.0
            for unit in range(units):
                if abs(pull[unit]) > largest:
                    best, largest = unit, abs(pull[unit])
            if best < 0:
                break
            left = gram[best, best]
            for i in range(count):
                total = gram[best, active[i]]
                for j in range(i):
                    total -= factor[i, j] * row[j]
                row[i] = total / factor[i, i]
                left -= row[i] * row[i]
            if left <= DEPENDENT:
                break
            total = drive[sample, best]
            for i in range(count):
                total -= row[i] * part[i]
            gain = total / left**0.5
            if 0.5 * gain * gain <= cost:
                break
            factor[count, :count] = row[:count]
            factor[count, count] = left**0.5
            part[count] = gain
            active[count] = best
            count += 1
            for i in range(count - 1, -1, -1):
                total = part[i]
                for j in range(i + 1, count):
                    total -= factor[j, i] * value[j]
                value[i] = total / factor[i, i]
            pull[:] = drive[sample]
            for i in range(count):
                pull -= value[i] * gram[active[i]]
            for i in range(count):
                pull[active[i]] = 0.0  # exactly: rounding must not choose one twice
        for i in range(count):
            code[sample, active[i]] = value[i]
        iterations[sample] = count
