"""Runs with layers: trained one after the other, resumed exactly, saved and used as one feature extractor."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import groundstate
from groundstate.check import check
from groundstate.config import config_hash, dump_toml, load_config
from groundstate.encode import encode
from groundstate.errors import InputError
from groundstate.report import write_report
from groundstate.run import Run, resume_run, train
from groundstate.stack import Stack


def layer(maps: int, size: int, **more: Any) -> dict[str, Any]:
    return {
        "model": {
            "encoder": {"type": "convolutional", "size": size},
            "decoder": {"type": "convolutional", "maps": maps, "size": size},
        },
        "energy": {
            "reconstruction": {"type": "squared-error"},
            "sparsity": {"type": "group", "weight": 0.05, "maps": 2, "positions": 2},
        },
        "inference": {"type": "amortised"},
        "learning": {"batch_size": 50, "log_every": 1, "checkpoint_seconds": 0, "monitor": "validation/energy"},
        "phases": {"learn": {"epochs": 1}, "slow": {"epochs": 1, "schedule": "cosine"}},
        "pool": {"type": "l2-pool", "positions": 2},
        **more,
    }


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    return {
        "name": "stack",
        "data": {"type": "digits", "flat": False, "validation": 800, "test": 800},
        "tracking": False,
        "callbacks": {"progress": False},
        "output": {"folder": str(tmp_path / "runs"), "report": False},
        "layers": {
            "first": layer(4, 3, input={"type": "contrast-normalise", "size": 5}),
            "second": layer(6, 2),
        },
    }


def fine_tuned(config: dict[str, Any]) -> dict[str, Any]:
    top = {
        "model": {"encoder": {"type": "linear", "units": 20}},
        "energy": {"label": {"type": "cross-entropy"}},
        "inference": {"type": "amortised"},
        "learning": {"batch_size": 50, "log_every": 1, "checkpoint_seconds": 0},
        "phases": {"alone": {"epochs": 1}, "all": {"epochs": 2, "open": True, "rate": 3e-3}},
    }
    return {**config, "layers": {**config["layers"], "top": top}}


def test_layers_are_trained_in_turn_on_what_those_below_make_of_the_data(config: dict[str, Any]) -> None:
    run = train(config)
    phases = dict.fromkeys(record.phase for record in groundstate_history(run))
    assert list(phases) == ["first/learn", "first/slow", "second/learn", "second/slow"]
    assert {"first/test/energy", "second/test/energy/sparsity", "second/validation/code/density"} <= run.metrics.keys()
    energies = {
        name: [
            record.values[f"{name}/energy"] for record in groundstate_history(run) if f"{name}/energy" in record.values
        ]
        for name in ("first", "second")
    }
    for values in energies.values():
        assert values[-1] < values[0]
    stack = groundstate.load(run.folder)
    assert isinstance(stack, Stack)
    assert [one.name for one in stack] == ["first", "second"]
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(stack.encode(x), run.stack.encode(x))
    assert stack.shapes.input_shape == (1, 8, 8)
    assert stack.encode(x).shape == (3, 6, 1, 1)


def groundstate_history(run: Run) -> list[Any]:
    from groundstate.history import read_history

    return list(read_history(run.history.path))


@pytest.mark.parametrize("opened", [False, True])
def test_a_resume_within_any_layer_is_exact(config: dict[str, Any], opened: bool) -> None:
    config = fine_tuned(config) if opened else config
    whole = train(config)
    steps = whole.step
    for stop in (2, 11, steps - 2):
        run = Run(load_config(config), Path(config["output"]["folder"]) / f"stopped-{stop}-{opened}")
        run.start()
        for step in run.steps():
            if step == stop:
                break
        again = resume_run(run.folder)
        assert again.step == steps
        for name, value in whole.stack.state_dict().items():
            assert torch.equal(value, again.stack.state_dict()[name]), (stop, name)
        timeless = {"seconds"}
        for name, value in whole.record["metrics"].items():
            if name.rpartition("/")[2] not in timeless:
                assert again.record["metrics"][name] == value, (stop, name)


def test_fine_tuning_moves_the_layers_below_and_greedy_training_does_not(config: dict[str, Any]) -> None:
    greedy, tuned = train(config), train(fine_tuned(config))
    moved = [
        not torch.equal(value, tuned.stack.state_dict()[name])
        for name, value in greedy.stack.state_dict().items()
        if "encoder.filters" in name
    ]
    assert moved == [True, True]
    alone = copy.deepcopy(fine_tuned(config))
    del alone["layers"]["top"]["phases"]["all"]
    kept = train(alone)
    for name, value in greedy.stack.state_dict().items():
        assert torch.equal(value, kept.stack.state_dict()[name])
    assert tuned.metrics["top/test/label/error"] < kept.metrics["top/test/label/error"]


def test_a_layer_without_phases_stays_as_it_starts(config: dict[str, Any]) -> None:
    for one in config["layers"].values():
        one["phases"] = {}
    run = train(config)
    assert run.step == 0
    assert "second/test/energy" in run.metrics


def test_one_layer_with_transforms_around_it_needs_no_name(config: dict[str, Any]) -> None:
    config = {**config, **config["layers"]["first"]}
    del config["layers"]
    run = train(config)
    assert "test/energy" in run.metrics
    stack = groundstate.load(run.folder)
    assert isinstance(stack, Stack)
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(stack.encode(x), run.stack.encode(x))
    assert stack.encode(x).shape == (2, 4, 3, 3)


def test_codes_of_a_file_are_the_stacks_features(config: dict[str, Any], tmp_path: Path) -> None:
    run = train(config)
    x = np.random.default_rng(0).random((7, 1, 8, 8), dtype=np.float32)
    np.save(tmp_path / "x.npy", x)
    assert encode(groundstate.load(run.folder), [tmp_path / "x.npy"], tmp_path / "z.npy", batch_size=3).shape == (
        7,
        6,
        1,
        1,
    )
    np.testing.assert_allclose(np.load(tmp_path / "z.npy"), run.stack.encode(torch.from_numpy(x)).numpy(), rtol=1e-5)


def test_check_tells_each_layer(config: dict[str, Any]) -> None:
    report = check(load_config(config))
    assert [one.layer for one in (*report.below, report)] == ["first", "second"]
    assert report.below[0].features_shape == report.info.input_shape == (4, 3, 3)
    assert (report.below[0].input, report.pool) == ("contrast-normalise", "l2-pool")
    assert report.code_shape == (6, 2, 2)


def test_the_report_has_the_sections_of_each_layer(config: dict[str, Any]) -> None:
    run = train(config)
    page = write_report(run.folder).read_text(encoding="utf-8")
    assert "could not be made" not in page
    for title in (
        "first: Summary",
        "first: Filters",
        "second: Filters",
        "second: Energies and learning rate",
        "Config",
    ):
        assert f">{title}</h2>" in page
    ids = [part.split('"')[0] for part in page.split(' id="')[1:]]
    assert len(ids) == len(set(ids))


def test_the_config_of_a_stack_is_written_and_read_back(config: dict[str, Any], tmp_path: Path) -> None:
    loaded = load_config(config)
    file = tmp_path / "again.toml"
    file.write_text(dump_toml(loaded.config), encoding="utf-8")
    again = load_config(file)
    assert again.config == loaded.config
    assert config_hash(again.config) == config_hash(loaded.config)


CHANGES: list[tuple[str, Any, str]] = [
    (
        "layers.second.model.decoder.size",
        9,
        r"layers\.second\.model\.decoder.*size: filters of 9×9 are larger than images of 3×3",
    ),
    ("layers.first.pool.positions", 7, r"layers\.first\.pool.*positions: a pool of 7 is longer than the code's 6"),
    ("layers.first.input.size", 99, r"layers\.first\.input.*a window of 99×99 is too large for images of 8×8"),
    (
        "layers.first.energy.sparsity.positions",
        9,
        r"layers\.first\.energy\.sparsity.*a side of 9 is longer than the code's 6",
    ),
    (
        "layers.second.phases.learn.terms",
        ["sparsty"],
        r"layers\.second\.phases\.learn.*no energy term 'sparsty'.*sparsity",
    ),
    ("layers.second.learning.monitor", "energy", r"layers\.second\.learning\.monitor"),
    ("layers.first.phases.learn.open", True, r"layers\.first\.phases\.learn\.open.*no layer below"),
    ("energy.more.type", "l1", r"energy.*stands beside \[layers\]"),
    ("layers.first.poool.type", "l2-pool", r"layers\.first\.poool.*unknown key.*pool"),
]


@pytest.mark.parametrize(("key", "value", "message"), CHANGES, ids=[key for key, _, _ in CHANGES])
def test_a_fault_names_the_layer(config: dict[str, Any], key: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check(load_config(config, {key: value}))


def test_layers_whose_solver_keeps_no_graph_cannot_be_opened(config: dict[str, Any]) -> None:
    config = fine_tuned(config)
    config["layers"]["first"]["inference"] = {"type": "fista", "max_iterations": 3}
    with pytest.raises(InputError, match=r"layer 'first' infers its codes by 'fista'.*features = \"encoder\""):
        check(load_config(config))
    check(load_config(config, {"layers.first.features": "encoder"}))
