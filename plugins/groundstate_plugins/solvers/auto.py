"""The solver that suits the problem."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from groundstate.components import Solver, State
from groundstate.problem import Problem
from groundstate.structure import Cardinality, Inhibition
from groundstate_plugins.solvers.coordinate_descent import CoordinateDescent
from groundstate_plugins.solvers.fista import Fista
from groundstate_plugins.solvers.matching_pursuit import MatchingPursuit


class Auto(Solver[State]):
    """Greedy coordinate descent where units inhibit each other, matching pursuit where entries are counted, FISTA else.

    Inhibition is not convex: greedy coordinate descent from zeros ends as low as FISTA there, whose steps inhibition
    makes short, in a fraction of the time. Where the backend has a kernel for the problem, that runs instead.
    """

    any_minimiser = True

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        shared = self.config.model_dump()
        self._fista = Fista(**shared)
        # moves in place cannot be unrolled, so an unrolled solver is FISTA throughout
        unrolled = self.config.differentiate == "unroll"
        self._greedy = CoordinateDescent(**shared) if not unrolled else None
        self._pursuit = MatchingPursuit(**shared) if self.config.differentiate == "none" else None

    def choose(self, problem: Problem) -> Solver[Any]:
        """The solver that takes this problem; always the same for the same terms."""
        form = problem.structure
        kinds = {type(part) for part in form.penalties} if form is not None else set()
        if Cardinality in kinds and self._pursuit is not None and self._pursuit.refuses(problem) is None:
            return self._pursuit
        if Inhibition in kinds and self._greedy is not None and self._greedy.refuses(problem) is None:
            return self._greedy
        return self._fista

    def init(self, problem: Problem, start: Tensor) -> State:
        state: State = self.choose(problem).init(problem, start)
        return state

    def step(self, problem: Problem, state: State) -> State:
        following: State = self.choose(problem).step(problem, state)
        return following
