"""Checks of callbacks and trackers: a short real run, from its start to its end, and one that fails."""

from __future__ import annotations

import contextlib
import io
import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from groundstate.components import Context, Data, Encoder, Regulariser, Solver, State
from groundstate.config import load_config
from groundstate.data import DataInfo, Splits, TensorSource, fingerprint
from groundstate.errors import InputError
from groundstate.hooks import Section
from groundstate.problem import Problem
from groundstate.run import Run
from groundstate.testing.results import Broken, NotApplicable, check
from groundstate.testing.subject import Subject, generator, make

REGISTRY = Path(__file__).with_name("registry.toml")
TABLES: dict[str, Any] = {
    "plugins": [str(REGISTRY)],
    "name": "conformance",
    "tracking": False,
    "data": {"type": "kit-samples"},
    "model": {"encoder": {"type": "kit-encoder"}},
    "energy": {"sparsity": {"type": "kit-regulariser"}},
    "inference": {"type": "kit-solver"},
    "learning": {"batch_size": 8, "log_every": 1},
    "phases": {"first": {"epochs": 1}, "second": {"epochs": 2}},
}


class Samples(Data):
    """24 made-up samples with labels."""

    def describe(self) -> DataInfo:
        return DataInfo((6,), ("x", "y"), {"train": 16, "validation": 4, "test": 4}, 2)

    def load(self, seed: int) -> Splits:
        x = torch.randn(24, 6, generator=generator(seed))
        y = torch.arange(24) % 2
        parts = [TensorSource(x=x[rows], y=y[rows]) for rows in (slice(16), slice(16, 20), slice(20, 24))]
        return Splits(parts[0], parts[1], parts[2], fingerprint(x), 2, (2, 3))


class Scale(Encoder):
    """x times one factor per entry."""

    factor: Tensor

    def code_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return input_shape

    def build(self, context: Context) -> None:
        self.declare("factor", torch.ones(context.inputs), unit_dims=(0,))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class Direct(Solver[State]):
    """The encoder's code."""

    class Config(Solver.Config):
        max_iterations: int = 0
        start: Any = "encoder"

    def init(self, problem: Problem, start: Tensor) -> State:
        return State(start)

    def step(self, problem: Problem, state: State) -> State:
        return state


class Size(Regulariser):
    """Σ|z|."""

    def energy(self, z: Tensor) -> Tensor:
        return z.flatten(1).abs().sum(1)


class CallbackCase:
    """A callback or tracker, put beside a run."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject

    def __str__(self) -> str:
        return str(self.subject)

    @contextlib.contextmanager
    def run(self) -> Iterator[Run]:
        """A run of a few steps in a folder of its own, with the callback registered; nothing is printed."""
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            before = Path.cwd()
            os.chdir(folder)
            try:
                with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                    loaded = load_config({**TABLES, "callbacks": self._no_others()})
                    run = Run(loaded, Path(folder, "runs", "conformance-run"))
                    run.plugins.register(make(self.subject))
                    yield run
            finally:
                os.chdir(before)

    @staticmethod
    def _no_others() -> dict[str, bool]:
        from groundstate.registry import Registry

        return {entry.name: False for entry in Registry.discover().defaults("callback")}


@check(
    "callback", "tracker", says="it follows a run from start to end, also one that is resumed, and changes no figure"
)
def follows_a_run(case: CallbackCase) -> None:
    with case.run() as run:
        run.start()
        run.execute()
        if run.record["status"] != "finished":
            raise Broken(f"the run's status is {run.record['status']}")
        figures = {name: value for name, value in run.metrics.items() if not math.isfinite(value)}
        if figures:
            raise Broken(f"metrics that are no numbers: {figures}", advice="give finite figures, or none")


@check("callback", "tracker", says="it bears the failure of a run that it follows")
def bears_a_failure(case: CallbackCase) -> None:
    with case.run() as run:
        run.start()
        run.hook.run_started(run=run, resumed=False)
        run.hook.phase_started(run=run, phase="first")
        run.hook.run_failed(run=run, error=RuntimeError("made up"))
    with case.run() as run:
        run.start()
        run.hook.run_failed(run=run, error=KeyboardInterrupt())


@check("callback", "tracker", says="what its hooks give back has the form that the run uses")
def gives_what_is_asked(case: CallbackCase) -> None:
    callback = make(case.subject)
    asked = {"extra_metrics", "final_metrics", "report_sections", "should_stop"} & set(dir(callback))
    if not asked:
        raise NotApplicable("it gives nothing back to the run")
    with case.run() as run:
        run.start()
        run.hook.run_started(run=run, resumed=False)
        for _ in run.steps():
            pass
        for one in run.hook.report_sections(run=run):
            if not isinstance(one, Sequence) or not all(isinstance(section, Section) for section in one):
                raise Broken(f"report_sections gives {one!r}", advice="return a list of groundstate.hooks.Section")
        for one in run.hook.final_metrics(run=run):
            if not isinstance(one, Mapping) or not all(isinstance(value, int | float) for value in one.values()):
                raise Broken(f"final_metrics gives {one!r}", advice="return {name: number}")
        batch = run.splits.train.read(torch.arange(4))
        solution = run.model.infer_batch(batch)
        for one in run.hook.extra_metrics(run=run, batch=batch, solution=solution):
            if not all(isinstance(value, Tensor) and value.shape == (4,) for value in one.values()):
                raise Broken(f"extra_metrics gives {one!r}", advice="return {name: tensor of shape (batch,)}")
        reason = run.hook.should_stop(run=run, step=1, metrics=dict(run.metrics))
        if reason is not None and not (isinstance(reason, str) and reason):
            raise Broken(f"should_stop gives {reason!r}", advice="return a reason in words, or None")
        with contextlib.suppress(InputError):
            run.hook.run_failed(run=run, error=RuntimeError("made up"))
