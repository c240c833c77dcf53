"""A tracker without a server: one line of JSON per event in a file that all runs share."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from groundstate.components import ConfigPath, Tracker
from groundstate.hooks import hookimpl

if TYPE_CHECKING:
    from groundstate.run import Run


class Jsonl(Tracker):
    """Appends to one file: a run's start with its config's hash, its epochs, its end with all final metrics.

    Each line is {"time": unix seconds, "run": id, "event": started | epoch | failed | ended, …}, written whole in
    one call, so that several runs may share the file; ``jq`` and pandas read it.
    """

    class Config(Tracker.Config):
        path: ConfigPath = Field(
            Path("runs.jsonl"), validate_default=True, description="the file; it is made where there is none"
        )
        steps: bool = Field(False, description="also a line for every logged step")

    @hookimpl
    def run_started(self, run: Run, resumed: bool) -> None:
        self.config.path.parent.mkdir(parents=True, exist_ok=True)
        record = run.record
        known = {key: record[key] for key in ("name", "seed", "config_hash") if key in record}
        self._write(run, "started", resumed=resumed, folder=str(run.folder), **known)

    @hookimpl
    def step_done(self, run: Run, step: int, metrics: Mapping[str, float]) -> None:
        if self.config.steps:
            self._write(run, "step", step=step, phase=run.phase, metrics=dict(metrics))

    @hookimpl
    def epoch_done(self, run: Run, step: int, metrics: Mapping[str, float]) -> None:
        self._write(run, "epoch", step=step, phase=run.phase, metrics=dict(metrics))

    @hookimpl
    def run_failed(self, run: Run, error: BaseException) -> None:
        self._write(run, "failed", step=run.step, error=str(error) or type(error).__name__)

    @hookimpl
    def run_ended(self, run: Run) -> None:
        self._write(run, "ended", step=run.step, metrics=dict(run.metrics))

    def _write(self, run: Run, event: str, **more: Any) -> None:
        line = json.dumps({"time": time.time(), "run": run.id, "event": event, **more}, ensure_ascii=False)
        with self.config.path.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
