"""w·½‖x − Dz‖² + λ‖z‖₁ + ρ·½‖z‖², with z ≥ 0 where asked, by coordinate descent on the Gram matrix."""

from __future__ import annotations

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from groundstate.components import Solver
from groundstate.inference import Solved
from groundstate.problem import Problem
from groundstate.structure import L1, ProblemStructure, Ridge
from groundstate_plugins.backends.native.threads import in_blocks

BLOCK = 64


def takes(structure: ProblemStructure) -> bool:
    return all(isinstance(penalty, L1 | Ridge) for penalty in structure.penalties)


def solve(structure: ProblemStructure, problem: Problem, start: Tensor, config: Solver.Config) -> Solved:
    """Codes by cyclic coordinate descent, each sample until its gap is small enough."""
    penalties = [penalty for penalty in structure.penalties if isinstance(penalty, L1)]
    threshold = float(sum(penalty.weight for penalty in penalties))
    ridge = float(sum(penalty.weight for penalty in structure.penalties if isinstance(penalty, Ridge)))
    weight = float(structure.data.weight)
    matrix = structure.dictionary.matrix.detach().double()
    x = problem.batch.x.detach().flatten(1).double()
    gram = weight * matrix.T @ matrix
    drive = weight * x @ matrix
    half = 0.5 * weight * x.square().sum(1)
    code = start.detach().flatten(1).double().clone()
    iterations = torch.zeros(len(code), dtype=torch.int64)
    arrays = [part.numpy() for part in (drive, half, code, iterations)]
    shared = gram.numpy()
    non_negative = any(penalty.non_negative for penalty in penalties)

    def work(first: int, end: int) -> None:
        rows = (part[first:end] for part in arrays)
        _descend(shared, *rows, threshold, ridge, non_negative, config.tolerance, config.max_iterations)

    in_blocks(work, len(code), BLOCK)
    return Solved(code.to(start.dtype).view_as(start), iterations)


@numba.njit(cache=True, nogil=True)
def _descend(
    gram: NDArray[np.float64],
    drive: NDArray[np.float64],
    half: NDArray[np.float64],
    code: NDArray[np.float64],
    iterations: NDArray[np.int64],
    threshold: float,
    ridge: float,
    non_negative: bool,
    tolerance: float,
    limit: int,
) -> None:
    units = gram.shape[0]
    for row in range(len(code)):
        z = code[row]
        pull = drive[row] - gram @ z  # w·Dᵀ(x − Dz)
        for sweep in range(1, limit + 1):
            largest = 0.0
            for unit in range(units):
                curvature = gram[unit, unit] + ridge
                if curvature <= 0:
                    z[unit] = 0.0
                    continue
                target = pull[unit] + gram[unit, unit] * z[unit]
                size = max((target if non_negative else abs(target)) - threshold, 0.0) / curvature
                after = size if target >= 0 else -size
                if after != z[unit]:
                    move = after - z[unit]
                    largest = max(largest, curvature * move * move)
                    for other in range(units):
                        pull[other] -= move * gram[unit, other]
                    z[unit] = after
            iterations[row] = sweep
            if largest <= (1e-2 * tolerance) ** 2 * half[row]:
                break
