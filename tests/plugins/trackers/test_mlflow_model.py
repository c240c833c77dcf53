"""The logged model: no pickle, codes and labels through mlflow.pyfunc, and the way back to its folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import groundstate
from groundstate.errors import InputError
from groundstate_plugins.trackers.mlflow import MlflowTracker
from groundstate_plugins.trackers.mlflow_lookup import find_model
from groundstate_plugins.trackers.mlflow_sender import DONE, Sender
from groundstate_plugins.trackers.spool import Delivered

X = np.arange(8, dtype=np.float32).reshape(2, 4)


@pytest.fixture
def finished(make_run: Callable[..., Any], store: str, client: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A run whose model is in the store, registered under the run's id."""
    monkeypatch.setattr(MlflowTracker, "_deliver", lambda self: None)
    monkeypatch.setattr(groundstate, "load", lambda folder: make_run().model, raising=False)
    run = make_run()
    tracker = MlflowTracker(uri=store, wait_seconds=0, register_as=run.id)
    tracker.run_started(run, False)
    run.train(tracker, 1, 5)
    run.finish(tracker)
    assert Sender(run.folder, parent=None, patience=10).run() == DONE
    return run


def loaded(uri: str, store: str) -> Any:
    import mlflow

    mlflow.set_tracking_uri(store)
    return mlflow.pyfunc.load_model(uri)


def test_the_logged_model_gives_codes_and_labels(finished: Any, store: str) -> None:
    model = loaded(f"models:/{Delivered.load(finished.folder).model_id}", store)
    expected = finished.model.encode(torch.as_tensor(X)).numpy()
    codes = model.predict(X)
    assert isinstance(codes, np.ndarray)
    np.testing.assert_array_equal(codes, expected)
    np.testing.assert_array_equal(model.predict(X, params={"output": "labels"}), expected[:, :3].argmax(1))
    with pytest.raises(ValueError, match="'codes' or 'labels'"):
        model.predict(X, params={"output": "nonsense"})


def test_many_inputs_go_through_in_parts(finished: Any, store: str) -> None:
    model = loaded(f"runs:/{Delivered.load(finished.folder).run_id}/model", store)
    x = np.random.default_rng(0).random((2500, 4), dtype=np.float32)
    np.testing.assert_array_equal(model.predict(x)[:, :4], 2 * x)


def test_the_signature_refuses_inputs_of_another_shape(finished: Any, store: str) -> None:
    from mlflow.exceptions import MlflowException

    model = loaded(f"models:/{finished.id}/1", store)
    with pytest.raises(MlflowException, match="expected shape"):
        model.predict(X[:, :3])


def test_nothing_is_pickled_and_all_is_pinned(finished: Any, store: str) -> None:
    folder = find_model(finished.id, store).parents[1]
    files = {file.name for file in folder.rglob("*") if file.is_file()}
    assert {"MLmodel", "mlflow_model.py", "model.safetensors", "config.toml", "requirements.txt"} <= files
    assert not {name for name in files if name.endswith((".pkl", ".pickle", ".pt", ".joblib"))}
    requirements = (folder / "requirements.txt").read_text().split()
    assert all("==" in line and "+" not in line for line in requirements)
    assert f"torch=={torch.__version__.partition('+')[0]}" in requirements
    example = json.loads((folder / "input_example.json").read_text())
    assert np.shape(example) == (2, 4)


@pytest.mark.parametrize("kind", ["run", "mlflow run", "model", "version", "alias"])
def test_a_model_is_found_by_any_of_its_names(finished: Any, store: str, client: Any, kind: str) -> None:
    known = Delivered.load(finished.folder)
    client.set_registered_model_alias(finished.id, "champion", "1")
    names = {
        "run": finished.id,
        "mlflow run": f"runs:/{known.run_id}",
        "model": f"models:/{known.model_id}",
        "version": f"models:/{finished.id}/1",
        "alias": f"models:/{finished.id}@champion",
    }
    folder = MlflowTracker.find_model(names[kind], store)
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert (folder / "config.toml").is_file()


@pytest.mark.parametrize(
    "name", ["no-such-run", "it's", "runs:/0123", "models:/m-0123", "models:/none/1", "models:/none@champion"]
)
def test_a_name_that_is_not_there_is_an_input_error(store: str, client: Any, name: str) -> None:
    with pytest.raises(InputError, match=r"no (run|model) '"):
        find_model(name, store)


def test_a_run_without_a_model_says_so(
    make_run: Callable[..., Any], store: str, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MlflowTracker, "_deliver", lambda self: None)
    run = make_run()
    tracker = MlflowTracker(uri=store, wait_seconds=0, log_model=False)
    tracker.run_started(run, False)
    run.finish(tracker)
    assert Sender(run.folder, parent=None, patience=10).run() == DONE
    with pytest.raises(InputError, match="has no model"):
        find_model(run.id, store)


def test_a_trained_model_comes_back_from_mlflow_with_equal_codes(tmp_path: Path, store: str, client: Any) -> None:
    config = {
        "name": "digits",
        "data": {"type": "digits"},
        "model": {"encoder": {"type": "recurrent", "steps": 2}, "decoder": {"type": "linear", "units": 12}},
        "energy": {
            "reconstruction": {"type": "squared-error"},
            "sparsity": {"type": "l1", "weight": 0.01, "non_negative": True},
            "classification": {"type": "cross-entropy"},
        },
        "inference": {"type": "amortised"},
        "phases": {"joint": {"epochs": 1}},
        "tracking": {"type": "mlflow", "uri": store, "wait_seconds": 60},
        "output": {"folder": str(tmp_path / "runs")},
    }
    run = groundstate.train(config)
    x = torch.rand(3, 64, generator=torch.Generator().manual_seed(0))
    model = loaded(f"runs:/{Delivered.load(run.folder).run_id}/model", store)
    again = groundstate.load(find_model(run.id, store))
    np.testing.assert_array_equal(model.predict(x.numpy()), run.model.encode(x).numpy())
    np.testing.assert_array_equal(again.encode(x), run.model.encode(x))
    labels = model.predict(x.numpy(), params={"output": "labels"})
    np.testing.assert_array_equal(labels, run.model.predict(x).argmax(1))
