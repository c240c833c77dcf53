"""Proximal gradient descent."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from groundstate.components import Solver, State
from groundstate.problem import Problem
from groundstate.proximal import proximal_step


@dataclass
class IstaState(State):
    """curvature: (batch,) estimates of the Lipschitz constant, where none is proven."""

    curvature: Tensor


class Ista(Solver[IstaState]):
    """z ← prox(z − ∇f(z)/L): slow and sure (Daubechies, Defrise & De Mol 2004).

    The step is 1/L where L is proven, else found for each sample by backtracking; the energy never rises.
    """

    def init(self, problem: Problem, start: Tensor) -> IstaState:
        return IstaState(start, start.new_full((len(start),), problem.lipschitz().value))

    def step(self, problem: Problem, state: IstaState) -> IstaState:
        code, curvature = proximal_step(problem, state.code, problem.residual(state.code), state.curvature)
        return IstaState(code, curvature)
