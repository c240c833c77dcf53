"""What the tracker does in the training process: it writes records and never waits."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pluggy
import pytest
import torch

from groundstate.hooks import PROJECT, RunSpec
from groundstate_plugins.trackers.mlflow import MlflowTracker, summary
from groundstate_plugins.trackers.spool import Delivered, read_records, spool_file

MakeTracker = Callable[..., MlflowTracker]


@pytest.fixture
def make_tracker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MakeTracker:
    """Makes trackers that start no sender."""
    monkeypatch.setattr(MlflowTracker, "_deliver", lambda self: None)

    def make(**fields: Any) -> MlflowTracker:
        return MlflowTracker(**{"uri": f"sqlite:///{tmp_path}/mlflow.db", "wait_seconds": 0} | fields)

    return make


def spooled(run: Any, op: str = "metrics") -> list[dict[str, Any]]:
    return [record for record, _ in read_records(spool_file(run.folder)) if record and record["op"] == op]


def test_the_training_process_does_not_import_mlflow() -> None:
    code = "import sys, groundstate_plugins.trackers.mlflow; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_it_follows_the_hooks_of_a_run(make_run: Callable[..., Any], make_tracker: MakeTracker) -> None:
    plugins = pluggy.PluginManager(PROJECT)
    plugins.add_hookspecs(RunSpec)
    plugins.register(make_tracker())
    plugins.check_pending()
    run = make_run()
    plugins.hook.run_started(run=run, resumed=False)
    plugins.hook.phase_started(run=run, phase="features")
    plugins.hook.step_done(run=run, step=10, metrics={"energy": 1.0})
    plugins.hook.epoch_done(run=run, step=10, metrics={"validation/energy": 2.0})
    plugins.hook.checkpoint_saved(run=run, path=run.folder / "checkpoint.safetensors")
    run.step = 10
    run.metrics = {"energy": 1.0, "validation/energy": 1.5, "test/classification/error": 0.1}
    (run.folder / "report.html").write_text("")
    plugins.hook.run_ended(run=run)
    ops = [record["op"] for record, _ in read_records(spool_file(run.folder)) if record]
    assert ops == ["start", "tags", "metrics", "metrics", "tags", "metrics", "artifact", "model", "tags", "end"]
    assert spooled(run, "start")[0]["experiment"] == "toy"
    assert spooled(run, "tags")[1]["values"]["groundstate.checkpoint"].endswith("checkpoint.safetensors")
    assert spooled(run, "end")[0]["status"] == "FINISHED"
    # measured once more at the same step: under a name of its own
    assert spooled(run)[-1]["values"] == {"test/classification/error": 0.1, "final/validation/energy": 1.5}


def test_names_tags_and_experiment_are_the_config_s(make_run: Callable[..., Any], make_tracker: MakeTracker) -> None:
    run = make_run()
    make_tracker(experiment="faces", run_name="first try", tags={"team": "vision"}).run_started(run, False)
    start = spooled(run, "start")[0]
    assert (start["experiment"], start["name"]) == ("faces", "first try")
    assert start["tags"]["team"] == "vision"
    assert start["params"]["energy.sparsity.weight"] == "0.1"


def test_a_metric_may_be_a_tensor_or_not_finite(make_run: Callable[..., Any], make_tracker: MakeTracker) -> None:
    run, tracker = make_run(), make_tracker()
    tracker.run_started(run, False)
    tracker.step_done(1, {"a": torch.tensor(0.5), "b": float("nan"), "c": float("inf")})
    tracker.epoch_done(run, 1, {})
    values = spooled(run)[0]["values"]
    assert (values["a"], values["c"]) == (0.5, float("inf"))
    assert values["b"] != values["b"]


def test_a_resumed_run_goes_on_where_it_began(
    make_run: Callable[..., Any], make_tracker: MakeTracker, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run()
    make_tracker().run_started(run, False)
    make_tracker().run_started(run, True)
    assert capsys.readouterr().err == ""
    make_tracker(uri="http://another.place").run_started(run, True)
    assert "where it began, not in http://another.place" in capsys.readouterr().err


def test_a_failure_says_why(make_run: Callable[..., Any], make_tracker: MakeTracker) -> None:
    run, tracker = make_run(), make_tracker()
    tracker.run_started(run, False)
    run.record["status"] = "failed"
    tracker.run_failed(run, ValueError("energy is NaN at step 7"))
    assert spooled(run, "tags")[-1]["values"]["groundstate.failure"] == "energy is NaN at step 7"
    assert spooled(run, "end")[0]["status"] == "FAILED"


def test_an_interruption_is_not_a_failure(make_run: Callable[..., Any], make_tracker: MakeTracker) -> None:
    run, tracker = make_run(), make_tracker()
    tracker.run_started(run, False)
    run.record["status"] = "interrupted"
    tracker.run_failed(run, KeyboardInterrupt())
    assert spooled(run, "tags")[-1]["values"]["groundstate.failure"] == "KeyboardInterrupt"
    assert spooled(run, "end")[0]["status"] == "KILLED"


def test_a_failure_before_the_start_is_silent(
    make_run: Callable[..., Any], make_tracker: MakeTracker, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run()
    make_tracker().run_failed(run, ValueError("no"))
    assert not spool_file(run.folder).exists()
    assert capsys.readouterr().err == ""


def test_a_resumed_run_records_each_step_once(make_run: Callable[..., Any], make_tracker: MakeTracker) -> None:
    run = make_run()
    first = make_tracker()
    first.run_started(run, False)
    run.train(first, 1, 20)
    run.end_epoch(first)
    run.train(first, 21, 25)
    first.checkpoint_saved(run, run.folder / "checkpoint.safetensors")
    run.train(first, 26, 33)
    first._flush()
    with spool_file(run.folder).open("ab") as file:  # killed while it wrote step 34
        file.write(b'{"op":"metrics","kind":"step","st')

    again = make_run(run.id)
    second = make_tracker()
    second.run_started(again, True)
    again.train(second, 26, 40)  # from the checkpoint
    again.end_epoch(second)
    again.train(second, 41, 60)
    again.end_epoch(second)
    again.finish(second)
    of_kind = {kind: [m["step"] for m in spooled(run) if m["kind"] == kind] for kind in ("step", "epoch")}
    assert of_kind["step"] == list(range(1, 61))
    assert of_kind["epoch"] == [20, 40, 60]
    assert len(spooled(run, "start")) == 1
    assert len(spooled(run, "resume")) == 1


def test_an_epoch_lost_with_its_process_is_recorded_on_resume(
    make_run: Callable[..., Any], make_tracker: MakeTracker
) -> None:
    run, first = make_run(), make_tracker()
    first.run_started(run, False)
    run.train(first, 1, 20)
    first._flush()  # and the process dies before epoch_done of step 20
    second = make_tracker()
    second.run_started(run, True)
    run.train(second, 11, 20)
    run.end_epoch(second)
    assert [(m["kind"], m["step"]) for m in spooled(run)][-2:] == [("step", 20), ("epoch", 20)]


def test_a_run_whose_spool_never_reached_the_disk_starts_anew(
    make_run: Callable[..., Any], make_tracker: MakeTracker
) -> None:
    run = make_run()
    make_tracker().run_started(run, True)
    assert len(spooled(run, "start")) == 1


def test_a_spool_that_a_power_cut_shortened_is_not_skipped(
    make_run: Callable[..., Any], make_tracker: MakeTracker
) -> None:
    run, first = make_run(), make_tracker()
    first.run_started(run, False)
    run.train(first, 1, 5)
    first._flush()
    Delivered(offset=10**6, records=9, run_id="abc", steps={"step": 8}).save(run.folder)
    second = make_tracker()
    size = spool_file(run.folder).stat().st_size
    second.run_started(run, True)
    run.train(second, 1, 10)
    second._flush()
    assert Delivered.load(run.folder).offset == size
    assert [m["step"] for m in spooled(run)] == [1, 2, 3, 4, 5, 9, 10]


def test_a_full_disk_is_said_once_and_stops_nothing(
    make_run: Callable[..., Any],
    make_tracker: MakeTracker,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, tracker = make_run(), make_tracker()
    tracker.run_started(run, False)

    def full(file: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(os, "write", full)
        for epoch in (1, 2, 3):
            run.train(tracker, 10 * epoch - 9, 10 * epoch)
            run.end_epoch(tracker)
    said = capsys.readouterr().err
    assert said.count("No space left on device") == 1
    tracker._flush()
    assert [m["step"] for m in spooled(run) if m["kind"] == "step"] == list(range(1, 31))


def test_the_summary_tells_how_to_send_the_rest(
    make_run: Callable[..., Any], make_tracker: MakeTracker, capsys: pytest.CaptureFixture[str]
) -> None:
    run, tracker = make_run(), make_tracker()
    tracker.run_started(run, False)
    run.train(tracker, 1, 3)
    run.finish(tracker)
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    assert f"groundstate sync {run.folder}" in said
    Delivered(offset=spool_file(run.folder).stat().st_size, records=9, run_id="abc", refused=2).save(run.folder)
    assert "all 9 records" in summary(run.folder)
    assert "2 were refused" in summary(run.folder)


def test_a_step_costs_little(make_run: Callable[..., Any], make_tracker: MakeTracker) -> None:
    run, tracker = make_run(), make_tracker()
    tracker.run_started(run, False)
    metrics = {f"energy/term{number}": 1 / 3 + number for number in range(8)}
    began, times = time.thread_time(), []
    for step in range(1, 3001):
        called = time.perf_counter()
        tracker.step_done(step, metrics)
        times.append(time.perf_counter() - called)
    # 8 µs on a quiet core. The mean counts this thread's own work, since others may keep the processor busy.
    assert (time.thread_time() - began) / len(times) < 50e-6
    assert sorted(times)[len(times) // 2] < 50e-6
