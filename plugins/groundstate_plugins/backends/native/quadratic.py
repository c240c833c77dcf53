"""The smooth part of a problem, ½zᵀGz − driveᵀz + half, as float64 arrays for a kernel, and the way back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from groundstate.components import Solver
from groundstate.inference import Solved
from groundstate.problem import Certificate, Problem
from groundstate.structure import ProblemStructure, Ridge
from groundstate_plugins.backends.native.threads import in_blocks

BLOCK = 16
"""Samples that one thread takes at a time."""

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Run = Callable[[slice, Floats, Integers, Floats, int], None]
"""(rows, their codes, iterations and gaps, all in place, and the limit of iterations)."""


@dataclass(frozen=True)
class Quadratic:
    """w·½‖x − Dz‖² + ρ·½‖z‖² on the units in ``order``.

    gram: (units, units), w·DᵀD + ρ. drive: (samples, units), w·Dᵀx. half: (samples,), w·½‖x‖². Samples that are not
    finite are 0 here, and their codes NaN.
    """

    gram: Floats
    drive: Floats
    half: Floats
    order: Integers
    broken: Tensor

    @classmethod
    def of(cls, structure: ProblemStructure, problem: Problem, order: Integers | None = None) -> Quadratic:
        matrix = structure.dictionary.matrix.detach().double()
        if order is None:
            order = np.arange(matrix.shape[1])
        else:
            matrix = matrix[:, torch.from_numpy(order)]
        weight = float(structure.data.weight)
        ridge = sum(float(penalty.weight) for penalty in structure.penalties if isinstance(penalty, Ridge))
        x = problem.batch.x.detach().flatten(1).double()
        squares = torch.linalg.vecdot(x, x)
        broken = ~torch.isfinite(squares)
        if bool(broken.any()):  # or large alone
            broken = ~torch.isfinite(x).all(1)
            x = torch.where(broken[:, None], 0.0, x)
            squares = torch.where(broken, 0.0, squares)
        gram = (matrix.T @ matrix).mul_(weight)
        gram.diagonal().add_(ridge)
        drive = x @ (weight * matrix)
        half = 0.5 * weight * squares
        return cls(gram.contiguous().numpy(), drive.numpy(), half.numpy(), order, broken)

    def start(self, start: Tensor) -> Floats:
        """Codes to start from, (samples, units)."""
        codes = torch.where(self.broken[:, None], 0.0, start.detach().flatten(1).double())
        return np.ascontiguousarray(codes.numpy()[:, self.order])

    def back(self, codes: Floats, like: Tensor) -> Tensor:
        """Codes as ``like``."""
        found = torch.from_numpy(codes)
        if not np.array_equal(self.order, np.arange(codes.shape[1])):
            found = torch.empty_like(found)
            found[:, torch.from_numpy(self.order)] = torch.from_numpy(codes)
        if bool(self.broken.any()):
            found = torch.where(self.broken[:, None], torch.nan, found)
        return found.to(like.dtype).view_as(like)

    def certified(self, run: Run, start: Tensor, config: Solver.Config) -> Solved:
        """What a kernel that knows its gaps finds from ``start``; the gaps are those of the codes as they are given."""
        iterations, gap = np.zeros(len(self.half), np.int64), np.zeros(len(self.half))

        def all_rows(codes: Floats, count: Integers, limit: int) -> None:
            def work(first: int, end: int) -> None:
                rows = slice(first, end)
                run(rows, codes[rows], count[rows], gap[rows], limit)

            in_blocks(work, len(codes), BLOCK)

        codes = self.start(start)
        all_rows(codes, iterations, config.max_iterations)
        found = self.back(codes, start)
        if found.dtype != torch.float64:  # rounding moves a code off its minimum
            all_rows(self.start(found), np.zeros_like(iterations), 0)
        return self.solved(found, iterations, gap)

    def solved(self, found: Tensor, iterations: Integers, gap: Floats) -> Solved:
        """Codes with these gaps; NaN where a sample is not finite."""
        gaps = torch.where(self.broken, torch.nan, torch.from_numpy(gap))
        relative = gaps / torch.from_numpy(self.half).clamp_min(torch.finfo(found.dtype).tiny)
        certificate = Certificate("gap", gaps.to(found.dtype), relative.to(found.dtype))
        return Solved(found, torch.from_numpy(iterations), certificate)
