"""pluggy hook specifications: how plugins register, and the life of a run.

An implementation may accept fewer arguments than its specification (pluggy passes what it asks for by name),
so hooks can grow without breaking anyone. Mark implementations with ``hookimpl``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from torch import Tensor

    from groundstate.data import Batch
    from groundstate.inference import Solution
    from groundstate.registry import Register
    from groundstate.run import Run
    from groundstate.sweep import Sweep

PROJECT = "groundstate"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@dataclass(frozen=True)
class Section:
    """One section of a run's report.

    title: its heading. html: its body, already safe HTML. order: sections are sorted by it (built-in ones
    use 10, 20, …).
    """

    title: str
    html: str
    order: int = 100


class RegisterSpec:
    """Implemented by distributions, as a module-level function behind an entry point of group ``groundstate``."""

    @hookspec
    def groundstate_register(self, register: Register) -> None:
        """Name your plugins: ``register.toml(path)`` for a registry.toml, or ``register(kind, name, path, summary)``.

        Import nothing heavy here: a plugin is imported when it is used.
        """


class RunSpec:
    """Implemented by callbacks and trackers, as methods."""

    @hookspec
    def run_started(self, run: Run, resumed: bool) -> None:
        """The model is built, the run's folder holds its config; nothing is trained yet."""

    @hookspec
    def phase_started(self, run: Run, phase: str) -> None:
        """A phase begins (not called again when a run resumes inside it)."""

    @hookspec
    def step_done(self, run: Run, step: int, metrics: Mapping[str, float]) -> None:
        """Metrics of one training step, every ``learning.log_every`` steps; step counts from 1 over all phases."""

    @hookspec
    def epoch_done(self, run: Run, step: int, metrics: Mapping[str, float]) -> None:
        """An epoch ended; metrics: of the validation split, and ``constraint/<parameter>``, the share held back."""

    @hookspec
    def checkpoint_saved(self, run: Run, path: Path) -> None:
        """The state is safely on disk."""

    @hookspec
    def run_failed(self, run: Run, error: BaseException) -> None:
        """The run stops on an error or an interruption; its state is saved."""

    @hookspec
    def run_ended(self, run: Run) -> None:
        """The run is complete: final metrics, model and report are in its folder."""

    @hookspec
    def extra_metrics(self, run: Run, batch: Batch, solution: Solution) -> Mapping[str, Tensor] | None:
        """Further per-sample figures of an evaluated batch, each (batch,), to average over a split."""

    @hookspec
    def final_metrics(self, run: Run) -> Mapping[str, float] | None:
        """Further figures of the whole run, e.g. of a baseline: asked once, when all is trained and evaluated.

        They go into the run's metrics and record under their own names.
        """

    @hookspec
    def report_sections(self, run: Run) -> Sequence[Section] | None:
        """Further sections for the report."""

    @hookspec(firstresult=True)
    def should_stop(self, run: Run, step: int, metrics: Mapping[str, float]) -> str | None:
        """Asked after each epoch: a reason to end the phase now, or None."""

    @hookspec
    def sweep_started(self, sweep: Sweep, resumed: bool) -> None:
        """A search over configs begins, or goes on: its trials are runs, whose records name it as their parent."""

    @hookspec
    def sweep_advanced(self, sweep: Sweep, step: int, metrics: Mapping[str, float]) -> None:
        """One more trial has ended; step: how many have. metrics: the best figure so far."""

    @hookspec
    def sweep_ended(self, sweep: Sweep) -> None:
        """The sweep is over or interrupted, as its record's status says; its folder holds what came out."""
