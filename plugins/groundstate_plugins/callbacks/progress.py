"""How a run is getting on: a live view on a terminal, plain lines in a log; both on stderr."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import Field
from rich import progress as rich_progress
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from groundstate.components import Callback
from groundstate.errors import relative
from groundstate.hooks import hookimpl

if TYPE_CHECKING:
    from groundstate.run import Run

REDRAW_SECONDS = 0.1
"""The view takes figures at most this often: a step costs one look at the clock."""
TREND = 32
"""Characters of a trend line."""
BLOCKS = "▁▂▃▄▅▆▇█"
PHASES = 5
"""So many phases have a bar of their own; of more, only the present one."""


class Progress(Callback):
    """Phases, energy of each term with its trend, speed and time left, as often as a person can read them."""

    class Config(Callback.Config):
        seconds: float = Field(10.0, gt=0, description="between two lines where there is no terminal to draw on")

    def __init__(self, **fields: float) -> None:
        super().__init__(**fields)
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._view: View | None = None
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
        for name, phase, steps in run.schedule:
            self._phases[name] = (begins, phase.epochs)
            begins += phase.epochs * steps
        verb = "resuming" if resumed else "training"
        self._say(f"{verb} {run.id}: {_count(run.steps_in_all)} steps, {_count(len(run.inputs.train))} samples")
        # Not Console.is_terminal: FORCE_COLOR makes that true of a log file.
        if self._console.file.isatty() and not self._console.is_dumb_terminal:
            self._interval = REDRAW_SECONDS
            self._view = View(self._console, run)

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
            if self._view is not None:
                self._view.show(run, step, metrics, self._phases[run.phase][0])
            else:
                self._line(run, step, metrics, now)

    def _line(self, run: Run, step: int, metrics: Mapping[str, float], now: float) -> None:
        figures = [
            f"energy {metrics[run.metric('energy')]:.4g}",
            f"{_count(round(metrics[run.metric('samples_per_second')]))} samples/s",
        ]
        if self._verdict:
            figures.append(self._verdict)
        done = step - self._first
        if done:
            figures.append(f"{duration((now - self._began) / done * (run.steps_in_all - step))} left")
        begins, epochs = self._phases[run.phase]
        epoch = min((step - 1 - begins) // run.steps_in_epoch + 1, epochs)
        place = f"{run.phase}, epoch {epoch}/{epochs}"
        self._say(f"{place}, step {_count(step)}/{_count(run.steps_in_all)}: {' · '.join(figures)}")

    @hookimpl
    def epoch_done(self, run: Run, step: int, metrics: Mapping[str, float]) -> None:
        name = run.metric(run.learning.monitor or "validation/energy")
        if name in metrics:
            self._verdict = f"{name} {metrics[name]:.4g}"
            if self._view is not None:
                self._view.add(name, metrics[name])
        if step >= run.steps_in_all:
            if self._view is not None:
                self._view.close("trained; evaluating, writing the report")
            else:
                self._say("trained; evaluating, writing the report")

    @hookimpl
    def run_failed(self, error: BaseException) -> None:
        self._stop()

    @hookimpl(trylast=True)
    def run_ended(self, run: Run) -> None:
        self._stop()
        self._say(f"finished in {duration(run.position.seconds)}")
        self._say(f"run:    {relative(run.folder)}")
        if run.config.output.report:
            self._say(f"report: {relative(run.folder / 'report.html')}")

    def _stop(self) -> None:
        if self._view is not None:
            self._view.stop()
            self._view = None

    def _say(self, text: str) -> None:
        # Not markup: names and paths may hold square brackets.
        self._console.print(text, markup=False)


class Trend:
    """A figure over the whole run in a few values: whenever there are too many, neighbours are averaged."""

    def __init__(self) -> None:
        self.last = 0.0
        self._values: list[float] = []
        self._each, self._open, self._sum = 1, 0, 0.0

    def add(self, value: float) -> None:
        self.last = value
        self._sum, self._open = self._sum + value, self._open + 1
        if self._open == self._each:
            self._values.append(self._sum / self._each)
            self._open, self._sum = 0, 0.0
        if len(self._values) == TREND:
            self._values = [(a + b) / 2 for a, b in zip(self._values[::2], self._values[1::2], strict=True)]
            self._each *= 2

    def __str__(self) -> str:
        """The values as blocks, from the lowest to the highest; what is not finite is a gap."""
        finite = [value for value in self._values if math.isfinite(value)]
        low, high = min(finite, default=0.0), max(finite, default=0.0)
        scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
        return "".join(BLOCKS[round(scale * (value - low))] if math.isfinite(value) else " " for value in self._values)


class View:
    """The live view: a bar for each phase and for the whole run, and a line for each energy."""

    def __init__(self, console: Console, run: Run) -> None:
        self._trends: dict[str, Trend] = {}
        self._speed = ""
        self._bars = rich_progress.Progress(
            rich_progress.TextColumn("{task.description}", markup=False),
            rich_progress.BarColumn(24),
            rich_progress.TextColumn("{task.fields[epochs]}", markup=False),
            rich_progress.TaskProgressColumn(),
            rich_progress.TimeRemainingColumn(compact=True),
            rich_progress.TextColumn("{task.fields[left]}"),
            console=console,
        )
        self._epochs = {name: phase.epochs for name, phase, _ in run.schedule}
        self._steps = {name: steps for name, _, steps in run.schedule}
        self._tasks = {
            name: self._bars.add_task(name, total=epochs * self._steps[name], visible=self._few, epochs="", left="")
            for name, epochs in self._epochs.items()
        }
        several = len(self._epochs) > 1
        self._whole = self._bars.add_task("all phases", total=run.steps_in_all, visible=several, epochs="", left="left")
        self._bars.update(self._whole, completed=run.step)
        self._note = ""
        self._live = Live(console=console, get_renderable=self._drawn, refresh_per_second=5)
        self._live.start()

    def show(self, run: Run, step: int, metrics: Mapping[str, float], begins: int) -> None:
        """Take the figures of a step; the phase began after step ``begins``."""
        for name, value in metrics.items():
            if name == run.metric("energy") or name.startswith(run.metric("energy/")):
                self.add(name, value)
        self._speed = f"{_count(round(metrics[run.metric('samples_per_second')]))} samples/s"
        for name, task in self._tasks.items():
            epochs = self._epochs[name]
            if name == run.phase:
                epoch = min((step - 1 - begins) // self._steps[name] + 1, epochs)
                said = f"epoch {epoch}/{epochs}"
                self._bars.update(task, completed=step - begins, visible=True, epochs=said, left="left")
                break
            self._bars.update(task, completed=epochs * self._steps[name], visible=self._few, left="")
        self._bars.update(self._whole, completed=step)

    def add(self, name: str, value: float) -> None:
        self._trends.setdefault(name, Trend()).add(value)

    def _drawn(self) -> Group:
        figures = Table.grid(padding=(0, 2))
        figures.add_column(no_wrap=True, overflow="ellipsis")
        figures.add_column(justify="right", no_wrap=True)
        figures.add_column(no_wrap=True, overflow="crop", style="cyan")
        energies = [name for name in list(self._trends) if name.partition("/")[0] == "energy"]
        for name in (*energies, *(other for other in list(self._trends) if other not in energies)):
            trend = self._trends[name]
            figures.add_row(
                Text(name.replace("energy/", "  ") if name in energies else name), f"{trend.last:.4g}", str(trend)
            )
        return Group(self._bars, figures, Text(self._note or self._speed))

    @property
    def _few(self) -> bool:
        return len(self._epochs) <= PHASES

    def close(self, note: str) -> None:
        """All steps are done; say what is still going on."""
        for task in (*self._tasks.values(), self._whole):
            total = self._bars.tasks[task].total
            self._bars.update(task, completed=total, left="")
        self._note = note

    def stop(self) -> None:
        self._note = ""
        self._live.stop()


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
