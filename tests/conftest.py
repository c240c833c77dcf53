"""What every test file may use: the folders of real data, and an environment that nothing leaks into or out of."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"

# A test must never reach the network or leave a window open; set before anything imports these.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["MPLBACKEND"] = "Agg"

# Tensors in tests are small: a second thread costs more than it gives, and beside other work fifty times as much.
# The variable is for processes that tests start; torch reads it once and may have been imported by a plugin.
THREADS = os.environ.setdefault("OMP_NUM_THREADS", "1")
if "torch" in sys.modules:
    sys.modules["torch"].set_num_threads(int(THREADS))

# A shared machine stalls now and then: what a property test says must not depend on how long an example took.
settings.register_profile("groundstate", deadline=None)
settings.load_profile("groundstate")


@pytest.fixture(autouse=True)
def own_tracking(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test writes to the store that the person who runs the tests has set."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def own_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow puts the code of a model first on the path of the process that logs or loads it, and leaves it there."""
    monkeypatch.setattr(sys, "path", [*sys.path])


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return ROOT


def _shared(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"needs real data: there is no {folder}")
    return folder


@pytest.fixture(scope="session")
def mnist_folder() -> Path:
    """The folder of the four MNIST idx files, or a skip."""
    return _shared("mnist")


@pytest.fixture(scope="session")
def photos_folder() -> Path:
    """The folder of natural photographs, or a skip."""
    return _shared("photos")
