"""Real MLflow servers on free ports, and small real runs that are recorded in them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from groundstate.history import read_history

UNEQUAL = ("samples_per_second", "seconds")
"""Metrics that are times: no two runs have the same."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], Any], seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.05)


class Process:
    """A server in a process group of its own, which can be killed and started again."""

    def __init__(self, command: list[str], url: str, log: Path, environment: Mapping[str, str] | None = None) -> None:
        self.command, self.url, self.log = command, url, log
        # MLflow starts uvicorn by its bare name: it is found beside this Python, the environment active or not.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        self.environment = {**os.environ, "PATH": path, **(environment or {})}
        self._running: subprocess.Popen[bytes] | None = None

    def start(self, health: str = "") -> str:
        with self.log.open("ab") as log:
            self._running = subprocess.Popen(
                self.command, stdout=log, stderr=log, env=self.environment, start_new_session=True
            )
        until(lambda: self._answers(self.url + health))
        return self.url

    def _answers(self, url: str) -> bool:
        assert self._running is not None
        assert self._running.poll() is None, self.log.read_text()
        try:
            with urllib.request.urlopen(url, timeout=5):
                return True
        except OSError:
            return False

    def kill(self) -> None:
        """kill -9, with all its workers."""
        if self._running is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._running.pid, signal.SIGKILL)
            self._running.wait()
            self._running = None


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Makes ``mlflow server`` processes, SQLite and served artifacts by default; not started."""
    made: list[Process] = []

    def make(*options: str, **environment: str) -> Process:
        folder = tmp_path / f"server{len(made)}"
        folder.mkdir()
        options = options or (
            *("--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"),
            *("--artifacts-destination", str(folder / "artifacts")),
        )
        port = free_port()
        command = [sys.executable, "-m", "mlflow", "server", *options]
        command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        made.append(Process(command, f"http://127.0.0.1:{port}", folder / "log", environment))
        return made[-1]

    yield make
    for server in made:
        server.kill()


@pytest.fixture(autouse=True)
def _own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is written beside the project, and no test leaves MLflow an address."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield
    if "mlflow" in sys.modules:
        sys.modules["mlflow"].set_tracking_uri(None)


@pytest.fixture
def client() -> Callable[[str], Any]:
    """MLflow's own client for a store."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow warns of itself while it is imported
        import_module("mlflow.pyfunc.model")
        from mlflow import MlflowClient
    return MlflowClient


def small(folder: Path, tracking: Mapping[str, Any] | bool, epochs: int = 2, **changes: Any) -> dict[str, Any]:
    """A real config, quick to train: DrSAE on digits, every step logged."""
    return {
        "name": "small",
        "data": {"type": "digits"},
        "model": {
            "encoder": {"type": "recurrent", "steps": 3},
            "decoder": {"type": "linear", "units": 20, "initialise": "data"},
        },
        "energy": {
            "reconstruction": {"type": "squared-error"},
            "sparsity": {"type": "l1", "weight": 0.01, "non_negative": True},
            "classification": {"type": "cross-entropy", "weight": 0.3},
        },
        "inference": {"type": "amortised"},
        "learning": {"rate": 4e-3, "batch_size": 100, "log_every": 1, "monitor": "validation/classification/error"},
        "phases": {"joint": {"epochs": epochs}},
        "backend": {"type": "cpu", "threads": 1},
        "callbacks": {"progress": False},
        "output": {"folder": str(folder), "report": False},
        "tracking": tracking,
        **changes,
    }


def histories(client: Any, run_id: str) -> dict[str, list[tuple[int, float]]]:
    """Every metric of a run in MLflow, in the order that MLflow tells it; times and the machine's left out."""
    names = client.get_run(run_id).data.metrics
    return {
        name: [(metric.step, metric.value) for metric in client.get_metric_history(run_id, name)]
        for name in names
        if name not in UNEQUAL and not name.startswith("system/")
    }


def recorded(run_folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every metric of steps and epochs as the run itself wrote it down."""
    found: dict[str, list[tuple[int, float]]] = {}
    for record in read_history(run_folder / "metrics.jsonl"):
        if record.kind != "final":
            for name, value in record.values.items():
                if name not in UNEQUAL:
                    found.setdefault(name, []).append((record.step, value))
    return found


def assert_all_there(client: Any, run_id: str, run_folder: Path) -> None:
    """Every metric of the run is in MLflow, in order, none missing and none twice."""
    there = histories(client, run_id)
    for name, values in recorded(run_folder).items():
        assert there[name] == values, name
