"""Where a learned inhibition matrix may lie, and the exact projection onto that set."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from groundstate.parameters import Constraint, select_units

NEWTON_STEPS = 50
BACKTRACKS = 30


@dataclass(frozen=True)
class InhibitionSet(Constraint):
    """Symmetric, non-negative, zero diagonal, zero where ``allowed`` is False, every row's sum at most ``row_sum``.

    allowed: (units, units) bool, symmetric, False on the diagonal.
    """

    allowed: Tensor
    row_sum: float

    def project_(self, value: Tensor) -> None:
        """The nearest point in the Frobenius norm: S_ij = max(0, M_ij − μ_i − μ_j), M the symmetric part of value.

        The multipliers μ ≥ 0 of the row sums solve a convex problem with a piecewise linear gradient; Newton
        steps on the rows that are not at their bound, each with a line search, end in a few rounds. Nothing is
        kept between calls, so that a resumed run projects to the same bits.
        """
        allowed = self.allowed.to(value.device)
        start = (0.5 * (value + value.T)).double().masked_fill(~allowed, -torch.inf)
        value.copy_(_shrunk(start, self._multipliers(start)))

    def _multipliers(self, start: Tensor) -> Tensor:
        mu = start.new_zeros(len(start))
        scale = self.row_sum + float(start.clamp_min(0).sum(1).max())
        for _ in range(NEWTON_STEPS):
            shrunk = _shrunk(start, mu)
            slope = self.row_sum - shrunk.sum(1)  # of the dual, which is minimised over μ ≥ 0
            if float(torch.minimum(mu, slope).abs().max()) <= 1e-13 * scale:
                break
            rows = ((mu > 0) | (slope < 0)).nonzero().flatten()
            active = (shrunk > 0)[rows][:, rows].double()
            hessian = active + torch.diag((shrunk > 0)[rows].double().sum(1) + 1e-12)
            move = torch.zeros_like(mu)
            move[rows] = -torch.linalg.solve(hessian, slope[rows])
            mu = self._search(start, mu, move, slope)
        return mu

    def _search(self, start: Tensor, mu: Tensor, move: Tensor, slope: Tensor) -> Tensor:
        """Along the projected Newton direction, the first point that lowers the dual enough."""
        before = self._dual(start, mu)
        step = 1.0
        for _ in range(BACKTRACKS):
            ahead = (mu + step * move).clamp_min(0)
            if self._dual(start, ahead) <= before + 1e-4 * float(slope @ (ahead - mu)):
                return ahead
            step *= 0.5
        return (mu - slope / (2 * len(mu))).clamp_min(0)

    def _dual(self, start: Tensor, mu: Tensor) -> float:
        return float(0.25 * _shrunk(start, mu).square().sum() + self.row_sum * mu.sum())

    def violation(self, value: Tensor) -> float:
        forbidden = value.masked_fill(self.allowed.to(value.device), 0).abs().max()
        excess = (value.sum(1) - self.row_sum).clamp_min(0).max()
        asymmetry = (value - value.T).abs().max()
        return float(torch.stack([forbidden, excess, asymmetry, (-value).clamp_min(0).max()]).max())

    def select(self, dim: int, units: Tensor) -> Constraint:
        """The mask keeps these units along one axis; both axes are asked for in turn."""
        return replace(self, allowed=select_units(self.allowed, (dim,), units.to(self.allowed.device)))


def _shrunk(start: Tensor, mu: Tensor) -> Tensor:
    return (start - mu[:, None] - mu[None, :]).clamp_min(0)
