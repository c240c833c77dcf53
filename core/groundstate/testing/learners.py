"""Checks of learners: on a small model they lower the energy, keep constraints, resume exactly and prune."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from groundstate.api import SquaredDistance
from groundstate.components import Context, Decoder, Encoder, Learner, Regulariser, Solver, State
from groundstate.data import Batch
from groundstate.learning import Learning
from groundstate.model import Model
from groundstate.parameters import NormBound
from groundstate.problem import Problem, soft_threshold
from groundstate.structure import L1, LinearMap
from groundstate.testing.results import Broken, check
from groundstate.testing.subject import Subject, generator, make

INPUTS, UNITS, SAMPLES, BATCH, STEPS = 16, 24, 400, 50, 32


class Dictionary(Decoder):
    """Columns of norm at most 1."""

    linear = True
    matrix: Tensor

    def code_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (UNITS,)

    def build(self, context: Context) -> None:
        columns = context.randn(context.inputs, context.units)
        self.declare("matrix", columns / columns.norm(dim=0), constraint=NormBound((0,)), unit_dims=(1,))

    def forward(self, z: Tensor) -> Tensor:
        return z @ self.matrix.T

    def structure(self) -> LinearMap:
        return LinearMap(matrix=self.matrix)


class Rectified(Encoder):
    """One matrix and a rectifier; learns by the distance of its prediction from the code."""

    matrix: Tensor

    def build(self, context: Context) -> None:
        self.declare("matrix", 0.1 * context.randn(context.units, context.inputs), unit_dims=(0,))

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.matrix.T).relu()


class Prediction(Regulariser):
    """½‖z − prediction‖², in learning only."""

    class Config(Regulariser.Config):
        acts: Any = Field("learning", description="where the term acts")

    def energy(self, z: Tensor, prediction: Tensor) -> Tensor:
        return 0.5 * (z.detach() - prediction).square().sum(1)


class Sparsity(Regulariser):
    """‖z‖₁."""

    norm = True

    def energy(self, z: Tensor) -> Tensor:
        return z.abs().sum(1)

    def prox(self, v: Tensor, step: float) -> Tensor:
        return soft_threshold(v, step)

    def structure(self) -> L1:
        return L1()


class Shrinking(Solver[State]):
    """Proximal gradient descent."""

    class Config(Solver.Config):
        max_iterations: int = Field(60, ge=0, description="stop here at the latest")

    def init(self, problem: Problem, start: Tensor) -> State:
        return State(start)

    def step(self, problem: Problem, state: State) -> State:
        step = 1 / problem.lipschitz().value
        return State(problem.prox(state.code - step * problem.gradient(state.code), step, state.code))


class LearnerCase:
    """A learner and a small sparse-coding model, with and without an encoder beside it."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        truth = torch.randn(INPUTS, UNITS, generator=generator(1))
        codes = torch.randn(SAMPLES, UNITS, generator=generator(2))
        codes *= torch.rand(SAMPLES, UNITS, generator=generator(3)) < 0.15
        self.x = codes @ (truth / truth.norm(dim=0)).T

    def __str__(self) -> str:
        return str(self.subject)

    def learning(self, *, encoder: bool = True) -> Learning:
        """A new model about to learn."""
        learner: Learner = make(self.subject)
        terms = {"reconstruction": SquaredDistance(), "sparsity": Sparsity(weight=0.1)}
        if encoder:
            terms["prediction"] = Prediction()
        model = Model(
            terms=terms, encoder=Rectified() if encoder else None, decoder=Dictionary(), solver=Shrinking()
        ).build((INPUTS,), seed=5)
        return Learning(model, learner)

    def train(self, learning: Learning, steps: range) -> None:
        for step in steps:
            rows = torch.arange(step * BATCH, (step + 1) * BATCH) % SAMPLES
            learning.step(Batch({"x": self.x[rows]}), rate=learning.rate(0), generator=generator(100 + step))

    def energy(self, learning: Learning) -> float:
        """Of the optimised codes, without the prediction."""
        found = learning.model.infer(self.x, certify=True)
        assert found.energy is not None
        return float(found.energy.mean())


@check("learner", says="it takes parameters that the model has")
def takes_what_is_there(case: LearnerCase) -> None:
    for encoder in (False, True):
        learning = case.learning(encoder=encoder)
        unknown = learning.taken - {item.name for item in learning.learned}
        if unknown:
            raise Broken(
                f"it takes {', '.join(sorted(unknown))}, which the model has not",
                shown=f"a model with {', '.join(item.name for item in learning.learned)}",
                advice="build gives names as in the model's state_dict, e.g. model.dictionary",
            )


@check("learner", says="the energy of the inferred codes falls, and every parameter stays finite and in its constraint")
def learning_lowers_the_energy(case: LearnerCase) -> None:
    for encoder in (False, True):
        learning = case.learning(encoder=encoder)
        before = case.energy(learning)
        case.train(learning, range(STEPS))
        after = case.energy(learning)
        if not after < before:
            raise Broken(f"the energy goes from {before:.4g} to {after:.4g}", shown=f"{STEPS} batches of {BATCH}")
        for item in learning.learned:
            if not bool(torch.isfinite(item.parameter).all()):
                raise Broken(f"{item.name} holds NaN or infinity", shown=f"after {STEPS} batches")
            if item.spec.constraint is not None and item.spec.constraint.violation(item.parameter.detach()) > 1e-5:
                raise Broken(
                    f"{item.name} leaves its constraint",
                    shown=f"after {STEPS} batches",
                    advice="end update with the constraint's project_",
                )


@check("learner", says="a frozen parameter stays as it is")
def frozen_parameters_stay(case: LearnerCase) -> None:
    learning = case.learning()
    for item in learning.learned:
        learning.start_phase(learning.phase.model_copy(update={"freeze": [item.name]}))
        before = item.parameter.detach().clone()
        case.train(learning, range(2))
        if not torch.equal(before, item.parameter.detach()):
            raise Broken(f"{item.name} moves in a phase that freezes it", advice="move what was taken, nothing else")


@check("learner", says="state and load_state resume bit for bit")
def learning_resumes_exactly(case: LearnerCase) -> None:
    whole = case.learning()
    case.train(whole, range(6))
    half = case.learning()
    case.train(half, range(3))
    again = case.learning()
    again.model.load_state_dict(half.model.state_dict())
    again.load_state({name: value.clone() for name, value in half.state().items()})
    case.train(again, range(3, 6))
    for name, value in whole.model.state_dict().items():
        if not torch.equal(value, again.model.state_dict()[name]):
            raise Broken(
                f"{name} differs after a resume in the middle",
                shown="3 batches, state, load_state, 3 batches",
                advice="state must give all that update keeps; draw from the generator that update is given alone",
            )


@check("learner", says="after pruning it goes on with the units that are left")
def goes_on_after_pruning(case: LearnerCase) -> None:
    learning = case.learning()
    case.train(learning, range(3))
    units = torch.arange(0, UNITS, 2)
    learning.select(units)
    case.train(learning, range(3, 6))
    if learning.model.shapes.code_shape != (len(units),):
        raise Broken(f"codes have shape {learning.model.shapes.code_shape} after pruning to {len(units)} units")
