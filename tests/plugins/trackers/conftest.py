"""A run as the hooks see it, without training, and one SQLite store for all tests that need MLflow."""

from __future__ import annotations

import secrets
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from groundstate.data import Splits, TensorSource, fingerprint
from groundstate.history import History
from groundstate_plugins.trackers.mlflow import MlflowTracker

CONFIG = """\
name = "toy"
seed = 3

[data]
type = "digits"

[energy.sparsity]
type = "l1"
weight = 0.1

[tracking]
type = "mlflow"
"""
UNITS, INPUTS, CLASSES = 5, 4, 3


@dataclass
class Shapes:
    input_shape: tuple[int, ...] = (INPUTS,)
    code_shape: tuple[int, ...] = (UNITS,)
    classes: int | None = CLASSES


class Labeller(nn.Module):
    role = "task"

    def predict(self, z: torch.Tensor) -> torch.Tensor:
        return z[:, :CLASSES]


class FakeModel:
    """Doubles the input, adds nothing, and calls the largest of the first units the label."""

    def __init__(self) -> None:
        self.shapes = Shapes()
        self.terms = nn.ModuleDict({"classification": Labeller()})
        self.energy = SimpleNamespace(terms={})
        self.components: dict[str, Any] = {}
        self.decoder = self.solver = self.backend = None

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([2 * x, x.new_zeros(len(x), UNITS - INPUTS)], 1)

    def predict(self, x: torch.Tensor) -> torch.Tensor:
        return self.terms["classification"].predict(self.encode(x))


@dataclass
class FakeRun:
    """What hooks read of a run."""

    id: str
    folder: Path
    splits: Splits
    name: str = "toy"
    model: FakeModel = field(default_factory=FakeModel)
    step: int = 0
    phase: str = "features"
    metrics: dict[str, float] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)
    steps_in_all: int = 500

    @property
    def inputs(self) -> Splits:
        return self.splits

    @property
    def stack(self) -> FakeModel:
        return self.model

    @property
    def history(self) -> History:
        return History(self.folder / "metrics.jsonl")

    def metrics_at(self, step: int) -> dict[str, float]:
        return {"energy": 1.0 / step, "energy/sparsity": 0.5 / step, "rate": 1e-3}

    def train(self, tracker: MlflowTracker, first: int, last: int) -> None:
        """Steps first … last."""
        for self.step in range(first, last + 1):
            values = self.metrics_at(self.step)
            self.metrics |= values
            tracker.step_done(self.step, values)

    def end_epoch(self, tracker: MlflowTracker) -> None:
        values = {"validation/energy": 2.0 / self.step}
        self.metrics |= values
        tracker.epoch_done(self, self.step, values)

    def finish(self, tracker: MlflowTracker) -> None:
        self.metrics |= {"test/classification/error": 0.25}
        (self.folder / "report.html").write_text("<h1>report</h1>")
        (self.folder / "run.json").write_text("{}")
        tracker.run_ended(self)


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., FakeRun]:
    """Makes runs; one of the same id goes on in the same folder."""
    x = torch.arange(40.0).reshape(10, INPUTS)
    y = torch.arange(10) % CLASSES
    splits = Splits(TensorSource(x=x, y=y), None, TensorSource(x=x[:3], y=y[:3]), fingerprint(x, y), CLASSES)

    def make(run_id: str | None = None) -> FakeRun:
        run_id = run_id or f"toy-{secrets.token_hex(4)}"
        folder = tmp_path / "runs" / run_id
        (folder / "model").mkdir(parents=True, exist_ok=True)
        (folder / "config.toml").write_text(CONFIG)
        (folder / "model" / "config.toml").write_text(CONFIG)
        (folder / "model" / "model.safetensors").write_bytes(b"weights")
        record = {
            "status": "running",
            "seed": 3,
            "config_hash": "c0ffee",
            "command": "groundstate train toy.toml",
            "versions": {"python": "3.11", "torch": "2.0"},
            "git": {"commit": "abc123", "dirty": True},
            "host": {"cpu": "a processor", "cores": 2, "accelerator": None},
        }
        return FakeRun(run_id, folder, splits, record=record)

    return make


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One SQLite store for the session: making its tables takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


@pytest.fixture(scope="session")
def client(store: str) -> Any:
    """MLflow's own view of the store."""
    with warnings.catch_warnings():
        # MLflow warns of itself while it is imported, here and, lazily, where a model is first loaded.
        warnings.simplefilter("ignore")
        import_module("mlflow.pyfunc.model")
        from mlflow import MlflowClient

        client = MlflowClient(store)
        client.search_experiments()
    return client


@pytest.fixture(autouse=True)
def _own_folder_and_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is written beside the project, and no test leaves MLflow an address."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    yield
    if "mlflow" in sys.modules:
        sys.modules["mlflow"].set_tracking_uri(None)
    assert not (tmp_path / "mlflow.db").exists()


@dataclass
class Seen:
    """What MLflow holds of one run."""

    client: Any
    run: Any

    def history(self, name: str) -> list[tuple[int, float]]:
        return [(m.step, m.value) for m in self.client.get_metric_history(self.run.info.run_id, name)]

    def steps(self, name: str) -> list[int]:
        return [step for step, _ in self.history(name)]

    def artifacts(self, client: Any = None) -> set[str]:
        return {file.path for file in (client or self.client).list_artifacts(self.run.info.run_id)}


@pytest.fixture
def seen(client: Any) -> Callable[..., Seen]:
    """Finds the one MLflow run of a groundstate run."""

    def find(run_id: str) -> Seen:
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        found = client.search_runs(experiments, f"tags.`groundstate.run_id` = '{run_id}'")
        assert len(found) == 1
        return Seen(client, found[0])

    return find
