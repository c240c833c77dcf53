"""Where a learned inhibition matrix may lie, and the exact projection onto that set."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from groundstate.parameters import ROUNDING, Constraint, select_units

ROUNDS = 500
"""Newton steps in one stage at most; a handful is the rule."""
STAGE = 4.0
"""The bound is lowered by this factor from stage to stage."""
LEAST_DAMPING, MOST_DAMPING = 1e-9, 1e3


@dataclass(frozen=True)
class InhibitionSet(Constraint):
    """Symmetric, non-negative, zero diagonal, zero where ``allowed`` is False, every row's sum at most ``row_sum``.

    allowed: (*code_shape, *code_shape) bool, symmetric over the units, False on the diagonal.
    """

    allowed: Tensor
    row_sum: float

    def project_(self, value: Tensor) -> None:
        """The nearest point in the Frobenius norm: S_ij = max(0, M_ij − μ_i − μ_j), M the symmetric part of value.

        The multipliers μ ≥ 0 of the row sums minimise the dual ¼‖S‖² + r Σ_i μ_i. Nothing is kept between calls,
        so that a resumed run projects to the same bits.
        """
        flat = _square(value.detach()).double()
        # an entry that is 0 at μ = 0 stays 0, so what is forbidden needs no other mark
        start = (0.5 * (flat + flat.T)).masked_fill_(~self._allowed(value), 0).clamp_min_(0)
        nearest = _shrunk(start, self._multipliers(start))
        # what rounding leaves above the bound
        share = (self.row_sum / nearest.sum(1).clamp_min(self.row_sum)).to(nearest)
        value.copy_((nearest * torch.minimum(share[:, None], share[None, :])).view_as(value))

    def _allowed(self, value: Tensor) -> Tensor:
        return _square(self.allowed.to(value.device))

    def _multipliers(self, start: Tensor) -> Tensor:
        """The dual's minimum over μ ≥ 0, by Newton steps: its gradient is piecewise linear, so they end exactly once
        the set of positive entries is found. Rows far above the bound come down to it in stages.
        """
        mu = start.new_zeros(len(start))
        if not bool(torch.isfinite(start).all()):
            return mu  # the learner's to report
        rounding = len(start) * torch.finfo(start.dtype).eps * float(start.max())
        bound = max(self.row_sum, float(start.sum(1).max()) / STAGE)
        while bound > self.row_sum:
            mu = self._descend(start, mu, bound, 0.1 * bound)
            bound = max(self.row_sum, bound / STAGE)
        return self._descend(start, mu, bound, 1e-14 * bound + rounding)

    def _descend(self, start: Tensor, mu: Tensor, bound: float, accuracy: float) -> Tensor:
        """mu after damped Newton steps, each of which lowers the dual, to a residual of at most ``accuracy``."""
        damping, largest = LEAST_DAMPING, start.amax(1)
        shrunk = _shrunk(start, mu)
        for _ in range(ROUNDS):
            slope = bound - shrunk.sum(1)
            rest = _rest(mu, slope)
            if rest <= accuracy:
                break
            # beyond its largest entry a row is 0 and its multiplier only costs
            ahead = (mu + _newton(mu, shrunk > 0, slope, damping)).clamp_min(0).minimum(largest)
            further = _shrunk(start, ahead)
            before, after = _dual(shrunk, mu, bound), _dual(further, ahead, bound)
            lower = after < before and after <= before + 1e-4 * float(slope @ (ahead - mu))
            # near the minimum the dual changes by less than it can show
            level = after <= before * (1 + 1e-12)
            if lower or (level and _rest(ahead, bound - further.sum(1)) < 0.5 * rest):
                mu, shrunk, damping = ahead, further, max(0.1 * damping, LEAST_DAMPING)
            elif damping > MOST_DAMPING:
                break
            else:
                damping *= 10
        return mu

    def violation(self, value: Tensor) -> float:
        flat = _square(value)
        forbidden = flat.masked_fill(self._allowed(value), 0).abs().max()
        excess = (flat.sum(1) - self.row_sum).clamp_min(0).max()
        asymmetry = (flat - flat.T).abs().max()
        return float(torch.stack([forbidden, excess, asymmetry, (-flat).clamp_min(0).max()]).max())

    def activity(self, value: Tensor) -> float:
        """The share of rows whose sum is at the bound."""
        return float((_square(value).sum(1) >= self.row_sum * (1 - ROUNDING)).double().mean())

    def select(self, dim: int, units: Tensor) -> Constraint:
        """The mask keeps these units along one axis; both axes are asked for in turn."""
        return replace(self, allowed=select_units(self.allowed, (dim,), units.to(self.allowed.device)))


def _square(value: Tensor) -> Tensor:
    """(units, units), of a matrix whose two axes may be code shapes."""
    return value.reshape(math.isqrt(value.numel()), -1)


def _shrunk(start: Tensor, mu: Tensor) -> Tensor:
    # μ_i + μ_j first: the same to the bit on both sides of the diagonal
    return (start - (mu[:, None] + mu[None, :])).clamp_min_(0)


def _newton(mu: Tensor, positive: Tensor, slope: Tensor, damping: float) -> Tensor:
    """The move to the dual's minimum over the rows that are not at rest, with the positive entries as they are.

    damping: multiplies the rows' curvatures and is added; the Hessian is singular where the positive entries fall
    into two sides, and 0 at a row that has none.
    """
    rows = ((mu > 0) | (slope < 0)).nonzero().flatten()
    degree = positive.sum(1)[rows].to(mu)
    hessian = positive[rows][:, rows].to(mu)
    hessian.diagonal().add_(degree).add_(damping * degree.clamp_min(1))
    move = torch.zeros_like(mu)
    move[rows] = torch.cholesky_solve(-slope[rows, None], torch.linalg.cholesky(hessian))[:, 0]
    return move


def _dual(shrunk: Tensor, mu: Tensor, bound: float) -> float:
    return float(0.25 * shrunk.square().sum() + bound * mu.sum())


def _rest(mu: Tensor, slope: Tensor) -> float:
    return float(torch.minimum(mu, slope).abs().max())
