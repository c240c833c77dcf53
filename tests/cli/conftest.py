"""A config that trains in a second, and the command line called as a person would."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

SMALL = """\
[data]
type = "digits"

[model.decoder]
type = "linear"
units = 8

[energy.reconstruction]
type = "squared-error"

[energy.sparsity]
type = "l1"
weight = 0.1

[inference]
type = "fista"
max_iterations = 5

[learning]
batch_size = 500

[phases.only]
epochs = 1

[tracking]
type = "none"

[output]
report = false
"""


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    path = tmp_path / "small.toml"
    path.write_text(SMALL, encoding="utf-8")
    return path


@pytest.fixture
def groundstate(capfd: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """The command line, in this process."""
    from groundstate.cli import main

    def call(*words: object) -> Done:
        capfd.readouterr()
        code = main([str(word) for word in words])
        return Done(code, *capfd.readouterr())

    return call
