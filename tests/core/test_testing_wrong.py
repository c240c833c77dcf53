"""For each check of the conformance kit a plugin that is wrong in just that way, and is found."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from groundstate import (
    Availability,
    Backend,
    Callback,
    Code,
    Context,
    Data,
    DataInfo,
    Decoder,
    Encoder,
    Reconstruction,
    Regulariser,
    Solved,
    Solver,
    Splits,
    State,
    Task,
    TensorSource,
    hookimpl,
    structure,
)
from groundstate.components import Format, Learner, Plugin, Transform
from groundstate.data import Batch
from groundstate.errors import InputError
from groundstate.formats import Reader, Writer
from groundstate.model import Model
from groundstate.problem import Certificate, Problem, soft_threshold
from groundstate.testing import CHECKS, Examination, examine
from groundstate.testing.reference import solved

WRONG: dict[str, type[Plugin]] = {}


def fails(check: str) -> Any:
    """Register the decorated class as the plugin that a check catches."""

    def made(cls: type[Plugin]) -> type[Plugin]:
        WRONG[check] = cls
        return cls

    return made


# -- every plugin -----------------------------------------------------------------------------------


@fails("contract")
class NoEnergy(Regulariser):
    def value(self, z: Tensor) -> Tensor:
        return z.flatten(1).abs().sum(1)


@fails("constructor")
class Greedy(Regulariser):
    def __init__(self, **fields: Any) -> None:
        super().__init__()

    def energy(self, z: Tensor) -> Tensor:
        return z.flatten(1).abs().sum(1)


@fails("fields-described")
class Silent(Regulariser):
    class Config(Regulariser.Config):
        power: float = 2.0

    def energy(self, z: Tensor) -> Tensor:
        return z.flatten(1).abs().pow(self.config.power).sum(1)


@fails("config-round-trip")
class Radians(Regulariser):
    """Reads degrees, keeps radians: each reading makes the number smaller."""

    class Config(Regulariser.Config):
        angle: float = Field(90.0, description="in degrees", validate_default=True)

        @field_validator("angle")
        @classmethod
        def convert(cls, value: float) -> float:
            return float(np.deg2rad(value))

    def energy(self, z: Tensor) -> Tensor:
        return self.config.angle * z.flatten(1).abs().sum(1)


# -- components -------------------------------------------------------------------------------------


@fails("batch-invariance")
class OverTheBatch(Regulariser):
    """Sums over the batch and gives everyone the sum."""

    def energy(self, z: Tensor) -> Tensor:
        return z.abs().sum().expand(len(z))


@fails("determinism")
class Dice(Regulariser):
    def energy(self, z: Tensor) -> Tensor:
        return (z + 0.1 * torch.randn_like(z)).flatten(1).square().sum(1)


@fails("state-saved")
class Forgetful(Regulariser):
    """Its random weights are an attribute, no parameter or buffer."""

    def build(self, context: Context) -> None:
        self.weights = context.randn(*context.code_shape).abs()

    def energy(self, z: Tensor) -> Tensor:
        return (z.abs() * self.weights.to(z)).flatten(1).sum(1)


@fails("precision-kept")
class Single(Regulariser):
    def energy(self, z: Tensor) -> Tensor:
        return z.flatten(1).float().square().sum(1)


@fails("device-kept")
class AtHome(Regulariser):
    def energy(self, z: Tensor) -> Tensor:
        scale = torch.ones(z.flatten(1).shape[1], dtype=z.dtype)
        return (z.flatten(1).square() * scale).sum(1)


@fails("selection")
class Rigid(Regulariser):
    """A weight per unit that pruning does not know of."""

    def build(self, context: Context) -> None:
        self.declare("weights", torch.ones(context.units))

    def energy(self, z: Tensor) -> Tensor:
        return (z.flatten(1).square() * self.weights).sum(1)


# -- terms ------------------------------------------------------------------------------------------


@fails("energy-per-sample")
class Total(Regulariser):
    def energy(self, z: Tensor) -> Tensor:
        return z.abs().sum()


@fails("gradient-is-the-slope")
class Detached(Regulariser):
    def energy(self, z: Tensor) -> Tensor:
        return z.flatten(1).detach().square().sum(1)


@fails("gradient-at-zero")
class Root(Regulariser):
    def energy(self, z: Tensor) -> Tensor:
        return z.flatten(1).square().sum(1).sqrt()


@fails("closed-gradient")
class Doubled(Regulariser):
    def energy(self, z: Tensor) -> Tensor:
        return 0.5 * z.flatten(1).square().sum(1)

    def gradient(self, z: Tensor) -> Tensor:
        return 2 * z


@fails("claims")
class NoNorm(Regulariser):
    norm = True

    def energy(self, z: Tensor) -> Tensor:
        return z.flatten(1).square().sum(1)


@fails("structure-equals-reference")
class Misdescribed(Regulariser):
    def energy(self, z: Tensor) -> Tensor:
        return 0.5 * z.flatten(1).square().sum(1)

    def structure(self) -> structure.Structure:
        return structure.Ridge(weight=2.0)


@fails("metrics-per-sample")
class MeanMetric(Regulariser):
    def energy(self, z: Tensor) -> Tensor:
        return z.flatten(1).abs().sum(1)

    def metrics(self, z: Tensor) -> Mapping[str, Tensor]:
        return {"density": (z != 0).double().mean()}


@fails("probabilities-of-classes")
class Odds(Task):
    """Gives odds where probabilities are asked for."""

    def build(self, context: Context) -> None:
        self.declare("weight", context.randn(context.classes, context.units))

    def predict(self, z: Tensor) -> Tensor:
        return z.flatten(1) @ self.weight.T

    def probabilities(self, z: Tensor) -> Tensor:
        return self.predict(z).exp()

    def energy(self, z: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(self.predict(z), y, reduction="none")


class Lasso(Regulariser):
    """A right one, to go wrong from."""

    norm = True

    def energy(self, z: Tensor) -> Tensor:
        return z.flatten(1).abs().sum(1)

    def prox(self, v: Tensor, step: float | Tensor) -> Tensor:
        return soft_threshold(v, step)


@fails("prox-is-the-minimiser")
class HalfThreshold(Lasso):
    def prox(self, v: Tensor, step: float | Tensor) -> Tensor:
        return soft_threshold(v, step / 2)


@fails("prox-takes-steps-per-sample")
class OneStep(Lasso):
    def prox(self, v: Tensor, step: float | Tensor) -> Tensor:
        return soft_threshold(v, float(torch.as_tensor(step).mean()))


@fails("prox-is-firmly-non-expansive")
class HardThreshold(Lasso):
    """The prox of the number of active units, which is not convex."""

    def prox(self, v: Tensor, step: float | Tensor) -> Tensor:
        return v * (v.abs() > step)


@fails("prox-never-raises")
class Uncounted(Regulariser):
    """An inhibition that tells no curvature, and majorises with half of what it must."""

    def energy(self, z: Tensor) -> Tensor:
        return z.flatten(1).abs().sum(1) ** 2

    def prox(self, v: Tensor, step: float | Tensor, z: Tensor) -> Tensor:
        total = z.flatten(1).abs().sum(1).view(-1, *[1] * (z.dim() - 1))
        return soft_threshold(v, step * total)


@fails("dual-norm-is-a-bound")
class SmallBound(Lasso):
    def dual_norm(self, c: Tensor) -> Tensor:
        return c.flatten(1).abs().mean(1)


@fails("composition")
class Commutes(Regulariser):
    """L2 norm of the whole code, which claims to come after anything."""

    norm = True

    def energy(self, z: Tensor) -> Tensor:
        return z.flatten(1).norm(dim=1)

    def prox(self, v: Tensor, step: float | Tensor) -> Tensor:
        norm = v.flatten(1).norm(dim=1).view(-1, *[1] * (v.dim() - 1))
        return v * (1 - step / norm.clamp_min(1e-30)).clamp_min(0)

    def prox_after(self, earlier: Any) -> bool:
        return True


# -- encoders and decoders --------------------------------------------------------------------------


class Rectifier(Encoder):
    """A right one, to go wrong from."""

    def build(self, context: Context) -> None:
        self.declare("weights", context.randn(context.inputs, *context.code_shape), unit_dims=(1,))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tensordot(x.flatten(1), self.weights, dims=1).relu()


@fails("codes-have-the-right-shape")
class Echo(Encoder):
    def forward(self, x: Tensor) -> Code:
        return Code(x)


@fails("iterates-end-at-the-code")
class OneStepTooFew(Rectifier):
    def iterates(self, x: Tensor) -> Iterator[Tensor]:
        yield torch.zeros_like(self(x))


class Matrix(Decoder):
    """A right one, to go wrong from."""

    linear = True

    def code_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (7,)

    def build(self, context: Context) -> None:
        self.shape = context.input_shape
        self.declare("dictionary", context.randn(context.inputs, 7), unit_dims=(1,))

    def forward(self, z: Tensor) -> Tensor:
        return (z @ self.dictionary.T).view(len(z), *self.shape)


@fails("gradient-reaches-all")
class Frozen(Matrix):
    def forward(self, z: Tensor) -> Tensor:
        return (z @ self.dictionary.detach().T).view(len(z), *self.shape)


@fails("decoded-has-the-right-shape")
class Flat(Matrix):
    def forward(self, z: Tensor) -> Tensor:
        return torch.cat([z @ self.dictionary.T, z], 1)


@fails("linearity")
class Rectified(Matrix):
    def forward(self, z: Tensor) -> Tensor:
        return torch.relu(super().forward(z))


# -- solvers ----------------------------------------------------------------------------------------


class Plain(Solver[State]):
    """ISTA, right, to go wrong from."""

    def init(self, problem: Problem, start: Tensor) -> State:
        return State(start)

    def step(self, problem: Problem, state: State) -> State:
        step = 1 / (problem.lipschitz().value * self.safety + problem.curvature())
        return State(problem.prox(state.code - step * problem.smooth(state.code)[1], step, state.code))

    safety = 1.0


@fails("energy-falls")
class Overshoots(Plain):
    safety = 0.2


@fails("certificate-reaches-tolerance")
class StopsEarly(Plain):
    def step(self, problem: Problem, state: State) -> State:
        return State(0.5 * (super().step(problem, state).code + 0.9 * state.code))


@fails("solved-alone-or-together")
class Together(Plain):
    """Every sample moves towards the batch's mean code."""

    def step(self, problem: Problem, state: State) -> State:
        code = super().step(problem, state).code
        return State(0.9 * code + 0.1 * code.mean(0))


@dataclass
class Counted(State):
    history: Tensor


@fails("state-can-be-selected")
class NotBatchFirst(Plain):
    def init(self, problem: Problem, start: Tensor) -> Counted:
        return Counted(start, start.new_zeros(100))

    def step(self, problem: Problem, state: Any) -> Counted:
        return Counted(super().step(problem, state).code, state.history)


@fails("solver-is-deterministic")
class Shaken(Plain):
    def step(self, problem: Problem, state: State) -> State:
        code = super().step(problem, state).code
        return State(code + 1e-3 * torch.randn_like(code))


@fails("solver-keeps-precision")
class Widens(Plain):
    def step(self, problem: Problem, state: State) -> State:
        return State(state.code.double())


@fails("gradient-through-the-code")
class Cut(Plain):
    def step(self, problem: Problem, state: State) -> State:
        return State(super().step(problem, State(state.code.detach())).code)


# -- backends ---------------------------------------------------------------------------------------


class Here(Backend):
    """A right one, to go wrong from."""

    @classmethod
    def available(cls) -> Availability:
        return Availability(True, "the processor")

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")


@fails("availability")
class NoReason(Here):
    @classmethod
    def available(cls) -> Availability:
        return Availability(True, "")


@fails("prepare-moves")
class LeavesAsIs(Here):
    def prepare(self, module: nn.Module) -> nn.Module:
        return module


def is_lasso(form: structure.ProblemStructure) -> bool:
    return all(type(part) is structure.L1 and not part.non_negative for part in form.penalties)


@fails("processes")
class LosesRows(Here):
    def shard(self, rows: Tensor) -> Tensor:
        return rows[1:]


@fails("kernel-equals-reference")
class HalfWeight(Here):
    """Solves the problem with half of the penalty."""

    def kernel(self, form: structure.ProblemStructure) -> Any:
        if not is_lasso(form):
            return None

        def solve(problem: Problem, start: Tensor, config: Any) -> Solved:
            step, z = 1 / problem.lipschitz().value, start
            for _ in range(2000):
                z = soft_threshold(z - step * problem.smooth(z)[1], step * 0.5 * form.penalties[0].weight)
            return Solved(z, torch.full((len(z),), 2000))

        return solve


@fails("kernel-equals-reference")
class GivesPairs(Here):
    def kernel(self, form: structure.ProblemStructure) -> Any:
        return (lambda problem, start, config: (start, start)) if is_lasso(form) else None


@fails("kernel-equals-reference")
class FlattersItself(Here):
    """Certifies codes that it did not look at."""

    def kernel(self, form: structure.ProblemStructure) -> Any:
        if not is_lasso(form):
            return None

        def solve(problem: Problem, start: Tensor, config: Any) -> Solved:
            code = solved(problem)
            reached = Certificate("gap", *problem.certificate(code + 0.1).__dict__.values())
            return Solved(code, torch.ones(len(code)), reached)

        return solve


@fails("kernel-batch-invariance")
class MixesSamples(Here):
    def kernel(self, form: structure.ProblemStructure) -> Any:
        if not is_lasso(form):
            return None

        def solve(problem: Problem, start: Tensor, config: Any) -> Solved:
            return Solved(problem.batch.x[:, :1].mean().expand_as(start), torch.ones(len(start)))

        return solve


@fails("unknown-structures-are-left-alone")
class TakesAll(Here):
    def kernel(self, form: structure.ProblemStructure) -> Any:
        return lambda problem, start, config: Solved(start, torch.zeros(len(start)))


# -- data -------------------------------------------------------------------------------------------


class Two(Data):
    """A right one, to go wrong from."""

    classes: ClassVar[int | None] = 2

    def describe(self) -> DataInfo:
        return DataInfo((3,), ("x", "y"), {"train": 20, "test": 10}, 2)

    def inputs(self, seed: int) -> Tensor:
        return torch.randn(30, 3, generator=torch.Generator().manual_seed(seed))

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x[:20], x[20:]

    def load(self, seed: int) -> Splits:
        x = self.inputs(seed)
        train, test = (TensorSource(x=part, y=self.labels(len(part))) for part in self.parts(x))
        return Splits(train, None, test, str(float(x.sum())), 2)

    def labels(self, count: int) -> Tensor:
        return torch.arange(count) % 2


@fails("describe-matches-load")
class Boasts(Two):
    def describe(self) -> DataInfo:
        return DataInfo((3,), ("x", "y"), {"train": 2000, "test": 10}, 2)


@fails("samples-are-usable")
class Holes(Two):
    def inputs(self, seed: int) -> Tensor:
        x = super().inputs(seed)
        x[4, 1] = torch.nan
        return x


@fails("labels-are-in-range")
class FromOne(Two):
    def labels(self, count: int) -> Tensor:
        return 1 + torch.arange(count) % 2


@fails("loading-is-deterministic")
class Unseeded(Two):
    drawn: ClassVar[list[int]] = []

    def inputs(self, seed: int) -> Tensor:
        self.drawn.append(seed)
        return super().inputs(len(self.drawn))


@fails("splits-are-disjoint")
class Overlap(Two):
    def parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x[:20], x[:10]


# -- callbacks --------------------------------------------------------------------------------------


@fails("follows-a-run")
class Trips(Callback):
    @hookimpl
    def epoch_done(self, step: int) -> None:
        raise ZeroDivisionError("an average over nothing")


@fails("bears-a-failure")
class Assumes(Callback):
    """Takes it that steps were made when a run fails."""

    @hookimpl
    def run_started(self) -> None:
        self.file = None

    @hookimpl
    def run_failed(self) -> None:
        self.file.close()


@fails("gives-what-is-asked")
class Words(Callback):
    @hookimpl
    def report_sections(self) -> list[str]:
        return ["<p>a picture</p>"]


# -- transforms, learners and formats ---------------------------------------------------------------


@fails("transformed-has-the-right-shape")
class Halved(Transform):
    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape

    def forward(self, x: Tensor) -> Tensor:
        return x[:, ::2]


class OwnRule(Learner):
    """A right one, to go wrong from: takes the dictionary and moves it down its own gradient."""

    def build(self, model: Model) -> Collection[str]:
        self.model = model
        return ("decoder.matrix",)

    @property
    def matrix(self) -> Tensor:
        return self.model.decoder.get_parameter("matrix").data

    def update(self, batch: Batch, code: Tensor, weights: Mapping[str, float], generator: Any) -> None:
        step = (batch.x - code @ self.matrix.T).T @ code / len(code)
        self.matrix.add_(0.1 * step)
        self.matrix.div_(self.matrix.norm(dim=0).clamp_min(1))


@fails("takes-what-is-there")
class TakesMore(OwnRule):
    def build(self, model: Model) -> Collection[str]:
        return (*super().build(model), "decoder.bias")


@fails("learning-lowers-the-energy")
class Idle(OwnRule):
    def update(self, batch: Batch, code: Tensor, weights: Mapping[str, float], generator: Any) -> None:
        pass


@fails("frozen-parameters-stay")
class Meddles(OwnRule):
    def update(self, batch: Batch, code: Tensor, weights: Mapping[str, float], generator: Any) -> None:
        super().update(batch, code, weights, generator)
        if self.model.encoder is not None:
            self.model.encoder.get_parameter("matrix").data.mul_(0.99)


@fails("learning-resumes-exactly")
class Forgets(OwnRule):
    batches = 0

    def update(self, batch: Batch, code: Tensor, weights: Mapping[str, float], generator: Any) -> None:
        super().update(batch, code, weights, generator)
        self.batches += 1
        self.matrix.mul_(1 - 1e-3 * self.batches)


@fails("goes-on-after-pruning")
class CountsUnits(OwnRule):
    def build(self, model: Model) -> Collection[str]:
        taken = super().build(model)
        self.decay = torch.full((self.matrix.shape[1],), 0.999)
        return taken

    def update(self, batch: Batch, code: Tensor, weights: Mapping[str, float], generator: Any) -> None:
        super().update(batch, code, weights, generator)
        self.matrix.mul_(self.decay)


class Rows(Reader, Writer):
    """A right one, to go wrong from: the .npy form, whole in memory."""

    def __init__(self, path: Path, values: Any) -> None:
        self.path, self.parts, self.values = path, [], values
        self.shape = values.shape[1:]

    def __len__(self) -> int:
        return len(self.values)

    def read(self, first: int, last: int) -> Any:
        return self.values[first:last]

    def append(self, codes: Any) -> None:
        self.parts.append(codes)

    def close(self) -> None:
        if self.parts:
            with self.path.open("wb") as file:
                np.save(file, np.concatenate(self.parts))


class Plainly(Format):
    """A right one, to go wrong from."""

    suffixes = (".rows",)

    def create(self, path: Path, shape: tuple[int, ...], dtype: Any) -> Rows:
        return Rows(path, np.empty((0, *shape[1:]), dtype))

    def open(self, path: Path) -> Rows:
        try:
            return Rows(path, np.load(path))
        except (ValueError, EOFError, OSError) as error:
            raise InputError(f"{path} is no .npy file: {error}") from error


@fails("round-trip")
class Rounds(Plainly):
    def open(self, path: Path) -> Rows:
        rows = super().open(path)
        return Rows(path, rows.values.astype("float16"))


@fails("reads-in-pieces")
class OnlyForward(Plainly):
    class Tape(Rows):
        at = 0

        def read(self, first: int, last: int) -> Any:
            self.at += last - first
            return self.values[self.at - (last - first) : self.at]

    def open(self, path: Path) -> Rows:
        return self.Tape(path, super().open(path).values)


@fails("refuses-other-files")
class TakesAnything(Plainly):
    def open(self, path: Path) -> Rows:
        try:
            return super().open(path)
        except InputError:
            return Rows(path, np.zeros((1, 1), "float32"))


# -- tests ------------------------------------------------------------------------------------------


def test_there_is_a_wrong_plugin_for_each_check() -> None:
    assert set(WRONG) == set(CHECKS)


@pytest.mark.parametrize("name", CHECKS)
def test_a_check_catches_the_plugin_that_is_wrong_in_its_way(name: str) -> None:
    cls = WRONG[name]
    result = Examination(cls, cls.kind, "wrong").run(CHECKS[name])
    assert result.status == "failed", result
    assert result.message
    assert result.shown


@pytest.mark.parametrize(
    "right", [Lasso, Rectifier, Matrix, Plain, Here, Two, OwnRule, Plainly], ids=lambda cls: cls.__name__
)
def test_what_the_wrong_ones_start_from_is_right(right: type[Plugin]) -> None:
    assert [str(result) for result in examine(right) if result.status == "failed"] == []


def test_a_reconstruction_is_tried_on_images_too() -> None:
    class FlatOnly(Reconstruction):
        def energy(self, x: Tensor, decoded: Tensor) -> Tensor:
            return (x - decoded).square().sum(1)

    found = {result.check.name: result for result in examine(FlatOnly)}
    assert "(2, 8, 8)" in found["energy-per-sample"].shown
