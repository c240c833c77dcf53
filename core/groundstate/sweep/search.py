"""Runs the trials of a sweep, some at a time, until each has ended once, whatever is killed on the way."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import pluggy

from groundstate import provenance
from groundstate.config import Overrides, assemble, config_changes, dump_toml, load_config
from groundstate.errors import InputError, Interrupted, RunError
from groundstate.files import require_writable, write_json, write_text
from groundstate.hooks import PROJECT, RunSpec
from groundstate.sweep.metrics import require_metrics
from groundstate.sweep.outcome import write_outcome
from groundstate.sweep.plan import Plan, read_sweep
from groundstate.sweep.study import ID, PLAN, Study, Trial, require_optuna
from groundstate.sweep.worker import STORAGE, SWEEP, config_file, trial_lock

FOLDER, BASE = "sweeps", "base.toml"
WORKER = (
    "import sys; sys.argv[0] = 'groundstate.sweep.worker'; from groundstate.sweep.worker import main; sys.exit(main())"
)
POLL = 0.1
PROCESSES = 3
"""So many processes may die over one trial before it counts as failed."""
PATIENCE = 60.0
"""Seconds that an interrupted sweep waits for its trials to save their state."""

Tell = Callable[[str], None]


class Sweep:
    """A sweep and its folder, ``<output.folder>/sweeps/<name>``; hooks see it.

    metrics: the best figure so far. record: what ``sweep.json`` holds. step: how many trials have ended.
    """

    def __init__(self, plan: Plan, *, take_over: bool = False, tell: Tell = lambda text: None) -> None:
        self.plan = plan
        self.name = plan.name
        self.config = plan.base.config
        self.output = self.config.output.folder
        self.folder = self.output / FOLDER / self.name
        self.id = ""
        self.record: dict[str, Any] = {}
        self.metrics: dict[str, float] = {}
        self.step = 0
        self.best: Trial | None = None
        self._tell = tell
        self._take_over = take_over
        self._local = plan.settings.storage is None
        self._url = plan.settings.storage or f"sqlite:///{self.folder / 'study.db'}"
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._started: dict[int, int] = {}
        self._ended: set[int] = set()
        plugins = pluggy.PluginManager(PROJECT)
        plugins.add_hookspecs(RunSpec)
        parts = assemble(plan.base)
        for follower in (*parts.callbacks.values(), parts.tracker):
            if follower is not None:
                plugins.register(follower)
        self.hook = plugins.hook

    # -- life ---------------------------------------------------------------------------------------

    def run(self) -> None:
        """Every trial to its end. Raises Interrupted, with everything kept, and RunError where all trials failed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._alone():
            self.study = Study(self._url, self.name, self.plan.trials, plan=self.plan)
            resumed = self._begin()
            self.hook.sweep_started(sweep=self, resumed=resumed)
            status = "failed"
            try:
                self._search()
                status = "finished"
            except KeyboardInterrupt:
                status = "interrupted"
                raise Interrupted("the sweep was interrupted; the same command goes on with it") from None
            finally:
                self._end(status)
        if self.best is None:
            failed = next((trial for trial in self.study.trials() if trial.error), None)
            reason = f"; the first: {failed.error}" if failed is not None else ""
            raise RunError(f"no trial of {self.name} finished{reason}")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with (self.folder / "sweep.lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(
                    f"the sweep {self.name} is being run by another process; give this one another name, "
                    "or wait for that one"
                ) from None
            yield

    def _begin(self) -> bool:
        """Take part in the sweep of this name, or begin it. Whether it was begun before."""
        mine = {**self.plan.record(), "base": dump_toml(self.config)}
        known = self.study.noted(PLAN)
        if known is not None:
            self._require_same(known, mine)
        else:
            self.study.note(ID, f"{self.name}-{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}")
            self.study.note(PLAN, mine)
        self.id = self.study.noted(ID)
        owner = self.folder / "owner"
        if not owner.is_file():
            write_text(owner, secrets.token_hex(8))
        self.owner = owner.read_text(encoding="utf-8")
        before = self.folder / SWEEP
        created = json.loads(before.read_text(encoding="utf-8"))["created"] if before.is_file() else _now()
        search = {
            **self.plan.record(),
            "trials": self.plan.trials,
            "jobs": self.plan.settings.jobs,
            "epochs": self.plan.epochs,
            "output": str(self.output),
        }
        self.record = {
            "id": self.id,
            "name": self.name,
            "status": "running",
            "created": created,
            "ended": None,
            "search": search,
            "command": provenance.command(),
            "versions": provenance.versions(),
            "git": provenance.git_state(),
            "host": provenance.host(),
            "trials": {},
            "best": None,
        }
        write_text(self.folder / BASE, dump_toml(self.config))
        write_json(before, self.record)
        return known is not None

    def _require_same(self, known: Mapping[str, Any], mine: Mapping[str, Any]) -> None:
        changes = {key: (known.get(key), mine[key]) for key in mine if key != "base" and known.get(key) != mine[key]}
        if known["base"] != mine["base"]:
            before = self.folder / f".{BASE}"
            write_text(before, known["base"])
            try:
                changes |= config_changes(load_config(before).config, self.config)
            finally:
                before.unlink()
        if changes:
            said = "; ".join(f"{key} was {old!r} and is {new!r}" for key, (old, new) in changes.items())
            raise InputError(
                f"a sweep {self.name} was begun with another search: {said}; change that back to go on with it, "
                "or give this one another name"
            )

    def _end(self, status: str) -> None:
        self._stop_processes()
        trials = self.study.trials()
        counts = {state: sum(trial.state == state for trial in trials) for state in {one.state for one in trials}}
        self.record |= {"status": status, "ended": _now(), "trials": dict(sorted(counts.items()))}
        self.record["best"] = write_outcome(self.folder, self.plan, self.study)
        write_json(self.folder / SWEEP, self.record)
        self.hook.sweep_ended(sweep=self)

    # -- trials -------------------------------------------------------------------------------------

    def _search(self) -> None:
        with _interruptible():
            while True:
                self._collect()
                running = [trial for trial in self.study.trials() if trial.state == "running"]
                mine = [trial for trial in running if self._is_mine(trial)]
                busy = sum(self._is_held(trial.number) for trial in mine)
                for trial in mine:
                    if busy < self.plan.settings.jobs and not self._is_held(trial.number):
                        busy += self._start(trial)
                while busy < self.plan.settings.jobs and (asked := self.study.ask(self.owner)) is not None:
                    busy += self._start(asked)
                if not busy:
                    if others := [trial.number for trial in running if not self._is_mine(trial)]:
                        self._tell(_left_to_others(others))
                    break
                time.sleep(POLL)
        self._collect()

    def _is_mine(self, trial: Trial) -> bool:
        # A process that died as it asked had no time to sign; in a database of our own nobody else asks.
        return trial.owner == self.owner or (trial.owner is None and self._local) or self._take_over

    def _is_held(self, number: int) -> bool:
        """Whether a process runs the trial: one of ours, or one that outlived an earlier sweep process."""
        process = self._processes.get(number)
        if process is not None:
            return process.poll() is None
        with trial_lock(self.folder, number) as free:
            return not free

    def _start(self, trial: Trial) -> bool:
        """Start a process for a trial; False where it is given up."""
        number = trial.number
        self._processes.pop(number, None)
        if self._started.get(number, 0) >= PROCESSES:
            log = self.folder / "trials" / f"{number:04d}.log"
            self.study.finish(number, "failed", error=f"its process died {PROCESSES} times; see {log}")
            return False
        self._started[number] = self._started.get(number, 0) + 1
        if trial.owner != self.owner:
            self.study.take(number, self.owner)
        config = config_file(self.folder, number)
        if not config.is_file():
            config.parent.mkdir(exist_ok=True)
            values = self.study.settle(number).values
            try:
                write_text(config, dump_toml(self.plan.space.config(values).config))
            except InputError as error:
                self.study.finish(number, "failed", error=str(error))
                return False
        self._processes[number] = self._spawn(number)
        return True

    def _spawn(self, number: int) -> subprocess.Popen[bytes]:
        threads = str(max(1, _cores() // self.plan.settings.jobs))
        environment = {"OMP_NUM_THREADS": threads, **os.environ, STORAGE: self._url}
        # -P: the working directory is no place to import from, it may hold anything.
        command = [sys.executable, "-P", "-c", WORKER, str(self.folder), str(number)]
        with (self.folder / "trials" / f"{number:04d}.log").open("ab") as log:
            # Its own session: Ctrl-C reaches the sweep alone, which then tells its trials.
            return subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def _collect(self) -> None:
        """Tell of trials that have ended since the last time, and keep the best."""
        trials = self.study.trials()
        for trial in trials:
            if trial.state == "running" or trial.number in self._ended:
                continue
            self._ended.add(trial.number)
            process = self._processes.pop(trial.number, None)
            if process is not None:
                process.wait()
            if trial.better(self.best, self.plan.mode):
                self.best = trial
            self.step = len(self._ended)
            self.metrics = {} if self.best is None or self.best.value is None else {self.plan.metric: self.best.value}
            self._tell(self._said(trial))
            self.hook.sweep_advanced(sweep=self, step=self.step, metrics=self.metrics)

    def _said(self, trial: Trial) -> str:
        what = f"{self.plan.metric} {trial.value:.4g}" if trial.value is not None else trial.state
        best = "" if self.best is None else f"; best {self.best.value:.4g} of trial {self.best.number}"
        reason = f" ({trial.error})" if trial.error else ""
        return f"trial {trial.number}: {what}{reason}{best}; {self.step} of {self.plan.trials} done"

    def _stop_processes(self) -> None:
        alive = [process for process in self._processes.values() if process.poll() is None]
        for process in alive:
            process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + PATIENCE
        for process in alive:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM ends a sweep as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _left_to_others(numbers: list[int]) -> str:
    listed = ", ".join(map(str, numbers))
    return f"other machines still run trials {listed}; where they do not any more, --take-over runs them here"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def sweep(
    source: Path | str | Mapping[str, Any],
    overrides: Overrides | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    over: Overrides | None = None,
    take_over: bool = False,
    tell: Tell = lambda text: None,
) -> Sweep:
    """Search over keys of a config: many runs, and the best of them.

    source: a config with a ``[sweep]`` table. overrides: as for ``train``. settings: keys of ``[sweep]`` on top.
    over: further keys to search. take_over: also go on with trials that another machine began and left.
    tell: is given a line for each trial that ends. The same call goes on with a sweep that was cut short.
    Raises InputError before any trial starts, Interrupted with everything kept, RunError where no trial finishes.
    """
    plan = read_sweep(source, overrides, settings=settings, over=over)
    require_optuna()
    require_writable(plan.base.config.output.folder, "output.folder")
    require_metrics(plan)
    made = Sweep(plan, take_over=take_over, tell=tell)
    made.run()
    return made
