"""One trial in a process of its own: ``main`` with the sweep's folder and the trial's number as arguments.

Whoever holds the trial's lock runs it; a process that is killed lets go of it, and the next one goes on.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundstate.errors import GroundstateError, Interrupted
from groundstate.history import read_history
from groundstate.hooks import hookimpl
from groundstate.run import METRICS, RECORD, Run, is_over, resume_run, train
from groundstate.sweep.study import RUN, Study, Trial

STORAGE = "GROUNDSTATE_SWEEP_STORAGE"
"""The database's URL comes through the environment: it may hold a password, and command lines are for all to see."""

SWEEP = "sweep.json"
DONE, FAILED, HELD, INTERRUPTED = 0, 1, 3, 130


def config_file(folder: Path, number: int) -> Path:
    """The whole config of a trial."""
    return folder / "trials" / f"{number:04d}.toml"


@contextmanager
def trial_lock(folder: Path, number: int) -> Iterator[bool]:
    """Whether this process is the one that runs the trial; the system frees the lock of a process that dies."""
    path = folder / "trials" / f"{number:04d}.lock"
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


class Pruned(Interrupted):
    """The pruner ended the run; it can go on like any run that was interrupted."""


@dataclass
class Follower:
    """Tells the study how a run gets on, and ends the run when the pruner says so."""

    study: Study
    trial: Trial
    metric: str

    @hookimpl
    def run_started(self, run: Run) -> None:
        self.study.note_trial(self.trial.number, RUN, run.id)

    @hookimpl
    def should_stop(self, run: Run) -> None:
        value = run.metrics.get(self.metric)
        if value is None or not math.isfinite(value):
            return
        done = run.epochs_done
        if done not in (self.trial.reported or {}):
            self.study.report(self.trial.number, done, value)
        if self.study.falls_behind(self.trial.number):
            raise Pruned(f"pruned after epoch {done}, with {self.metric} {value:.4g}")


def run_trial(folder: Path, number: int, url: str) -> int:
    """Run the trial from its start or from where it was left, and tell the study how it ended."""
    record = json.loads((folder / SWEEP).read_text(encoding="utf-8"))
    search = record["search"]
    study = Study(url, record["name"], search["trials"])
    study.prune_with(search["pruner"], search["epochs"])
    trial = study.trial(number)
    if trial.state != "running":
        return DONE
    parent = {"id": record["id"], "trial": number, "folder": str(folder)}
    follower = Follower(study, trial, search["prune_by"])
    try:
        run_folder = _train(folder, number, Path(search["output"]), parent, follower)
    except Pruned:
        study.finish(number, "pruned")
        return DONE
    except (Interrupted, KeyboardInterrupt):
        return INTERRUPTED
    except Exception as error:
        # Whatever a trial dies of, the others go on; the sweep's table tells the reason, the log all of it.
        if not isinstance(error, GroundstateError):
            traceback.print_exc()
        study.finish(number, "failed", error=str(error) or type(error).__name__)
        return FAILED
    value = last_values(run_folder).get(search["metric"])
    if value is None or not math.isfinite(value):
        study.finish(number, "failed", error=f"{search['metric']} is {'missing' if value is None else value}")
        return FAILED
    study.finish(number, "finished", value)
    return DONE


def _train(folder: Path, number: int, output: Path, parent: Mapping[str, Any], follower: Follower) -> Path:
    """The folder of the trial's run, when it is complete."""
    begun = find_trial_run(output, parent, follower.trial.run)
    if begun is None:
        return train(config_file(folder, number), parent=parent, followers=[follower]).folder
    if is_over(json.loads((begun / RECORD).read_text(encoding="utf-8"))):
        return begun
    return resume_run(begun, followers=[follower]).folder


def find_trial_run(output: Path, parent: Mapping[str, Any], named: str | None = None) -> Path | None:
    """The run that an earlier process began for this trial; its own record says so."""
    places = [output / named / RECORD] if named is not None else sorted(output.glob(f"*/{RECORD}"))
    for file in places:
        if file.is_file():
            known = json.loads(file.read_text(encoding="utf-8")).get("parent") or {}
            if (known.get("id"), known.get("trial")) == (parent["id"], parent["trial"]):
                return file.parent
    return None


def last_values(run_folder: Path) -> dict[str, float]:
    """The last value of every metric of a run."""
    values: dict[str, float] = {}
    for record in read_history(run_folder / METRICS):
        values |= record.values
    return values


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0: the trial has ended, 1: it failed, 3: another process runs it, 130: interrupted, state saved."""
    folder, number = arguments if arguments is not None else sys.argv[1:]
    with trial_lock(Path(folder), int(number)) as held:
        if not held:
            return HELD
        return run_trial(Path(folder), int(number), os.environ[STORAGE])
