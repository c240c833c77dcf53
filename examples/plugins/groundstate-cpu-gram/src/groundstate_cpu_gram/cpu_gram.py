"""The processor, with a faster way to solve lasso problems."""

from collections.abc import Callable

import torch
from pydantic import Field
from torch import Tensor

from groundstate import Availability, Backend, Problem, Solved, Solver, soft_threshold
from groundstate.structure import L1, ProblemStructure

Kernel = Callable[[Problem, Tensor, Solver.Config], Solved]


class CpuGram(Backend):
    """Solves ½w‖x − Dz‖² + λ‖z‖₁ on the Gram matrix DᵀD, which pays where inputs are longer than codes."""

    class Config(Backend.Config):
        check_every: int = Field(20, ge=1, description="iterations between two looks at the certificate")

    @classmethod
    def available(cls) -> Availability:
        return Availability(True, f"PyTorch {torch.__version__} on the processor")

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def kernel(self, structure: ProblemStructure) -> Kernel | None:
        """FISTA on the Gram matrix for one L1 penalty and nothing else; None for all other problems."""
        match structure.penalties:
            case (L1() as penalty,):
                return lambda problem, start, config: self._solve(structure, penalty, problem, start, config)
        return None

    def _solve(
        self, structure: ProblemStructure, penalty: L1, problem: Problem, start: Tensor, config: Solver.Config
    ) -> Solved:
        matrix, weight = structure.dictionary.matrix, structure.data.weight
        step = 1 / problem.lipschitz().value
        # one step is v − step·(G v − c): the identity folded in, it is a product and a sum
        descent = torch.eye(matrix.shape[1], dtype=matrix.dtype) - step * weight * (matrix.T @ matrix)
        drive = step * weight * (problem.batch.x.flatten(1) @ matrix)
        threshold = step * penalty.weight
        rows = torch.arange(len(start))
        code, done = start.clone(), torch.zeros(len(start), dtype=torch.int64)
        z = ahead = start
        t = start.new_ones(len(start), 1)
        for iteration in range(1, config.max_iterations + 1):
            following = soft_threshold(torch.addmm(drive, ahead, descent), threshold, non_negative=penalty.non_negative)
            # restart where the momentum points uphill, each sample for itself (O'Donoghue & Candès 2015)
            uphill = ((ahead - following) * (following - z)).sum(1, keepdim=True) > 0
            longer = torch.where(uphill, 1.0, 0.5 * (1 + (1 + 4 * t.square()).sqrt()))
            momentum = torch.where(uphill, 0.0, (t - 1) / longer)
            ahead, z, t = following + momentum * (following - z), following, longer
            last = iteration == config.max_iterations
            if iteration % self.config.check_every == 0 or last:
                reached = problem.certificate(z).relative <= config.tolerance
                code[rows], done[rows] = z, iteration
                if last or bool(reached.all()):
                    break
                left = (~reached).nonzero().flatten()
                if len(left) < len(rows):
                    problem, rows = problem.select(left), rows[left]
                    z, ahead, t, drive = z[left], ahead[left], t[left], drive[left]
        return Solved(code, done)
