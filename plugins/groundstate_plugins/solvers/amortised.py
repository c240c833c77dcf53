"""No iterations: the encoder's output is the code."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from groundstate.components import Solver, State
from groundstate.problem import Problem


class Amortised(Solver[State]):
    """z = encoder(x), one feed-forward pass; learning back-propagates through the encoder."""

    class Config(Solver.Config):
        max_iterations: Literal[0] = Field(0, description="none: the encoder's code is final")
        start: Literal["encoder"] = Field("encoder", description="the encoder's prediction")
        differentiate: Literal["none"] = Field(
            "none", description="nothing to choose: the code is the encoder's own output, gradient included"
        )

    def init(self, problem: Problem, start: Tensor) -> State:
        return State(start)

    def step(self, problem: Problem, state: State) -> State:
        """The state as it is: there is nothing to improve."""
        return state
