"""How a run is getting on: a bar on a terminal, plain lines in a log; both on stderr."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import Field
from rich import progress as rich_progress
from rich.console import Console

from groundstate.components import Callback
from groundstate.errors import relative
from groundstate.hooks import hookimpl

if TYPE_CHECKING:
    from groundstate.run import Run

REDRAW_SECONDS = 0.1
"""A bar moves at most this often: a step costs one look at the clock."""


class Progress(Callback):
    """Phase, epoch, energy, speed and time left, as often as a person can read them."""

    class Config(Callback.Config):
        seconds: float = Field(10.0, gt=0, description="between two lines where there is no terminal to draw on")

    def __init__(self, **fields: float) -> None:
        super().__init__(**fields)
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bar: rich_progress.Progress | None = None
        self._task = rich_progress.TaskID(0)
        self._interval = self.config.seconds
        self._due = 0.0
        self._began = 0.0
        self._first = 0  # the step this process began at
        self._phases: dict[str, tuple[int, int]] = {}  # by phase: the step it starts after, its epochs
        self._verdict = ""

    @hookimpl
    def run_started(self, run: Run, resumed: bool) -> None:
        self._began, self._first = time.monotonic(), run.step
        begins = 0
        for name, phase in run.phases:
            self._phases[name] = (begins, phase.epochs)
            begins += phase.epochs * run.steps_in_epoch
        verb = "resuming" if resumed else "training"
        self._say(f"{verb} {run.id}: {_count(run.steps_in_all)} steps, {_count(len(run.splits.train))} samples")
        # Not Console.is_terminal: FORCE_COLOR makes that true of a log file.
        if self._console.file.isatty() and not self._console.is_dumb_terminal:
            self._interval = REDRAW_SECONDS
            self._start_bar(run)

    def _start_bar(self, run: Run) -> None:
        columns = (
            rich_progress.TextColumn("{task.description}", markup=False),
            rich_progress.BarColumn(),
            rich_progress.TextColumn("{task.percentage:>3.0f} %"),
            rich_progress.TextColumn("{task.fields[figures]}", markup=False),
        )
        self._bar = rich_progress.Progress(*columns, console=self._console, transient=True)
        self._task = self._bar.add_task("starting", total=run.steps_in_all, completed=run.step, figures="")
        self._bar.start()

    @hookimpl
    def phase_started(self, run: Run, phase: str) -> None:
        self._verdict = ""
        self._phases[phase] = (run.step, self._phases[phase][1])  # where it was planned, unless one stopped early
        self._due = 0.0  # a phase's first figures are shown at once

    @hookimpl
    def step_done(self, run: Run, step: int, metrics: Mapping[str, float]) -> None:
        now = time.monotonic()
        if now >= self._due:
            self._due = now + self._interval
            self._show(run, step, metrics, now)

    def _show(self, run: Run, step: int, metrics: Mapping[str, float], now: float) -> None:
        figures = [f"energy {metrics['energy']:.4g}", f"{_count(round(metrics['samples_per_second']))} samples/s"]
        if self._verdict:
            figures.append(self._verdict)
        done = step - self._first
        if done:
            figures.append(f"{duration((now - self._began) / done * (run.steps_in_all - step))} left")
        begins, epochs = self._phases[run.phase]
        epoch = min((step - 1 - begins) // run.steps_in_epoch + 1, epochs)
        place = f"{run.phase}, epoch {epoch}/{epochs}"
        if self._bar is not None:
            self._bar.update(self._task, completed=step, description=place, figures=" · ".join(figures))
        else:
            self._say(f"{place}, step {_count(step)}/{_count(run.steps_in_all)}: {' · '.join(figures)}")

    @hookimpl
    def epoch_done(self, run: Run, step: int, metrics: Mapping[str, float]) -> None:
        name = run.config.learning.monitor or "validation/energy"
        if name in metrics:
            self._verdict = f"{name} {metrics[name]:.4g}"
        if step >= run.steps_in_all:
            self._say_last(run)

    def _say_last(self, run: Run) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=run.step, description="evaluating, writing the report", figures="")
        else:
            self._say("trained; evaluating, writing the report")

    @hookimpl
    def run_failed(self, error: BaseException) -> None:
        self._stop_bar()

    @hookimpl(trylast=True)
    def run_ended(self, run: Run) -> None:
        self._stop_bar()
        self._say(f"finished in {duration(run.position.seconds)}")
        self._say(f"run:    {relative(run.folder)}")
        self._say(f"report: {relative(run.folder / 'report.html')}")

    def _stop_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _say(self, text: str) -> None:
        # Not markup: names and paths may hold square brackets.
        self._console.print(text, markup=False)


def duration(seconds: float) -> str:
    """Seconds as a person reads them: 45 s, 3:05 min, 2:03 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"


def _count(number: int) -> str:
    return f"{number:,}"
