"""Pruning a run: what is left shrinks everywhere, gives the same codes, and goes on as any run does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import groundstate
from groundstate.config import load_config
from groundstate.errors import InputError, Interrupted
from groundstate.pruning import parameters, prune, usage
from groundstate.reproduce import reproduce
from groundstate.run import Run, resume_run, train

UNITS = 24


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    return small(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run."""
    return train(small(tmp_path_factory.mktemp("whole")))


def small(tmp_path: Path) -> dict[str, Any]:
    return {
        "name": "tree",
        "data": {"type": "digits", "validation": 400, "test": 400},
        "model": {"decoder": {"type": "linear", "units": UNITS, "constraint": "sphere"}},
        "energy": {
            "reconstruction": {"type": "squared-error"},
            "sparsity": {
                "type": "tree-inhibition",
                "sparsity": 0.1,
                "strength": 0.1,
                "non_negative": True,
                "branching": [6, 1, 2],
                "learn": True,
                "row_sum": 5.0,
            },
        },
        "inference": {"type": "coordinate-descent", "order": "greedy", "max_iterations": 60},
        "learning": {"batch_size": 50, "log_every": 1, "checkpoint_seconds": 0, "average": 0.5},
        "phases": {"learn": {"epochs": 1}, "slow": {"epochs": 1}},
        "tracking": False,
        "callbacks": {"progress": False},
        "output": {"folder": str(tmp_path / "runs"), "report": False},
    }


@contextmanager
def interrupting(step: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Runs inside stop after this step, their state saved."""
    steps = Run.steps

    def until(run: Run) -> Iterator[int]:
        for done in steps(run):
            yield done
            if done == step:
                run.save_checkpoint()
                raise Interrupted("stopped")

    with monkeypatch.context() as patched:
        patched.setattr(Run, "steps", until)
        try:
            yield
        except Interrupted:
            return
    raise AssertionError("the run was not stopped")


def test_a_finished_run_leaves_a_smaller_one_that_is_finished_too(whole: Run) -> None:
    left = prune(whole.folder, keep=16)
    cut = left.record["pruned"]
    assert cut["source"] == whole.id
    assert cut["units"] == [UNITS, 16]
    assert cut["parameters"] == [parameters(whole.model), 16 * 64 + 16 * 16]
    assert cut["energy"][0] == pytest.approx(whole.metrics["test/energy"], rel=1e-6)
    assert cut["energy"][1] == pytest.approx(left.metrics["test/energy"], rel=1e-6)
    assert left.record["status"] == "finished"
    frequency, _ = usage(whole.model, whole.splits.train)
    assert frequency[cut["kept"]].min() >= frequency[[unit for unit in range(UNITS) if unit not in cut["kept"]]].max()
    stored = load_config(left.folder / "config.toml").config
    assert stored.model.decoder is not None
    assert stored.model.decoder.arguments()["units"] == 16
    assert len(stored.energy["sparsity"].arguments()["parents"]) == 16
    assert load_file(left.folder / "model" / "model.safetensors")["decoder.dictionary"].shape == (64, 16)
    # the run that was pruned stays
    assert load_file(whole.folder / "model" / "model.safetensors")["decoder.dictionary"].shape == (64, UNITS)


def test_codes_that_do_not_use_the_units_that_go_keep_their_energy(whole: Run) -> None:
    left = prune(whole.folder, least_used=4)
    kept = torch.tensor(left.record["pruned"]["kept"])
    code = whole.model.encode(whole.splits.test.read(torch.arange(400)).x)
    gone = torch.ones(UNITS, dtype=torch.bool)
    gone[kept] = False
    code = code[(code[:, gone] == 0).all(1)]
    assert len(code)
    torch.testing.assert_close(left.model.decode(code[:, kept]), whole.model.decode(code))
    before, after = (run.model.energy.terms["sparsity"].energy for run in (whole, left))
    torch.testing.assert_close(after(code[:, kept]), before(code))


def test_what_is_left_is_trained_in_the_phases_that_are_added(whole: Run) -> None:
    left = prune(whole.folder, {"phases.refine.epochs": 3}, keep=12)
    assert left.step == whole.step + 3 * left.steps_in_epoch
    assert left.metrics["test/energy"] < left.record["pruned"]["energy"][1]


def test_an_interrupted_run_is_pruned_where_it_stands_and_resumes_exactly(
    config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = Path(config["output"]["folder"])
    with interrupting(30, monkeypatch):
        train(config)
    (folder,) = runs.iterdir()
    left = prune(folder, keep=16)
    assert left.step == 2 * left.steps_in_epoch
    with interrupting(35, monkeypatch):
        prune(folder, keep=16)
    (cut,) = set(runs.iterdir()) - {folder, left.folder}
    again = resume_run(cut)
    for name, value in left.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value), name


def test_codes_that_start_from_the_last_ones_shrink_too(config: dict[str, Any]) -> None:
    config["energy"]["sparsity"] = {"type": "l1", "weight": 0.1}
    config["inference"] = {"type": "fista", "start": "previous", "max_iterations": 20}
    left = prune(train(config).folder, {"phases.refine.epochs": 1}, keep=10)
    assert left.record["status"] == "finished"


def test_the_last_layer_of_a_stack_is_pruned(config: dict[str, Any]) -> None:
    layer = {
        "model": {
            "encoder": {"type": "convolutional", "size": 3},
            "decoder": {"type": "convolutional", "maps": 6, "size": 3},
        },
        "energy": {"reconstruction": {"type": "squared-error"}, "sparsity": {"type": "l1", "weight": 0.1}},
        "inference": {"type": "amortised"},
        "phases": {"learn": {"epochs": 1}},
        "pool": {"type": "l2-pool", "maps": 2},
    }
    stack = {name: value for name, value in config.items() if name not in ("model", "energy", "inference", "phases")}
    stack.pop("learning")
    stack |= {"data": {**config["data"], "flat": False}, "layers": {"first": layer, "second": layer}}
    whole = train(stack)
    left = prune(whole.folder, keep=4)
    assert groundstate.load(left.folder).shapes.code_shape == (2, 4, 4)
    assert left.loaded.layers[0].config == whole.loaded.layers[0].config
    with pytest.raises(InputError, match="pools of 2 every 2 do not divide the code's 5"):
        prune(whole.folder, keep=5)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"keep": 0}, "would remove every one of the 24 units"),
        ({"least_used": 24}, "would remove every one of the 24 units"),
        ({"rarer_than": 1.1}, "would remove every one of the 24 units"),
        ({"keep": 24}, "nothing would be pruned"),
        ({"rarer_than": 0.0}, "nothing would be pruned"),
        ({"keep": 4, "least_used": 4}, "by one of"),
        ({}, "by one of"),
        ({"keep": 4, "overrides": {"phases.learn.epochs": 9}}, "the phase 'learn' is over"),
    ],
)
def test_what_cannot_be_pruned_is_said_and_nothing_is_written(
    whole: Run, tmp_path: Path, how: dict[str, Any], message: str
) -> None:
    overrides = {"output.folder": str(tmp_path / "left"), **how.get("overrides", {})}
    with pytest.raises(InputError, match=message):
        prune(whole.folder, overrides, **{key: value for key, value in how.items() if key != "overrides"})
    assert not list(tmp_path.iterdir())


def test_one_config_cannot_repeat_a_pruned_run(whole: Run) -> None:
    left = prune(whole.folder, keep=16)
    with pytest.raises(InputError, match="what pruning left of"):
        reproduce(left.folder)
