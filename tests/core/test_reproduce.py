"""A run again from its stored config, and a resume whose config has changed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from groundstate.errors import InputError
from groundstate.hooks import hookimpl
from groundstate.reproduce import compare, reproduce
from groundstate.run import Interrupted, Run, resume_run, train


@pytest.fixture
def tiny(tmp_path: Path) -> dict[str, Any]:
    """A run of a twentieth of a second."""
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32))
    return {
        "name": "tiny",
        "data": {"type": "npy", "path": str(tmp_path / "x.npy")},
        "model": {"decoder": {"type": "linear", "units": 6}},
        "energy": {"reconstruction": {"type": "squared-error"}, "sparsity": {"type": "l1", "weight": 0.1}},
        "inference": {"type": "fista", "max_iterations": 5, "tolerance": 1e-2},
        "learning": {"batch_size": 100, "checkpoint_seconds": 0},
        "phases": {"learn": {"epochs": 2}},
        "backend": {"type": "cpu", "threads": 1},
        "tracking": False,
        "callbacks": {"progress": False},
        "output": {"folder": str(tmp_path / "runs"), "report": False},
    }


def test_a_run_again_is_the_same_bit_for_bit(tiny: dict[str, Any]) -> None:
    first = train(tiny)
    found = reproduce(first.folder)
    assert found.identical
    assert found.agrees()
    assert found.digests[0] == found.digests[1]
    assert found.second != found.first
    json.dumps(found.record())


def test_what_differs_is_measured(tiny: dict[str, Any]) -> None:
    first = train(tiny).folder
    second = train(tiny).folder
    weights = load_file(second / "model" / "model.safetensors")
    weights["decoder.dictionary"][0, 0] += 0.5
    save_file(weights, second / "model" / "model.safetensors")
    record = json.loads((second / "run.json").read_text())
    record["metrics"]["test/energy"] *= 1.01
    record["versions"]["torch"] = "0.1"
    (second / "run.json").write_text(json.dumps(record))
    found = compare(first, second)
    assert found.parameters == {"decoder.dictionary": pytest.approx(0.5)}
    assert list(found.figures) == ["test/energy"]
    assert found.largest == pytest.approx(0.01 / 1.01)
    assert "version of torch" in found.difference.code
    assert (found.agrees(), found.agrees(0.005), found.agrees(0.02)) == (False, False, True)
    save_file({"other": weights["decoder.dictionary"]}, second / "model" / "model.safetensors")
    assert compare(first, second).parameters["other"] == math.inf


def test_what_cannot_be_reproduced_is_refused_before_training(tiny: dict[str, Any], tmp_path: Path) -> None:
    run = train(tiny)
    record = json.loads((run.folder / "run.json").read_text())
    np.save(tmp_path / "x.npy", np.random.default_rng(1).normal(size=(200, 8)).astype(np.float32))
    with pytest.raises(InputError, match="data are not those"):
        reproduce(run.folder)
    for changes, said in (
        ({"status": "failed"}, "is failed"),
        ({"changed": [{"step": 3, "keys": ["learning.rate"]}]}, r"was changed on the way \(step 3\)"),
    ):
        (run.folder / "run.json").write_text(json.dumps(record | changes))
        with pytest.raises(InputError, match=said):
            reproduce(run.folder)
    assert len(list((tmp_path / "runs").iterdir())) == 1


# -- resuming with another config -------------------------------------------------------------------


class StopAfter:
    """Interrupts a run after one epoch."""

    @hookimpl
    def should_stop(self, run: Run) -> None:
        run.save_checkpoint()
        raise Interrupted("enough")


@pytest.fixture
def cut(tiny: dict[str, Any]) -> Path:
    """The folder of a run that was interrupted after its first epoch."""
    with pytest.raises(Interrupted):
        train(tiny, followers=[StopAfter()])
    return next(Path(tiny["output"]["folder"]).iterdir())


def test_a_changed_config_is_refused_with_its_keys(tiny: dict[str, Any], cut: Path) -> None:
    before = (cut / "config.toml").read_text()
    overrides = {"learning.rate": 0.5, "energy.sparsity.weight": 0.7}
    with pytest.raises(InputError, match="begun with another config") as raised:
        train(tiny, overrides, resume=cut)
    assert "learning.rate was 0.001 and is 0.5" in str(raised.value)
    assert "energy.sparsity.weight was 0.1 and is 0.7" in str(raised.value)
    assert (cut / "config.toml").read_text() == before


def test_what_changes_no_number_is_no_change(tiny: dict[str, Any], cut: Path) -> None:
    run = train({**tiny, "name": "other", "callbacks": {}}, resume=cut)
    assert run.record["status"] == "finished"
    assert "changed" not in run.record


def test_a_changed_config_goes_on_when_told_and_is_kept(tiny: dict[str, Any], cut: Path) -> None:
    run = train(tiny, {"phases.learn.epochs": 4}, resume=cut, allow_changes=True)
    steps = run.steps_in_epoch
    assert run.step == 4 * steps
    assert run.record["changed"] == [{"step": steps, "keys": ["phases.learn.epochs"]}]
    assert "epochs = 4" in (cut / "config.toml").read_text()
    with pytest.raises(InputError, match="finished"):
        resume_run(cut)


def test_a_change_that_the_checkpoint_cannot_follow_is_refused(tiny: dict[str, Any], cut: Path) -> None:
    before = (cut / "config.toml").read_text()
    with pytest.raises(InputError, match=r"decoder\.dictionary would have another shape"):
        train(tiny, {"model.decoder.units": 7}, resume=cut, allow_changes=True)
    assert (cut / "config.toml").read_text() == before
