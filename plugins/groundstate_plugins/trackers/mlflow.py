"""Tracking in MLflow that training never waits for: the run spools its records, another process delivers them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from groundstate.components import Tracker
from groundstate.history import read_history
from groundstate.hooks import hookimpl
from groundstate_plugins.trackers import mlflow_records as records
from groundstate_plugins.trackers.mlflow_pictures import pictures as records_of_pictures
from groundstate_plugins.trackers.mlflow_process import SenderProcess, by_hand
from groundstate_plugins.trackers.mlflow_store import brief, existing_store, page_command, public, store_uri
from groundstate_plugins.trackers.spool import (
    FOLDER,
    Delivered,
    Spool,
    begun_for,
    read_records,
    spool_file,
    undelivered,
)

if TYPE_CHECKING:
    from groundstate.run import Run
    from groundstate.sweep import Sweep

PICTURE = "picture"


class MlflowTracker(Tracker):
    """Records a run in MLflow: params, metrics, tags, data, report, model.

    The training process neither imports MLflow nor talks to it: it appends to a file in the run's folder, and a
    sender process delivers from there, now or when the store is back.
    """

    class Config(Tracker.Config):
        uri: str | None = Field(
            None,
            description="the store: sqlite:///file.db, a database or a server's http(s) address; "
            "by default MLFLOW_TRACKING_URI, else mlflow.db in the working directory",
        )
        experiment: str | None = Field(None, min_length=1, description="by default the run's name")
        run_name: str | None = Field(None, min_length=1, description="by default the run's id")
        tags: dict[str, str] = Field(default_factory=dict, description="further tags of the run")
        log_model: bool = Field(True, description="log the trained model, loadable with mlflow.pyfunc")
        register_as: str | None = Field(None, min_length=1, description="registered model to add a version to")
        pictures: int = Field(
            20, ge=0, description="pictures of filters and learned inhibition over the whole run; 0: none"
        )
        system_metrics: bool = Field(True, description="sample processor and memory every ten seconds")
        head_start_seconds: float = Field(
            8.0, ge=0, description="how long training goes on before delivery begins; a shorter run delivers at its end"
        )
        wait_seconds: float = Field(30.0, ge=0, description="how long the end of a run waits for delivery")
        patience_seconds: float = Field(
            120.0, ge=0, description="how long delivery goes on in the background after that"
        )

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        self.uri = store_uri(self.config.uri)
        self._spool: Spool | None = None
        self._sender: SenderProcess | None = None
        self._recorded: dict[str, int] = {}  # last step by kind of metric
        self._names: set[str] = set()
        self._evaluated: dict[str, float] = {}  # the last value of what epochs measure
        self._in_trouble = False

    # -- hooks ---------------------------------------------------------------------------------------

    @hookimpl
    def run_started(self, run: Run, resumed: bool) -> None:
        if not self._goes_on(run.folder):
            self._append(records.start(run, **self._told(run)))
            if run.record.get("parent"):
                self._append({"op": "parent", **run.record["parent"]})
        if resumed:
            self._catch_up(run)
        self._draw(run)
        self._start_sender(run.folder, system_metrics=self.config.system_metrics)

    def _goes_on(self, folder: Path) -> bool:
        """Open the spool; whether an earlier process began it."""
        self._spool = Spool(folder)
        begun = self._recover(folder)
        if begun:
            self._append({"op": "resume", "values": {"groundstate.status": "running"}})
        return begun

    def _told(self, run: Run | Sweep) -> dict[str, Any]:
        return {
            "uri": public(self.uri),
            "experiment": self.config.experiment or run.name,
            "run_name": self.config.run_name or run.id,
            "own_tags": self.config.tags,
        }

    def _start_sender(self, folder: Path, *, system_metrics: bool) -> None:
        options = ["--patience", str(self.config.patience_seconds)]
        options += ["--head-start", str(self.config.head_start_seconds)]
        if system_metrics:
            options.append("--system-metrics")
        self._sender = SenderProcess(folder, options)
        self._flush()

    @hookimpl
    def phase_started(self, run: Run, phase: str) -> None:
        self._tags({f"phase.{phase}": f"from step {run.step}"})

    @hookimpl
    def step_done(self, step: int, metrics: Mapping[str, float]) -> None:
        self._metrics("step", step, metrics)

    @hookimpl
    def epoch_done(self, run: Run, step: int, metrics: Mapping[str, float]) -> None:
        self._metrics("epoch", step, metrics)
        self._draw(run)
        self._flush()

    @hookimpl
    def checkpoint_saved(self, run: Run, path: Path) -> None:
        self._tags({"groundstate.checkpoint": str(path.absolute()), "groundstate.checkpoint_step": run.step})
        self._flush()

    @hookimpl
    def run_failed(self, run: Run, error: BaseException) -> None:
        status = run.record.get("status", "failed")
        self._tags({"groundstate.status": status, "groundstate.failure": str(error) or type(error).__name__})
        self._end(run.folder, "KILLED" if status == "interrupted" else "FAILED", wait_seconds=0.0)

    @hookimpl
    def run_ended(self, run: Run) -> None:
        self._metrics("final", run.step, self._final(run.metrics))
        for name in ("report.html", "run.json"):
            if (run.folder / name).is_file():
                self._append({"op": "artifact", "path": name})
        if self.config.log_model:
            self._log_model(run)
        self._tags({"groundstate.status": "finished"})
        self._end(run.folder, "FINISHED", wait_seconds=self.config.wait_seconds)

    # -- a sweep is a run without training: its trials name it as their parent ------------------------

    @hookimpl
    def sweep_started(self, sweep: Sweep, resumed: bool) -> None:
        if not self._goes_on(sweep.folder):
            self._append(records.start_sweep(sweep, **self._told(sweep)))
        self._start_sender(sweep.folder, system_metrics=False)

    @hookimpl
    def sweep_advanced(self, sweep: Sweep, step: int, metrics: Mapping[str, float]) -> None:
        self._metrics("epoch", step, {f"best/{name}": value for name, value in metrics.items()})
        self._flush()

    @hookimpl
    def sweep_ended(self, sweep: Sweep) -> None:
        for file in sorted(file for pattern in records.SWEEP_FILES for file in sweep.folder.glob(pattern)):
            self._append({"op": "artifact", "path": file.name})
        status = sweep.record["status"]
        best = sweep.record.get("best") or {}
        told = {f"best.{name}": best.get(name) for name in ("trial", "run", "value")}
        self._tags({"groundstate.status": status, **told})
        ends = {"finished": "FINISHED", "interrupted": "KILLED"}
        self._end(sweep.folder, ends.get(status, "FAILED"), wait_seconds=self.config.wait_seconds)

    def _catch_up(self, run: Run) -> None:
        """Record what stands in the run's history up to its checkpoint, and which a kill kept from the spool."""
        for record in read_history(run.history.path):
            if record.kind != "final":
                self._metrics(record.kind, record.step, record.values, round(1000 * record.time))

    def _draw(self, run: Run) -> None:
        """Pictures of the model at the run's start, and at ``pictures`` epochs of even distance."""
        last = self._recorded.get(PICTURE, -1)
        due = last < 0 or (run.step * self.config.pictures // run.steps_in_all) > (
            last * self.config.pictures // run.steps_in_all
        )
        if not self.config.pictures or run.step <= last or not due:
            return
        self._recorded[PICTURE] = run.step
        try:
            for record in records_of_pictures(run):
                self._append(record)
        except OSError as error:
            self._cannot(error)

    def _log_model(self, run: Run) -> None:
        try:
            record = records.model(run, self.config.register_as)
        except OSError as error:
            self._cannot(error)
            return
        if record is not None:
            self._append(record)

    # -- records -------------------------------------------------------------------------------------

    def _recover(self, folder: Path) -> bool:
        """Learn from the spool what an earlier process of this run recorded; whether there was one."""
        delivered = Delivered.load(folder)
        self._recorded = dict(delivered.steps)
        begun = False
        for record, _ in read_records(spool_file(folder)):
            if record is not None and record.get("op") == "start":
                begun = True
                self._tell_store(record["uri"])
            if record is not None and record.get("op") == PICTURE:
                self._recorded[PICTURE] = max(record["step"], self._recorded.get(PICTURE, -1))
            if record is not None and record.get("op") == "metrics":
                kind = record["kind"]
                self._recorded[kind] = max(record["step"], self._recorded.get(kind, -1))
                self._remember(kind, record["values"])
        size = spool_file(folder).stat().st_size
        if delivered.offset > size:  # the machine went down before the spool reached the disk
            delivered.offset = size
            delivered.save(folder)
        return begun

    def _tell_store(self, uri: str) -> None:
        if uri != public(self.uri):
            _say(f"MLflow: this run goes on in {uri}, where it began, not in {public(self.uri)}")

    def _metrics(self, kind: str, step: int, metrics: Mapping[str, float], time: int | None = None) -> None:
        # A resumed run repeats the steps since its checkpoint, to the same values; they are recorded already.
        if not metrics or step <= self._recorded.get(kind, -1):
            return
        self._recorded[kind] = step
        self._remember(kind, metrics)
        # float: a metric may be a 0-d tensor, which changes.
        values = {name: float(value) for name, value in metrics.items()}
        self._append({"op": "metrics", "kind": kind, "step": step, "time": time or records.now(), "values": values})

    def _remember(self, kind: str, values: Mapping[str, float]) -> None:
        self._names.update(values)
        if kind == "epoch":
            self._evaluated.update(values)

    def _final(self, metrics: Mapping[str, float]) -> dict[str, float]:
        # What was never measured before has its own name; what is measured once more, with the best epoch's
        # weights, gets another, so that a name has one value at a step.
        new = {name: value for name, value in metrics.items() if name not in self._names}
        again = {
            f"final/{name}": metrics[name]
            for name, value in self._evaluated.items()
            if name in metrics and float(metrics[name]) != float(value)
        }
        return new | again

    def _tags(self, values: Mapping[str, Any]) -> None:
        self._append({"op": "tags", "values": records.tag_values(values)})

    def _append(self, record: Mapping[str, Any]) -> None:
        if self._spool is not None:
            try:
                self._spool.append(record)
            except OSError as error:
                self._cannot(error)

    def _flush(self) -> None:
        if self._spool is not None:
            try:
                self._spool.flush()
            except OSError as error:
                self._cannot(error)
        self._deliver()

    def _cannot(self, error: OSError) -> None:
        # Tracking never ends a run: what cannot be written waits in memory for the next attempt.
        if not self._in_trouble:
            _say(f"MLflow: tracking falls behind ({error.strerror}); it is tried again with every record")
        self._in_trouble = True

    # -- the sender ----------------------------------------------------------------------------------

    def _deliver(self) -> None:
        """See to it that the sender runs."""
        if self._sender is not None:
            try:
                self._sender.keep_running()
            except OSError as error:
                self._cannot(error)

    def _end(self, folder: Path, status: str, *, wait_seconds: float) -> None:
        if self._spool is None:
            return
        self._append({"op": "end", "time": records.now(), "status": status})
        try:
            self._spool.close()
            self._deliver()
            if self._sender is not None:
                self._sender.wait(wait_seconds)
                self._sender.leave()
        except OSError as error:
            self._cannot(error)
        self._spool = None
        _say(summary(folder))

    # -- for people ----------------------------------------------------------------------------------

    @classmethod
    def ui(cls, port: int = 5000, uri: str | None = None) -> int:
        """Serve MLflow's page on the store, until interrupted. Returns the exit status.

        A server has its own page: its address is told. InputError where there is no store yet.
        """
        store = existing_store(uri)
        if store.startswith("http"):
            _say(f"MLflow's page is {public(store)}")
            return 0
        try:
            return subprocess.run(page_command(store, port), check=False).returncode
        except KeyboardInterrupt:
            return 130

    @staticmethod
    def sync(folders: Sequence[Path], to: str | None = None) -> Iterator[tuple[Path, bool, str]]:
        """Deliver what is kept in these folders of runs and sweeps: see ``mlflow_sync.sync``."""
        from groundstate_plugins.trackers.mlflow_sync import sync

        return sync(folders, to)

    @staticmethod
    def find_model(name: str, uri: str | None = None) -> Path:
        """The folder of a model that was logged: see ``mlflow_lookup.find_model``."""
        from groundstate_plugins.trackers.mlflow_lookup import find_model

        return find_model(name, uri)


def summary(folder: Path) -> str:
    """One line: what of a run is in MLflow, and how to send what is not."""
    delivered = Delivered.load(folder)
    rest = undelivered(folder)
    store = delivered.tracking_uri or begun_for(folder)
    refused = f"; {delivered.refused} were refused ({folder / FOLDER / 'refused.jsonl'})" if delivered.refused else ""
    if not rest:
        return (
            f"MLflow: all {delivered.records} records are in {store}, run {delivered.run_id}{refused}; "
            "`groundstate ui` opens it"
        )
    reason = delivered.problem or brief(delivered.trouble)
    reason = f" ({reason})" if reason else ""
    return (
        f"MLflow: {rest} records are not delivered to {store} yet{reason}; "
        f"they are kept, and `{by_hand(folder)}` sends them{refused}"
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
