from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from groundstate_plugins.trackers import mlflow_records as records
from groundstate_plugins.trackers.spool import FOLDER


def test_params_are_dotted_and_short() -> None:
    config = {
        "name": "toy",
        "energy": {"sparsity": {"weight": 0.1, "non_negative": True}},
        "phases": {"a b": {"terms": ["x", "y"]}},
        "tracking": {"type": "mlflow"},
        "data": {"path": "/" + "long" * 500},
    }
    found = records.params(config)
    assert found["energy.sparsity.weight"] == "0.1"
    assert found["energy.sparsity.non_negative"] == "true"
    assert found["phases.a b.terms"] == '["x", "y"]'
    assert len(found["data.path"]) == 500
    assert found["data.path"].endswith("…")
    assert not any(key.startswith("tracking") for key in found)


@pytest.mark.parametrize(
    ("name", "valid"),
    [("energy/α-β", "energy/α-β"), ("rate [Hz]", "rate _Hz_"), ("/a//b/", "a/b"), ("x" * 300, "x" * 250)],
)
def test_names_are_made_valid(name: str, valid: str) -> None:
    assert records.valid_name(name) == valid


def test_tags_tell_where_a_run_came_from(make_run: Callable[..., Any]) -> None:
    run = make_run("toy-7")
    tags = records.tags(run)
    assert tags["groundstate.run_id"] == "toy-7"
    assert tags["mlflow.source.git.commit"] == "abc123"
    assert tags["git.dirty"] == "true"
    assert tags["version.torch"] == "2.0"
    assert tags["groundstate.data"] == run.splits.fingerprint
    assert "host.accelerator" not in tags


def test_a_run_outside_git_and_without_a_record_has_tags_too(make_run: Callable[..., Any]) -> None:
    run = make_run()
    run.record = {"git": None}
    assert records.tags(run)["groundstate.run_id"] == run.id


def test_the_data_set_is_known_by_its_fingerprint(make_run: Callable[..., Any]) -> None:
    run = make_run()
    found = records.dataset(run, {"data": {"type": "digits"}})
    profile = json.loads(found["profile"])
    assert found["name"] == "digits"
    assert found["digest"] == run.splits.fingerprint[:36]
    assert profile["samples"] == {"train": 10, "test": 3}
    assert profile["fingerprint"] == run.splits.fingerprint


def test_the_model_record_comes_with_an_example(make_run: Callable[..., Any]) -> None:
    run = make_run()
    (run.folder / FOLDER).mkdir()
    found = records.model(run, None)
    assert found is not None
    assert (found["input_shape"], found["code_shape"], found["labels"]) == ([4], [5], True)
    example = np.load(run.folder / found["example"])
    assert example.dtype == np.float32
    assert example.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_a_run_that_saved_no_model_has_no_model_record(make_run: Callable[..., Any]) -> None:
    run = make_run()
    for file in (run.folder / "model").iterdir():
        file.unlink()
    (run.folder / "model").rmdir()
    assert records.model(run, None) is None
