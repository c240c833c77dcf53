"""The encoder's prediction, improved by a few iterations."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field
from torch import Tensor

from groundstate.components import Solver
from groundstate.problem import Problem
from groundstate_plugins.solvers.fista import Fista, FistaState


class Hybrid(Solver[FistaState]):
    """The encoder's code, then at most ``max_iterations`` of FISTA.

    With a code-prediction term in the energy the encoder learns to predict where these end
    (Kavukcuoglu, Ranzato & LeCun 2008).
    """

    class Config(Solver.Config):
        max_iterations: int = Field(10, ge=1, description="FISTA iterations after the prediction, at most")
        start: Literal["encoder"] = Field("encoder", description="the encoder's prediction")

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        self._iterations = Fista(**self.config.model_dump())

    def init(self, problem: Problem, start: Tensor) -> FistaState:
        return self._iterations.init(problem, start)

    def step(self, problem: Problem, state: FistaState) -> FistaState:
        return self._iterations.step(problem, state)
