"""What the tests of systems train with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from groundstate.run import Run, train

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def small(tmp_path: Path) -> Any:
    """Trains an example, small: without tracking or report."""

    def call(name: str, **changes: Any) -> Run:
        quiet = {"tracking": False, "output.report": False, "output.folder": str(tmp_path), "callbacks": {}}
        return train(ROOT / "examples" / f"{name}.toml", {**quiet, **changes})

    return call
