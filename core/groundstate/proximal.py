"""One proximal gradient step with per-sample backtracking: what ISTA and FISTA are made of."""

from __future__ import annotations

import torch
from torch import Tensor

from groundstate.problem import Problem, per_sample

GROWTH = 2.0
"""The curvature's estimate grows by this where the quadratic model does not majorise."""
DECAY = 0.9
"""… and shrinks by this after an accepted step, so that the steps follow the local curvature."""
TRIALS = 60


def slack(energy: Tensor, scale: Tensor) -> Tensor:
    """What rounding may do to an energy, (batch,). scale: the size of the numbers it was summed from."""
    return 8 * torch.finfo(energy.dtype).eps * (energy.abs() + scale.abs())


def proximal_step(problem: Problem, z: Tensor, residual: Tensor, curvature: Tensor) -> tuple[Tensor, Tensor]:
    """prox(z − ∇f(z)/L) with a step that never raises the energy; and the next estimate of L.

    residual: ``problem.residual(z)``. curvature: (batch,) estimates of L, used where the problem has no proven
    bound; there a sample's estimate grows until f(u) ≤ f(z) + ⟨∇f(z), u − z⟩ + ½L‖u − z‖² (Beck & Teboulle
    2009). Returns the code and the estimates.
    """
    bound, extra = problem.lipschitz(), problem.curvature()
    if bound.certain:
        step = 1.0 / (bound.value + extra)
        return problem.prox_from(problem.descended(z, step, residual), step, z), curvature
    value, gradient = problem.smooth(z, residual)
    for _ in range(TRIALS):
        steps = per_sample(1.0 / (curvature + extra), z)
        code = problem.prox_from(z - steps * gradient, steps, z)
        with torch.no_grad():
            move = (code - z).flatten(1)
            after, before = problem.smooth_value(code), value.detach()
            quadratic = 0.5 * curvature * move.square().sum(1)
            rounding = slack(after, before)
            model = before + (gradient.flatten(1) * move).sum(1) + quadratic
            accepted = after <= model + rounding
            if bool(accepted.all()):
                break
            curvature = torch.where(accepted, curvature, GROWTH * curvature)
    # a move whose quadratic term drowns in rounding says nothing of the curvature
    return code, torch.where(quadratic > 100 * rounding, DECAY * curvature, curvature)
