"""Logs a run's saved model to MLflow: a pyfunc from code with the weights as artifacts, nothing pickled."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundstate_plugins.trackers.mlflow_carried import carry_code, carry_model, requirements
from groundstate_plugins.trackers.spool import Delivered, Record

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

MODEL_NAME = "model"


def log_model(client: MlflowClient, run_folder: Path, delivered: Delivered, record: Record) -> None:
    """Log the model, link it to its run and register it where asked.

    Each part looks first whether an earlier attempt has done it, so that a repeat changes nothing.
    """
    logged = _logged_model(client, run_folder, delivered)
    if str(logged.status) != "READY":
        with tempfile.TemporaryDirectory(prefix="groundstate-model-") as temporary:
            folder = Path(temporary) / "logged"
            _save_pyfunc(run_folder, delivered, record, logged, folder)
            client.log_model_artifacts(logged.model_id, str(folder))
        client.finalize_logged_model(logged.model_id, "READY")
    _link(client, delivered.run_id, logged.model_id, record["step"])
    if record.get("register_as"):
        _register(client, record["register_as"], delivered.run_id, logged.model_id)


def _logged_model(client: MlflowClient, run_folder: Path, delivered: Delivered) -> LoggedModel:
    if not delivered.model_id:
        found = client.search_logged_models(
            [delivered.experiment_id], filter_string=f"source_run_id = '{delivered.run_id}'"
        )
        ours = [model for model in found if model.name == MODEL_NAME]
        delivered.model_id = (ours[0] if ours else _create(client, delivered)).model_id
        delivered.save(run_folder)
    return client.get_logged_model(delivered.model_id)


def _create(client: MlflowClient, delivered: Delivered) -> LoggedModel:
    return client.create_logged_model(
        delivered.experiment_id,
        name=MODEL_NAME,
        source_run_id=delivered.run_id,
        params=dict(client.get_run(delivered.run_id).data.params),
        model_type="groundstate",
    )


def _save_pyfunc(run_folder: Path, delivered: Delivered, record: Record, logged: LoggedModel, folder: Path) -> None:
    import mlflow.pyfunc
    import numpy as np
    from mlflow.models import Model

    plugins = record.get("distributions", ())
    mlflow.pyfunc.save_model(
        str(folder),
        mlflow_model=Model(
            artifact_path=logged.artifact_location,
            model_uuid=logged.model_id,
            model_id=logged.model_id,
            run_id=delivered.run_id,
        ),
        python_model=str(Path(__file__).with_name("mlflow_model.py")),
        artifacts=carry_model(run_folder / record["folder"], run_folder / "config.toml", folder.with_name("carried")),
        code_paths=carry_code(plugins, folder.with_name("code")) or None,
        signature=signature(record),
        input_example=np.load(run_folder / record["example"]),
        pip_requirements=requirements(plugins),
    )


def signature(record: Record) -> Any:
    """float32 inputs to float32 codes; with a task, ``params={"output": "labels"}`` asks for its labels."""
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import DataType, ParamSchema, ParamSpec, Schema, TensorSpec

    def tensor(shape: Sequence[int]) -> Schema:
        return Schema([TensorSpec(np.dtype(np.float32), (-1, *shape))])

    output = ParamSchema([ParamSpec("output", DataType.string, "codes")])
    return ModelSignature(
        inputs=tensor(record["input_shape"]),
        outputs=tensor(record["code_shape"]),
        params=output if record["labels"] else None,
    )


def _link(client: MlflowClient, run_id: str, model_id: str, step: int) -> None:
    from mlflow.entities import LoggedModelOutput

    outputs = client.get_run(run_id).outputs
    linked = [] if outputs is None else outputs.model_outputs
    if all(output.model_id != model_id for output in linked):
        client.log_outputs(run_id, [LoggedModelOutput(model_id, step)])


def _register(client: MlflowClient, name: str, run_id: str, model_id: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS"):
            raise
    source = f"models:/{model_id}"
    if all(found.source != source for found in client.search_model_versions(f"name = '{name}'")):
        client.create_model_version(name, source, run_id=run_id, model_id=model_id)
