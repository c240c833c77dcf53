"""Pictures of a run at intervals: what is drawn, when, and what MLflow's page needs of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from groundstate.structure import Inhibition, LinearMap
from groundstate_plugins.trackers.mlflow import MlflowTracker
from groundstate_plugins.trackers.mlflow_pictures import images, pictures
from groundstate_plugins.trackers.spool import read_records, spool_file


@pytest.fixture
def run(make_run: Callable[..., Any]) -> Any:
    """Four filters of 2×2 pixels and a learned S of four units."""
    made = make_run()
    matrix = torch.tensor([[1.0, 0.0, -2.0, 0.5]] * 4).T
    made.model.decoder = SimpleNamespace(structure=lambda: LinearMap(matrix=matrix))
    learned = SimpleNamespace(direction="ascend")
    inhibition = Inhibition(matrix=torch.ones(4, 4) - torch.eye(4), sparsity=0.1)
    term = SimpleNamespace(declared=lambda: [("S", None, learned)], structure=lambda: inhibition)
    made.model.energy.terms["rivalry"] = term
    made.splits = SimpleNamespace(**{**vars(made.splits), "picture_shape": (2, 2), "parts": made.splits.parts})
    return made


def test_filters_and_learned_inhibition_are_drawn(run: Any, tmp_path: Path) -> None:
    filters, inhibition = pictures(run)
    assert (filters["key"], inhibition["key"]) == ("filters", "inhibition/rivalry")
    sheet = np.load(run.folder / filters["path"])
    assert sheet.shape == (5, 5)
    # each tile is one column of D on its own scale: white +max, black −max, grey 0; black between
    np.testing.assert_array_equal(sheet[:2, :2], [[191, 128], [0, 159]])
    assert (sheet[2] == 0).all()
    np.testing.assert_array_equal(np.load(run.folder / inhibition["path"]), 255 * (1 - np.eye(4)))
    for record in (filters, inhibition):
        images(run.folder, record, tmp_path)
        images(run.folder, record, tmp_path)  # sent twice
    names = sorted(file.name for file in tmp_path.glob("*+*"))
    assert len(names) == 4
    assert re.fullmatch(r"filters\+step\+0\+timestamp\+\d+\+[\w-]+\.png", names[1])
    assert names[3].startswith("inhibition~rivalry+step+0")
    with Image.open(tmp_path / names[1]) as image:
        assert image.size == (510, 510)


def test_they_are_drawn_at_even_distance_and_not_again_after_a_resume(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MlflowTracker, "_deliver", lambda self: None)

    def train(first: int, last: int, *, resumed: bool) -> None:
        run.step = first - 1
        tracker = MlflowTracker(uri="http://nowhere", wait_seconds=0, pictures=5)
        tracker.run_started(run, resumed)
        for run.step in range(first, last + 1, 10):
            tracker.epoch_done(run, run.step, {})
        tracker._flush()

    run.steps_in_all = 100
    train(10, 60, resumed=False)
    train(40, 100, resumed=True)
    records = [record for record, _ in read_records(spool_file(run.folder)) if record and record["op"] == "picture"]
    assert [record["step"] for record in records if record["key"] == "filters"] == [9, 20, 40, 60, 80, 100]
