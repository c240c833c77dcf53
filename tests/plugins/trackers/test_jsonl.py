"""The jsonl tracker, following real runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from groundstate.errors import RunError
from groundstate.run import Run, train
from groundstate_plugins.trackers.jsonl import Jsonl


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32))
    return {
        "name": "small",
        "data": {"type": "npy", "path": str(tmp_path / "x.npy")},
        "model": {"encoder": {"type": "linear"}, "decoder": {"type": "linear", "units": 4}},
        "energy": {"fit": {"type": "squared-error"}},
        "inference": {"type": "amortised"},
        "learning": {"batch_size": 8, "log_every": 1},
        "phases": {"all": {"epochs": 2}},
        "tracking": {"type": "jsonl"},
        "callbacks": {"progress": False},
    }


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_a_run_is_written_down_from_start_to_end(config: dict[str, Any], tmp_path: Path) -> None:
    run = train(config)
    found = lines(tmp_path / "runs.jsonl")
    assert [line["event"] for line in found] == ["started", "epoch", "epoch", "ended"]
    assert {line["run"] for line in found} == {run.id}
    assert found[0]["config_hash"] == run.record["config_hash"]
    assert found[-1]["metrics"] == run.metrics
    assert found[1]["metrics"]["validation/energy"] > 0


def test_two_runs_share_the_file(config: dict[str, Any], tmp_path: Path) -> None:
    ids = {train(config).id for _ in range(2)}
    assert {line["run"] for line in lines(tmp_path / "runs.jsonl")} == ids


def test_steps_are_written_where_they_are_asked_for(config: dict[str, Any], tmp_path: Path) -> None:
    config["tracking"] = {"type": "jsonl", "steps": True, "path": str(tmp_path / "deep" / "log.jsonl")}
    run = train(config)
    found = lines(tmp_path / "deep" / "log.jsonl")
    assert [line["step"] for line in found if line["event"] == "step"] == list(range(1, run.step + 1))


def test_a_failure_is_written_down(config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def burst(*_: object) -> None:
        raise RuntimeError("made up")

    monkeypatch.setattr(Run, "_end_epoch", burst)
    with pytest.raises(RunError, match="made up"):
        train(config)
    assert lines(tmp_path / "runs.jsonl")[-1]["event"] == "failed"
    assert "made up" in lines(tmp_path / "runs.jsonl")[-1]["error"]


def test_the_path_is_beside_the_working_directory_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Jsonl().config.path == tmp_path / "runs.jsonl"
