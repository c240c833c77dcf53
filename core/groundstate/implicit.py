"""The path of a gradient through the minimiser, by the implicit function theorem."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from groundstate.components import Term
from groundstate.problem import Problem, per_sample


def attach_implicit(problem: Problem, code: Tensor, *, rounds: int = 2000) -> Tensor:
    """The minimiser z* with a backward pass: z* is a fixed point of T(z, W) = prox(z − t∇f(z, W)).

    For an incoming gradient g it solves u = g + (∂T/∂z)ᵀ u by iteration and hands u to ∂T/∂W. On the active
    set this is β = (D_ΛᵀD_Λ + ρI)⁻¹ g of Mairal, Bach & Ponce 2012, for every penalty whose prox autograd can
    differentiate. code: (batch, *code_shape), at the certificate's accuracy.
    """
    if not _depends_on_parameters(problem):
        return code
    bound = problem.lipschitz()
    problem.differentiable = True
    # a step too long for the curvature at the code would make the iteration for u diverge
    curvature = bound.value if bound.certain else 1.1 * _curvature_at(problem, code)
    step = 1.0 / (curvature + problem.curvature())
    with torch.enable_grad():
        at = code.detach().requires_grad_()
        moved = problem.prox(at - step * problem.smooth(at)[1], step, at)
        detached = code.detach()
        attached = problem.prox(detached - step * problem.smooth(detached)[1], step, detached)
    problem.differentiable = False

    # what is left after a small change is the condition number times as much: leave room for it above rounding
    tolerance = torch.finfo(code.dtype).eps ** 0.75

    def solve_adjoint(gradient: Tensor) -> Tensor:
        u = gradient
        for _ in range(rounds):
            (pulled,) = torch.autograd.grad(moved, at, u, retain_graph=True)
            following = gradient + pulled
            change = (following - u).abs().max()
            u = following
            if change <= tolerance * gradient.abs().max():
                break
        return u

    attached.register_hook(solve_adjoint)  # type: ignore[no-untyped-call]
    # the value is the certified code itself; only the gradient comes from the fixed-point map
    return attached + (code - attached).detach()


def _curvature_at(problem: Problem, code: Tensor, rounds: int = 30) -> float:
    """The largest curvature of the smooth part at a code, over the batch, by power iteration on its Hessian."""
    with torch.enable_grad():
        at = code.detach().requires_grad_()
        gradient = problem.smooth(at)[1]
        direction = torch.randn(code.shape, generator=torch.Generator().manual_seed(0)).to(code)
        largest = torch.zeros(())
        for _ in range(rounds if gradient.requires_grad else 0):
            direction = direction / per_sample(direction.flatten(1).norm(dim=1).clamp_min(1e-30), direction)
            (direction,) = torch.autograd.grad(gradient, at, direction, retain_graph=True, materialize_grads=True)
            largest = direction.flatten(1).norm(dim=1).max()
    return max(float(largest.detach()), torch.finfo(torch.float32).tiny)


def _depends_on_parameters(problem: Problem) -> bool:
    parts: list[Term | Any] = [problem.energy.terms[name] for name in problem.weights]
    if problem.energy.decoder is not None:
        parts.append(problem.energy.decoder)
    return any(p.requires_grad for part in parts for p in part.parameters())
