"""Accelerated proximal gradient descent that never raises the energy."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from groundstate.components import Solver, State
from groundstate.problem import Problem, per_sample
from groundstate.proximal import proximal_step, slack


@dataclass
class FistaState(State):
    """Two codes with their residuals, and per sample (batch,):

    momentum: the sequence t of Beck & Teboulle, 1 at a (re)start. energy: of ``code``.
    scale: size of the energy's summands. curvature: estimates of L, where none is proven.
    """

    previous: Tensor
    residual: Tensor
    residual_previous: Tensor
    momentum: Tensor
    energy: Tensor
    scale: Tensor
    curvature: Tensor


class Fista(Solver[FistaState]):
    """FISTA (Beck & Teboulle 2009), monotone by restart, each sample for itself.

    The momentum starts anew where it points uphill (gradient restart of O'Donoghue & Candès 2015). A candidate that
    would raise the sample's energy is dropped: its next iteration is a plain ISTA step from the last code. The
    step is 1/L where L is proven, else found by backtracking.
    """

    def init(self, problem: Problem, start: Tensor) -> FistaState:
        residual = problem.residual(start)
        ones = start.new_ones(len(start))
        return FistaState(
            code=start,
            previous=start,
            residual=residual,
            residual_previous=residual,
            momentum=ones,
            energy=problem.value(start, residual).detach(),
            scale=problem.value(problem.zeros()).detach(),
            curvature=ones * problem.lipschitz().value,
        )

    def step(self, problem: Problem, state: FistaState) -> FistaState:
        following = 0.5 * (1 + (1 + 4 * state.momentum.square()).sqrt())
        beyond = (1 - state.momentum) / following
        ahead = torch.lerp(state.code, state.previous, per_sample(beyond, state.code))
        residual = torch.lerp(state.residual, state.residual_previous, per_sample(beyond, state.residual))
        code, curvature = proximal_step(problem, ahead, residual, state.curvature)
        residual = problem.residual(code)
        with torch.no_grad():
            energy = problem.value(code, residual)
            # without momentum the step is proven to descend: what it seems to raise is rounding
            rise = ~(energy <= state.energy + slack(energy, state.scale)) & (beyond < 0)
            # ⟨ahead − code, code − last⟩ in one buffer: such passes over memory bind the iteration
            back = torch.sub(ahead, code, out=None if problem.differentiable else ahead)
            uphill = back.mul_(code - state.code).flatten(1).sum(1) > 0
        if bool(rise.any()):
            code = torch.where(per_sample(rise, code), state.code, code)
            residual = torch.where(per_sample(rise, residual), state.residual, residual)
            energy = torch.where(rise, state.energy, energy)
        return FistaState(
            code=code,
            previous=state.code,
            residual=residual,
            residual_previous=state.residual,
            momentum=torch.where(rise | uphill, 1.0, following),
            energy=energy,
            scale=state.scale,
            curvature=curvature,
        )
