"""What a run tells MLflow about itself, as plain records: params, tags, the data set, the model."""

from __future__ import annotations

import getpass
import json
import re
import time
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundstate_plugins.trackers.spool import FOLDER, Record

if TYPE_CHECKING:
    from groundstate.run import Run
    from groundstate.sweep import Sweep

RUN_TAG = "groundstate.run_id"
NOT_PARAMS = ("tracking", "output")  # where a run is kept says nothing about its result
KEY_LENGTH = 250
PARAM_LENGTH = 500
TAG_LENGTH = 5000
DIGEST_LENGTH = 36
SWEEP_FILES = ("base.toml", "best.toml", "trials.json", "sweep.json", "*.png")
EXAMPLE_VALUES = 20_000


def now() -> int:
    """Milliseconds since 1970, MLflow's unit of time."""
    return time.time_ns() // 1_000_000


def valid_name(name: str) -> str:
    """The name with what MLflow does not take in a key replaced by ``_``."""
    name = re.sub(r"[^/\w.\- ]", "_", name)
    return re.sub("/{2,}", "/", name).strip("/")[:KEY_LENGTH]


def shortened(value: str, length: int) -> str:
    return value if len(value) <= length else value[: length - 1] + "…"


def flattened(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of nested tables with its dotted key."""
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def params(config: Mapping[str, Any]) -> dict[str, str]:
    """The resolved config as MLflow params: dotted keys, values as text."""
    told = {name: value for name, value in config.items() if name not in NOT_PARAMS}
    return {valid_name(key): shortened(_text(value), PARAM_LENGTH) for key, value in flattened(told)}


def tags(run: Run) -> dict[str, str]:
    """Who, what and where: versions, commit, config hash, host, folder, command."""
    record = run.record
    git = record.get("git") or {}
    command = record.get("command")
    found = {
        RUN_TAG: run.id,
        "groundstate.system": record.get("system") or run.name,
        "groundstate.folder": str(run.folder.absolute()),
        "groundstate.config_hash": record.get("config_hash"),
        "groundstate.seed": record.get("seed"),
        "groundstate.data": run.inputs.fingerprint,
        "groundstate.status": "running",
        "mlflow.source.name": " ".join(command) if isinstance(command, list) else command,
        "mlflow.source.type": "LOCAL",
        "mlflow.user": _user(),
        "mlflow.source.git.commit": git.get("commit"),
        "git.dirty": git.get("dirty"),
    }
    found |= {f"version.{name}": version for name, version in (record.get("versions") or {}).items()}
    found |= {f"host.{name}": value for name, value in (record.get("host") or {}).items()}
    return tag_values(found)


def _user() -> str | None:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return None


def tag_values(values: Mapping[str, Any]) -> dict[str, str]:
    """Values as MLflow takes them in tags; what is None is left out."""
    return {
        valid_name(name): shortened(_text(value), TAG_LENGTH) for name, value in values.items() if value is not None
    }


def dataset(run: Run, config: Mapping[str, Any]) -> Record:
    """The data as an MLflow dataset input: name, digest, where from, shapes, samples by split."""
    splits = run.inputs
    source = dict(config.get("data", {}))
    features = [_tensor("float32", splits.train.input_shape)]
    labelled = splits.classes is not None
    schema = {
        "mlflow_tensorspec": {
            "features": json.dumps(features),
            "targets": json.dumps([_tensor("int64", ())]) if labelled else None,
        }
    }
    profile = {
        "samples": {name: len(part) for name, part in splits.parts().items()},
        "classes": splits.classes,
        "input_shape": list(splits.train.input_shape),
        "fingerprint": splits.fingerprint,
    }
    return {
        "name": str(source.get("type", "data")),
        "digest": splits.fingerprint[:DIGEST_LENGTH],
        "source_type": "groundstate",
        "source": json.dumps(source, default=str),
        "schema": json.dumps(schema),
        "profile": json.dumps(profile),
    }


def _tensor(dtype: str, shape: tuple[int, ...]) -> Record:
    return {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": [-1, *shape]}}


def start(run: Run, *, uri: str, experiment: str, run_name: str, own_tags: Mapping[str, str]) -> Record:
    """The first record of a run."""
    config = read_config(run.folder)
    return {
        "op": "start",
        "time": now(),
        "uri": uri,
        "experiment": experiment,
        "run": run.id,
        "name": run_name,
        "params": params(config),
        "tags": tags(run) | tag_values(own_tags),
        "dataset": dataset(run, config),
    }


def start_sweep(sweep: Sweep, *, uri: str, experiment: str, run_name: str, own_tags: Mapping[str, str]) -> Record:
    """The first record of a sweep: what it searches, and where it stands; it has no data of its own."""
    record = sweep.record
    git = record.get("git") or {}
    told = {
        RUN_TAG: sweep.id,
        "groundstate.system": sweep.name,
        "groundstate.folder": str(sweep.folder.absolute()),
        "groundstate.status": "running",
        "groundstate.kind": "sweep",
        "mlflow.source.name": record.get("command"),
        "mlflow.source.type": "LOCAL",
        "mlflow.user": _user(),
        "mlflow.source.git.commit": git.get("commit"),
        "git.dirty": git.get("dirty"),
    }
    return {
        "op": "start",
        "time": now(),
        "uri": uri,
        "experiment": experiment,
        "run": sweep.id,
        "name": run_name,
        "params": params({"sweep": record["search"]}),
        "tags": tag_values(told) | tag_values(own_tags),
        "dataset": None,
    }


def read_config(run_folder: Path) -> dict[str, Any]:
    """The resolved config as it stands in the run's folder."""
    return tomllib.loads((run_folder / "config.toml").read_text("utf-8"))


def model(run: Run, register_as: str | None) -> Record | None:
    """How to log the saved model; writes an input example beside the spool. None without a saved model."""
    import numpy as np
    import torch

    if not (run.folder / "model").is_dir():
        return None
    train, shapes = run.inputs.train, run.stack.shapes
    values = int(np.prod(shapes.input_shape)) or 1
    rows = torch.arange(min(len(train), 2 if 2 * values <= EXAMPLE_VALUES else 1))
    example = f"{FOLDER}/example.npy"
    np.save(run.folder / example, train.read(rows).x.detach().cpu().numpy().astype(np.float32))
    return {
        "op": "model",
        "folder": "model",
        "example": example,
        "input_shape": list(shapes.input_shape),
        "code_shape": list(shapes.code_shape),
        "labels": any(getattr(term, "predict", None) is not None for term in run.model.terms.values()),
        "register_as": register_as,
        "distributions": _distributions(run),
        "step": run.step,
    }


def _distributions(run: Run) -> list[str]:
    """The distributions whose plugins the model is made of."""
    from groundstate.loading import LOADED

    parts = (*run.model.components.values(), run.model.solver, run.model.backend)
    entries = (LOADED.get(type(part)) for part in parts)
    return sorted({entry.source.distribution for entry in entries if entry and entry.source.distribution})
