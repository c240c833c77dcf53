"""Delivers a run's records to MLflow, in order; a record that is sent twice changes nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING

from groundstate_plugins.trackers.mlflow_bulk import insert_rows, split_latest, takes_rows
from groundstate_plugins.trackers.mlflow_logged_model import log_model
from groundstate_plugins.trackers.mlflow_pictures import images
from groundstate_plugins.trackers.mlflow_process import by_hand
from groundstate_plugins.trackers.mlflow_records import RUN_TAG, tag_values, valid_name
from groundstate_plugins.trackers.mlflow_store import artifact_root, open_store, with_secrets
from groundstate_plugins.trackers.spool import Delivered, Record, undelivered

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

PARENT_TAG, IMAGES_TAG = "mlflow.parentRunId", "mlflow.loggedImages"
METRICS_PER_REQUEST, METRICS_PER_INSERT = 1000, 20_000
PARAMS_PER_BATCH = 100
# MLflow's error codes for a request that will be wrong however often it is repeated.
FINAL = {
    "INVALID_PARAMETER_VALUE",
    "BAD_REQUEST",
    "NOT_FOUND",
    "RESOURCE_DOES_NOT_EXIST",
    "RESOURCE_ALREADY_EXISTS",
    "ENDPOINT_NOT_FOUND",
}


class Refused(Exception):
    """The store will never take this record."""


class Blocked(Exception):
    """Nothing of this run can be delivered until a person acts; the message says what to do."""


class Away(Exception):
    """The store cannot be reached or does not work at present."""


def judged(error: Exception) -> Exception:
    """The error as Refused or Away: whether to go on without the record or to try again later."""
    from mlflow.exceptions import MlflowException

    if isinstance(error, (Refused, Blocked, Away)):
        return error
    if away := _database_is_away(error):
        return Away(away)
    if isinstance(error, MlflowException):
        return Refused(error.message) if error.error_code in FINAL else Away(error.message)
    if isinstance(error, ModuleNotFoundError):
        return Blocked(f"the store needs the Python package '{error.name}', which is not installed here")
    if isinstance(error, FileNotFoundError):
        return Refused(f"{error.filename} is not there")
    if isinstance(error, OSError):  # connection errors, time-outs (requests' too), a full disk
        return Away(f"{type(error).__name__}: {error}")
    return Refused(f"{type(error).__name__}: {error}")


def _database_is_away(error: BaseException | None) -> str:
    """What the driver says where a database is down or its disk is full; MLflow reports that in several ways."""
    from sqlalchemy.exc import InterfaceError, OperationalError

    while error is not None:
        if isinstance(error, (OperationalError, InterfaceError)):
            return str(error.orig).strip()
        error = error.__cause__ or error.__context__
    return ""


class Delivery:
    """Sends records of one run; ``delivered`` is kept on disk after each step that must not be done twice."""

    def __init__(self, run_folder: Path) -> None:
        self.run_folder = run_folder
        self.delivered = Delivered.load(run_folder)
        self._client: MlflowClient | None = None
        self._rows = False

    @property
    def client(self) -> MlflowClient:
        if self._client is None:
            import mlflow

            uri = with_secrets(self.delivered.tracking_uri)
            # The model registry asks for the process's address, whatever the client was made for.
            mlflow.set_tracking_uri(uri)
            self._client = open_store(uri)
            self._rows = takes_rows(self._client)
        return self._client

    @property
    def most_metrics(self) -> int:
        """How many values are best sent together."""
        return METRICS_PER_INSERT if self._rows else METRICS_PER_REQUEST

    def save(self) -> None:
        self.delivered.save(self.run_folder)

    def send(self, record: Record) -> None:
        """Deliver one record that is not metrics. Raises Refused, Blocked or Away."""
        deliver = {
            "start": self._start,
            "resume": self._resume,
            "tags": self._tags,
            "parent": self._parent,
            "artifact": self._artifact,
            "picture": self._picture,
            "model": self._model,
            "end": self._end,
        }
        try:
            if record["op"] != "start":
                self._require_run()
            deliver[record["op"]](record)
        except Exception as error:
            raise judged(error) from error

    def send_metrics(self, records: Sequence[Record]) -> None:
        """Deliver metrics records together; in a database's own rows, to a server 1000 values a request."""
        try:
            self._require_run()
            run_id, client = self.delivered.run_id, self.client
            metrics = [metric for record in records for metric in _metrics(record)]
            told, others = split_latest(metrics) if self._rows else (metrics, [])
            for first in range(0, len(told), METRICS_PER_REQUEST):
                client.log_batch(run_id, metrics=told[first : first + METRICS_PER_REQUEST], synchronous=True)
            insert_rows(client, run_id, others)
        except Exception as error:
            raise judged(error) from error

    def _require_run(self) -> None:
        if not self.delivered.run_id:
            raise Blocked("the spool does not begin with the start of a run")

    def blocked(self) -> str | None:
        """Why the store refuses everything of this run, or None: the run or its experiment was deleted."""
        from mlflow.exceptions import MlflowException

        run_id = self.delivered.run_id
        try:
            stage = self.client.get_run(run_id).info.lifecycle_stage
        except MlflowException as error:
            if error.error_code not in FINAL:
                raise Away(error.message) from error
            return f"MLflow does not know run {run_id} any more"
        if stage == "deleted":
            return f"run {run_id} was deleted in MLflow; `mlflow runs restore --run-id {run_id}` brings it back"
        return None

    # -- one method per record's op ------------------------------------------------------------------

    def _start(self, record: Record) -> None:
        self.delivered.tracking_uri = self.delivered.tracking_uri or record["uri"]
        if not self.delivered.run_id:
            self._create_run(record)
        run_id = self.delivered.run_id
        self._log_params(run_id, record["params"])
        if record["dataset"] is not None:
            self._log_dataset(run_id, record["dataset"])
        for file in (self.run_folder / name for name in ("config.toml", "uncommitted.diff")):
            if file.is_file():
                self.client.log_artifact(run_id, str(file))
        self.client.log_text(run_id, _installed(), "environment.txt")

    def _create_run(self, record: Record) -> None:
        experiment_id = self._experiment(record["experiment"])
        # A sender that died between creating the run and noting its id has left one to go on with.
        query = f"tags.`{RUN_TAG}` = '{record['run']}'"
        found = self.client.search_runs([experiment_id], filter_string=query, max_results=1)
        if found:
            run = found[0]
        else:
            run = self.client.create_run(
                experiment_id, start_time=record["time"], tags=record["tags"], run_name=record["name"]
            )
        self.delivered.experiment_id = experiment_id
        self.delivered.run_id = run.info.run_id
        self.save()

    def _experiment(self, name: str) -> str:
        found = self.client.get_experiment_by_name(name)
        if found is None:
            root = artifact_root(self.delivered.tracking_uri)
            place = None if root is None else (root / valid_name(name).replace("/", "_")).as_uri()
            try:
                return str(self.client.create_experiment(name, artifact_location=place))
            except Exception:
                # Another run that starts at this moment may have made it; else the error stands.
                found = self.client.get_experiment_by_name(name)
                if found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            raise Blocked(
                f"the experiment '{name}' was deleted in MLflow; `mlflow experiments restore "
                f"--experiment-id {found.experiment_id}` brings it back, or choose another tracking.experiment"
            )
        return str(found.experiment_id)

    def _log_params(self, run_id: str, params: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        every = [Param(key, value) for key, value in params.items()]
        for first in range(0, len(every), PARAMS_PER_BATCH):
            self.client.log_batch(run_id, params=every[first : first + PARAMS_PER_BATCH], synchronous=True)

    def _log_dataset(self, run_id: str, described: Mapping[str, str]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        context = InputTag("mlflow.data.context", "training")
        self.client.log_inputs(run_id, [DatasetInput(Dataset(**described), [context])])

    def _resume(self, record: Record) -> None:
        self.client.update_run(self.delivered.run_id, status="RUNNING")
        self._tags(record)

    def _tags(self, record: Record) -> None:
        from mlflow.entities import RunTag

        tags = [RunTag(key, value) for key, value in tag_values(record["values"]).items()]
        self.client.log_batch(self.delivered.run_id, tags=tags, synchronous=True)

    def _parent(self, record: Record) -> None:
        """Hang the run below the one that it is a part of, as MLflow's page shows it."""
        folder = Path(record["folder"])
        known = Delivered.load(folder)
        if known.run_id and known.tracking_uri == self.delivered.tracking_uri:
            found = known.run_id
        else:
            query = f"tags.`{RUN_TAG}` = '{record['id']}'"
            runs = self.client.search_runs([self.delivered.experiment_id], filter_string=query, max_results=1)
            if not runs and undelivered(folder):
                raise Away(f"its parent {record['id']} is not in the store yet; `{by_hand(folder)}` sends that")
            if not runs:
                raise Refused(f"its parent {record['id']} is not in the store")
            found = runs[0].info.run_id
        values = {PARENT_TAG: found, "groundstate.parent": record["id"]}
        values |= {f"groundstate.{key}": record[key] for key in record.keys() - {"op", "id", "folder"}}
        self._tags({"values": values})

    def _artifact(self, record: Record) -> None:
        path = self.run_folder / record["path"]
        if not path.exists():
            raise FileNotFoundError(2, "no such file", str(path))
        log = self.client.log_artifacts if path.is_dir() else self.client.log_artifact
        log(self.delivered.run_id, str(path), record.get("to") or None)

    def _picture(self, record: Record) -> None:
        with tempfile.TemporaryDirectory(prefix="groundstate-picture-") as temporary:
            images(self.run_folder, record, Path(temporary))
            self.client.log_artifacts(self.delivered.run_id, temporary, "images")
        self._tags({"values": {IMAGES_TAG: "True"}})

    def _end(self, record: Record) -> None:
        self.client.set_terminated(self.delivered.run_id, record["status"], record["time"])

    def _model(self, record: Record) -> None:
        log_model(self.client, self.run_folder, self.delivered, record)


def _metrics(record: Record) -> list[Metric]:
    from mlflow.entities import Metric

    when, step = record["time"], record["step"]
    return [Metric(valid_name(name), float(value), when, step) for name, value in record["values"].items()]


def _installed() -> str:
    names = {(found.name or "").lower(): found.version for found in distributions()}
    return "\n".join(f"{name}=={names[name]}" for name in sorted(names) if name) + "\n"
