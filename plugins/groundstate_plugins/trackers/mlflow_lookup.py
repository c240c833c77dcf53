"""Finds the model folder behind an MLflow address or a run's id, downloading it once where it is remote."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from groundstate.errors import InputError
from groundstate_plugins.trackers.mlflow_logged_model import MODEL_NAME
from groundstate_plugins.trackers.mlflow_records import RUN_TAG
from groundstate_plugins.trackers.mlflow_store import existing_store, open_store, public

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run


def find_model(name: str, uri: str | None = None) -> Path:
    """The folder with ``model.safetensors`` and ``config.toml`` of a model in MLflow.

    name: ``runs:/MLFLOW_RUN_ID``, ``models:/NAME@alias``, ``models:/NAME/VERSION``, ``models:/MODEL_ID`` or a
    groundstate run id. uri: the store, by default as for tracking. Raises InputError where there is none.
    """
    from mlflow.exceptions import MlflowException

    try:
        store = existing_store(uri)
    except InputError as error:
        raise InputError(f"no model '{name}': {error}") from error
    client = open_store(store)
    try:
        model = _logged_model(client, name, store)
        return _weights(_local(model, store))
    except MlflowException as error:
        raise InputError(f"no model '{name}' in MLflow at {public(store)}: {error.message}") from error


def _logged_model(client: MlflowClient, name: str, store: str) -> LoggedModel:
    if name.startswith("models:/"):
        return client.get_logged_model(_model_id(client, name.removeprefix("models:/").strip("/")))
    if name.startswith("runs:/"):
        run = client.get_run(name.removeprefix("runs:/").split("/")[0])
        if RUN_TAG not in run.data.tags:
            raise InputError(f"'{name}' is a run of something else: groundstate did not record it")
    else:
        run = _tagged_run(client, name, store)
    outputs = sorted(run.outputs.model_outputs if run.outputs is not None else [], key=lambda out: out.step)
    models = [client.get_logged_model(output.model_id) for output in outputs]
    ours = [model for model in models if model.name == MODEL_NAME]
    if not ours:
        raise InputError(f"'{name}' has no model in MLflow: the run has not finished, or tracking.log_model was off")
    return ours[-1]


def _model_id(client: MlflowClient, address: str) -> str:
    if "@" in address:
        version = client.get_model_version_by_alias(*address.rsplit("@", 1))
    elif "/" in address:
        version = client.get_model_version(*address.rsplit("/", 1))
    else:
        return address
    return str(version.source).removeprefix("models:/")


def _tagged_run(client: MlflowClient, run_id: str, store: str) -> Run:
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    query = f"tags.`{RUN_TAG}` = '{run_id}'" if "'" not in run_id else None
    found = client.search_runs(experiments, filter_string=query, max_results=1) if query else []
    if not found:
        raise InputError(f"no run '{run_id}' in MLflow at {public(store)}")
    return found[0]


def _local(model: LoggedModel, store: str) -> Path:
    place = model.artifact_location
    parts = urlsplit(place)
    if parts.scheme in ("", "file"):
        return Path(unquote(parts.path))
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "groundstate" / "models"
    kept = cache / model.model_id  # a logged model never changes
    if not kept.is_dir():
        from mlflow.artifacts import download_artifacts

        cache.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=cache))
        try:
            download_artifacts(artifact_uri=place, dst_path=str(temporary), tracking_uri=store)
            holder = next(temporary.rglob("MLmodel")).parent
            holder.replace(kept)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return kept


def _weights(folder: Path) -> Path:
    from mlflow.models import Model

    artifacts = Model.load(str(folder)).flavors["python_function"].get("artifacts", {})
    if MODEL_NAME not in artifacts:
        raise InputError(f"the model in {folder} was not logged by groundstate")
    return folder / str(artifacts[MODEL_NAME]["path"])
