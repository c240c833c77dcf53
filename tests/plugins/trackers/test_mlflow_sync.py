"""What was left behind is delivered later, a sweep before its trials, which hang below it in MLflow."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from groundstate_plugins.trackers.mlflow import MlflowTracker
from groundstate_plugins.trackers.mlflow_sync import sync
from groundstate_plugins.trackers.spool import Delivered, undelivered


@dataclass
class FakeSweep:
    """What hooks read of a sweep."""

    id: str
    folder: Path
    name: str = "toy"
    record: dict[str, Any] = field(default_factory=lambda: {"search": {"sampler": "grid", "over": {"seed": [1, 2]}}})


@pytest.fixture
def make_sweep(tmp_path: Path) -> Callable[[str], FakeSweep]:
    def make(sweep_id: str) -> FakeSweep:
        folder = tmp_path / "runs" / "sweeps" / sweep_id
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "best.toml").write_text('name = "toy"\n')
        return FakeSweep(sweep_id, folder)

    return make


def away() -> str:
    """The address of a server that is not there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def left_behind(uri: str) -> MlflowTracker:
    return MlflowTracker(uri=uri, wait_seconds=0, patience_seconds=0, system_metrics=False, log_model=False)


@pytest.fixture
def no_sender(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is delivered while a run lives, as where every process was killed at once."""
    monkeypatch.setattr("groundstate_plugins.trackers.mlflow_process.SenderProcess.keep_running", lambda self: None)


def track_sweep(sweep: FakeSweep, uri: str, figures: list[float]) -> None:
    tracker = left_behind(uri)
    tracker.sweep_started(sweep, resumed=False)
    for step, figure in enumerate(figures, 1):
        tracker.sweep_advanced(sweep, step, {"validation/energy": figure})
    sweep.record |= {"status": "finished", "best": {"trial": 1, "run": "toy-1", "value": figures[-1]}}
    tracker.sweep_ended(sweep)


def track_trial(run: Any, sweep: FakeSweep, uri: str, number: int) -> None:
    run.record["parent"] = {"id": sweep.id, "trial": number, "folder": str(sweep.folder)}
    tracker = left_behind(uri)
    tracker.run_started(run, resumed=False)
    run.train(tracker, 1, 3)
    run.finish(tracker)


@pytest.mark.usefixtures("no_sender")
def test_trials_hang_below_their_sweep(
    make_run: Callable[..., Any], make_sweep: Callable[[str], FakeSweep], store: str, seen: Callable[[str], Any]
) -> None:
    sweep = make_sweep("toy-sweep-1")
    run = make_run()
    track_trial(run, sweep, store, 7)
    track_sweep(sweep, store, [3.0, 2.0])
    done = list(sync([run.folder, sweep.folder]))
    assert [(folder, complete) for folder, complete, _ in done] == [(sweep.folder, True), (run.folder, True)]
    assert undelivered(run.folder) == undelivered(sweep.folder) == 0
    parent, child = seen(sweep.id), seen(run.id)
    assert child.run.data.tags["mlflow.parentRunId"] == parent.run.info.run_id
    assert child.run.data.tags["groundstate.trial"] == "7"
    assert child.run.info.experiment_id == parent.run.info.experiment_id
    assert parent.run.info.status == "FINISHED"
    assert parent.run.data.params["sweep.over.seed"] == "[1, 2]"
    assert parent.history("best/validation/energy") == [(1, 3.0), (2, 2.0)]
    assert parent.run.data.tags["best.trial"] == "1"
    assert "best.toml" in parent.artifacts()
    assert not (run.folder / "tracking" / "refused.jsonl").exists()
    assert list(sync([run.folder, sweep.folder])) == []


@pytest.mark.usefixtures("no_sender")
def test_a_trial_waits_for_its_sweep(
    make_run: Callable[..., Any], make_sweep: Callable[[str], FakeSweep], store: str, seen: Callable[[str], Any]
) -> None:
    sweep = make_sweep("toy-sweep-2")
    run = make_run()
    track_sweep(sweep, store, [1.0])
    track_trial(run, sweep, store, 0)
    ((_, complete, text),) = sync([run.folder])
    assert not complete
    assert "its parent toy-sweep-2 is not in the store yet" in text
    assert all(complete for _, complete, _ in sync([run.folder, sweep.folder]))
    assert seen(run.id).run.data.tags["mlflow.parentRunId"] == seen(sweep.id).run.info.run_id
    assert seen(run.id).steps("energy") == [1, 2, 3]


@pytest.mark.usefixtures("no_sender")
def test_a_trial_without_its_sweep_is_delivered_all_the_same(
    make_run: Callable[..., Any], make_sweep: Callable[[str], FakeSweep], store: str, seen: Callable[[str], Any]
) -> None:
    run = make_run()
    track_trial(run, make_sweep("toy-sweep-3"), store, 0)
    ((_, complete, _),) = sync([run.folder])
    assert complete
    assert "mlflow.parentRunId" not in seen(run.id).run.data.tags
    (line,) = (run.folder / "tracking" / "refused.jsonl").read_text().splitlines()
    assert json.loads(line)["reason"] == "its parent toy-sweep-3 is not in the store"


@pytest.mark.usefixtures("no_sender")
def test_a_store_that_is_away_is_tried_once_and_another_may_be_given(
    make_run: Callable[..., Any], store: str, seen: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("groundstate_plugins.trackers.mlflow_sync.PATIENCE", 0.1)
    uri = away()
    runs = [make_run(), make_run()]
    for run in runs:
        tracker = left_behind(uri)
        tracker.run_started(run, resumed=False)
        run.train(tracker, 1, 2)
        run.finish(tracker)
    done = list(sync([run.folder for run in runs]))
    assert [complete for _, complete, _ in done] == [False, False]
    assert done[1][2].endswith(f"{uri} is away")
    ((_, complete, text),) = sync([runs[0].folder], to="no://where")
    assert (complete, "MLflow has no store" in text) == (False, True)
    assert all(complete for _, complete, _ in sync([run.folder for run in runs], to=store))
    assert seen(runs[0].id).steps("energy") == [1, 2]
    assert Delivered.load(runs[1].folder).tracking_uri == store


def test_a_sweep_of_real_runs_is_tracked_as_it_goes(
    store: str, seen: Callable[[str], Any], client: Any, tmp_path: Path
) -> None:
    pytest.importorskip("optuna", reason="needs Optuna: install the [sweep] extra")
    import numpy as np

    from groundstate.sweep import sweep

    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32))
    done = sweep(
        {
            "name": "tracked",
            "data": {"type": "npy", "path": str(tmp_path / "x.npy")},
            "model": {"decoder": {"type": "linear", "units": 6}},
            "energy": {"reconstruction": {"type": "squared-error"}, "sparsity": {"type": "l1", "weight": 0.1}},
            "inference": {"type": "fista", "max_iterations": 5, "tolerance": 1e-2},
            "phases": {"learn": {"epochs": 1}},
            "tracking": {"type": "mlflow", "uri": store, "log_model": False, "wait_seconds": 120},
            "callbacks": {"progress": False},
            "output": {"folder": str(tmp_path / "runs"), "report": False},
            "sweep": {"sampler": "grid", "jobs": 2, "metric": "test/energy", "over": {"seed": [1, 2]}},
        }
    )
    parent = seen(done.id)
    query = f"tags.`mlflow.parentRunId` = '{parent.run.info.run_id}'"
    children = client.search_runs([parent.run.info.experiment_id], query)
    assert sorted(child.data.tags["groundstate.trial"] for child in children) == ["0", "1"]
    assert {child.info.status for child in children} == {parent.run.info.status} == {"FINISHED"}
    assert min(child.data.metrics["test/energy"] for child in children) == done.record["best"]["value"]
    assert parent.steps("best/test/energy") == [1, 2]
    assert {"best.toml", "parallel.png", "trials.json"} <= parent.artifacts()
