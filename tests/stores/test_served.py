"""A logged model outside the process that trained it: served over HTTP, by the command line, in a fresh environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.stores.conftest import Process, free_port, small

from groundstate.run import Run, train
from groundstate_plugins.trackers.mlflow_lookup import find_model
from groundstate_plugins.trackers.spool import Delivered

# MLflow still uses a loader that SQLAlchemy has begun to warn of.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")

ALIAS = "models:/digits@champion"
X = np.random.default_rng(0).random((5, 64), dtype=np.float32)
HALVED = """
from groundstate import Regulariser
from torch import Tensor


class Halved(Regulariser):
    \"\"\"Half the squared code.\"\"\"

    def energy(self, z: Tensor) -> Tensor:
        return 0.5 * z.flatten(1).square().sum(1)
"""
REGISTRY = """
[regulariser.halved]
path = "halved:Halved"
summary = "half the squared code"
"""


@dataclass
class Logged:
    """A run whose model is registered as ``digits`` with the alias ``champion``."""

    run: Run
    store: str
    written: set[str]
    """The suffixes of all that was stored, before anyone loaded it and Python put compiled files beside the code."""

    @property
    def codes(self) -> np.ndarray[Any, Any]:
        codes: np.ndarray[Any, Any] = self.run.model.encode(torch.as_tensor(X)).numpy()
        return codes

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "MLFLOW_TRACKING_URI": self.store}


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Logged]:
    """Its energy has a term that is a local plugin, beside the config; the folder is gone when the model is loaded."""
    import mlflow

    folder = tmp_path_factory.mktemp("logged")
    (folder / "plugins").mkdir()
    (folder / "plugins" / "halved.py").write_text(HALVED)
    (folder / "plugins" / "registry.toml").write_text(REGISTRY)
    store = f"sqlite:///{folder / 'mlflow.db'}"
    tracking = {"type": "mlflow", "uri": store, "register_as": "digits", "wait_seconds": 500}
    config = small(folder / "runs", tracking)
    config["energy"]["small"] = {"type": "halved", "weight": 0.01}
    run = train({**config, "plugins": [str(folder / "plugins" / "registry.toml")]})
    written = {file.suffix for file in (folder / "mlartifacts").rglob("*") if file.is_file()}
    client = mlflow.MlflowClient(store)
    client.set_registered_model_alias("digits", "champion", client.search_model_versions("name='digits'")[0].version)
    (folder / "plugins" / "halved.py").unlink()
    (folder / "plugins" / "registry.toml").unlink()
    yield Logged(run, store, written)
    mlflow.set_tracking_uri(None)


def test_the_model_has_signature_example_requirements_and_its_code(logged: Logged) -> None:
    from mlflow.models import Model

    known = Delivered.load(logged.run.folder)
    assert known.refused == 0
    folder = find_model(ALIAS, logged.store).parents[1]
    model = Model.load(str(folder))
    assert model.signature is not None
    for schema, width in ((model.signature.inputs, 64), (model.signature.outputs, 20)):
        (tensor,) = schema.inputs
        assert (tensor.type, tuple(tensor.shape)) == (np.dtype("float32"), (-1, width))
    assert model.run_id == known.run_id
    assert np.shape(json.loads((folder / "input_example.json").read_text())) == (2, 64)
    requirements = (folder / "requirements.txt").read_text().split()
    assert f"torch=={torch.__version__.partition('+')[0]}" in requirements
    assert all("==" in line for line in requirements)
    # installed from a checkout, so that no index has this code
    assert (folder / "code" / "groundstate" / "model.py").is_file()
    assert (folder / "code" / "groundstate_plugins" / "registry.toml").is_file()
    assert (folder / "artifacts" / "model" / "plugins" / "0" / "halved.py").is_file()
    assert ".safetensors" in logged.written
    assert not logged.written & {".pkl", ".pickle", ".pt", ".joblib", ".pyc"}


@pytest.mark.slow
def test_mlflow_serves_the_model(logged: Logged, tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", ALIAS, "--env-manager", "local"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    # the environment without a checkout on its path: the code is the model's own
    environment = {"MLFLOW_TRACKING_URI": logged.store, "PYTHONPATH": ""}
    server = Process(command, f"http://127.0.0.1:{port}", tmp_path / "log", environment)
    server.start("/ping")
    try:
        np.testing.assert_array_equal(ask(server.url, {"inputs": X.tolist()}), logged.codes)
        labels = ask(server.url, {"inputs": X.tolist(), "params": {"output": "labels"}})
        np.testing.assert_array_equal(labels, logged.run.model.predict(torch.as_tensor(X)).argmax(1))
    finally:
        server.kill()


def ask(url: str, question: dict[str, Any]) -> np.ndarray[Any, Any]:
    body = json.dumps(question).encode()
    request = urllib.request.Request(f"{url}/invocations", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return np.asarray(json.load(answer)["predictions"], dtype=np.float32)


def groundstate(logged: Logged, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "groundstate", *words]
    return subprocess.run(command, env=logged.environment, capture_output=True, encoding="utf-8", check=False)


def test_the_command_line_takes_an_alias(logged: Logged, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    done = groundstate(logged, "encode", ALIAS, "x.npy", "-o", "codes.npy")
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "codes.npy"), logged.codes)
    done = groundstate(logged, "evaluate", ALIAS, "--json")
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    assert measured["test/classification/error"] == logged.run.metrics["test/classification/error"]
    done = groundstate(logged, "encode", "models:/digits@nobody", "x.npy")
    assert done.returncode == 2
    assert "no model 'models:/digits@nobody' in MLflow" in done.stderr
    assert done.stderr.count("\n") == 1


FRESH = """
import sys

import numpy as np
import mlflow

mlflow.set_tracking_uri(sys.argv[1])
codes = mlflow.pyfunc.load_model(sys.argv[2]).predict(np.load("x.npy"))
np.save("codes.npy", codes)
import groundstate, torch
print(groundstate.__file__, torch.__version__)
"""


@pytest.mark.soak
def test_the_model_loads_in_a_fresh_environment_made_from_its_requirements(logged: Logged, tmp_path: Path) -> None:
    requirements = find_model(ALIAS, logged.store).parents[1] / "requirements.txt"
    venv.create(tmp_path / "fresh", with_pip=True)
    python = tmp_path / "fresh" / "bin" / "python"
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(requirements)]
    subprocess.run(install, env=environment, check=True)
    np.save(tmp_path / "x.npy", X)
    done = subprocess.run(
        [str(python), "-c", FRESH, logged.store, ALIAS],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    print(f"\nfresh environment: {done.stdout.strip()}")
    np.testing.assert_array_equal(np.load(tmp_path / "codes.npy"), logged.codes)
