"""``groundstate bench`` as a person calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from groundstate.cli import main


def test_it_names_every_solver_that_can_take_the_problem(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(small), "--samples", "10", "--repeats", "1", "--max-iterations", "200"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("fista", "ista", "coordinate-descent", "µs/sample", "left out: solver hybrid"))


def test_for_machines_it_prints_json(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(small), "--samples", "10", "--repeats", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["samples"] == 10
    assert {"solver", "backend", "seconds", "certificate", "reached"} <= found["timings"][0].keys()


def test_a_model_of_another_shape_is_refused(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(small)]) == 0
    run = next(Path("runs").iterdir()).name
    capsys.readouterr()
    assert main(["bench", str(small), "model.decoder.units=9", "--model", run]) == 2
    assert "other parameters than this config's" in capsys.readouterr().err
