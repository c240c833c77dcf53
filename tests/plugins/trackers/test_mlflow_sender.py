"""Delivery to a real store, with senders that are killed, repeated, refused and made to wait."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from groundstate_plugins.trackers.machine import Machine
from groundstate_plugins.trackers.mlflow import MlflowTracker
from groundstate_plugins.trackers.mlflow_process import BLOCKED, DONE, GAVE_UP
from groundstate_plugins.trackers.mlflow_sender import Sender, main
from groundstate_plugins.trackers.spool import FOLDER, Delivered, Spool, sender_lock, spool_file, undelivered

MakeRun = Callable[..., Any]
SeenOf = Callable[..., Any]


def send(run: Any, patience: float = 10.0) -> int:
    """Deliver what there is, in this process."""
    return Sender(run.folder, parent=None, patience=patience).run()


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tracker starts no sender of its own."""
    monkeypatch.setattr(MlflowTracker, "_deliver", lambda self: None)


@pytest.fixture
def trained(silent: None, make_run: MakeRun, store: str) -> Any:
    """A finished run of 30 steps of which nothing is delivered."""
    run = make_run()
    tracker = MlflowTracker(uri=store, wait_seconds=0, register_as=run.id)
    tracker.run_started(run, False)
    tracker.phase_started(run, "features")
    run.train(tracker, 1, 30)
    run.end_epoch(tracker)
    run.finish(tracker)
    return run


def until(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.02)


def test_all_of_a_run_arrives(trained: Any, seen: SeenOf) -> None:
    assert send(trained) == DONE
    found = seen(trained.id)
    info, data = found.run.info, found.run.data
    assert (info.status, info.run_name) == ("FINISHED", trained.id)
    assert data.params["energy.sparsity.weight"] == "0.1"
    assert data.tags["groundstate.status"] == "finished"
    assert data.tags["mlflow.source.git.commit"] == "abc123"
    assert data.metrics["test/classification/error"] == 0.25
    assert found.history("energy") == [(step, 1.0 / step) for step in range(1, 31)]
    assert found.history("validation/energy") == [(30, 2.0 / 30)]
    dataset = found.run.inputs.dataset_inputs[0].dataset
    assert dataset.digest == trained.splits.fingerprint[:36]
    assert {"config.toml", "report.html", "run.json", "environment.txt"} <= found.artifacts()
    place = found.client.get_experiment(info.experiment_id).artifact_location
    assert place.endswith("/mlartifacts/toy")


def test_sending_everything_again_changes_nothing(trained: Any, seen: SeenOf) -> None:
    assert send(trained) == DONE
    known = Delivered.load(trained.folder)
    Delivered.file(trained.folder).unlink()  # as if the sender had died before it could note anything
    assert send(trained) == DONE
    assert Delivered.load(trained.folder) == known
    found = seen(trained.id)
    assert found.steps("energy") == list(range(1, 31))
    assert len(found.run.outputs.model_outputs) == 1
    assert len(found.client.search_model_versions(f"name = '{trained.id}'")) == 1


def test_a_torn_line_waits_for_its_rest(trained: Any, seen: SeenOf) -> None:
    whole = spool_file(trained.folder).read_bytes()
    cut = whole.index(b'"step":20,') + 4
    spool_file(trained.folder).write_bytes(whole[:cut])
    assert send(trained) == DONE
    assert seen(trained.id).steps("energy") == list(range(1, 20))
    spool_file(trained.folder).write_bytes(whole)
    assert send(trained) == DONE
    assert seen(trained.id).steps("energy") == list(range(1, 31))


def test_more_metrics_than_a_request_takes(silent: None, make_run: MakeRun, store: str, seen: SeenOf) -> None:
    run = make_run()
    tracker = MlflowTracker(uri=store, wait_seconds=0, log_model=False)
    tracker.run_started(run, False)
    tracker.step_done(1, {f"unit/{number}": float(number) for number in range(1500)})
    run.train(tracker, 2, 500)
    run.finish(tracker)
    assert send(run) == DONE
    found = seen(run.id)
    assert found.steps("energy") == list(range(2, 501))
    assert found.run.data.metrics["unit/1499"] == 1499


def test_not_a_number_and_infinity_arrive(silent: None, make_run: MakeRun, store: str, seen: SeenOf) -> None:
    run = make_run()
    tracker = MlflowTracker(uri=store, wait_seconds=0, log_model=False)
    tracker.run_started(run, False)
    tracker.step_done(1, {"a": float("nan"), "b": float("inf")})
    tracker.epoch_done(run, 1, {"c": 1.0})
    tracker.run_failed(run, ValueError("diverged"))
    assert send(run) == DONE
    found = seen(run.id)
    assert found.steps("a") == found.steps("b") == [1]
    assert (found.run.info.status, found.run.data.tags["groundstate.failure"]) == ("FAILED", "diverged")


def test_what_mlflow_refuses_is_set_aside_and_the_rest_arrives(trained: Any, seen: SeenOf) -> None:
    lines = spool_file(trained.folder).read_bytes().splitlines(keepends=True)
    bad = b'{"op":"metrics","kind":"step","step":31,"time":1,"values":{"energy":null}}\n'
    lines[-1:-1] = [bad, b"not a record\n", b'{"op":"artifact","path":"gone.html"}\n']
    spool_file(trained.folder).write_bytes(b"".join(lines))
    assert send(trained) == DONE
    assert seen(trained.id).steps("energy") == list(range(1, 31))
    assert Delivered.load(trained.folder).refused == 3
    refused = (trained.folder / FOLDER / "refused.jsonl").read_text().splitlines()
    assert len(refused) == 3
    assert "gone.html" in refused[-1]


def test_a_run_that_was_deleted_in_mlflow_waits_for_a_person(trained: Any, seen: SeenOf) -> None:
    whole = spool_file(trained.folder).read_bytes()
    spool_file(trained.folder).write_bytes(b"".join(whole.splitlines(keepends=True)[:3]))
    assert send(trained) == DONE
    found = seen(trained.id)
    found.client.delete_run(found.run.info.run_id)
    spool_file(trained.folder).write_bytes(whole)
    assert send(trained) == BLOCKED
    assert "mlflow runs restore" in Delivered.load(trained.folder).problem
    found.client.restore_run(found.run.info.run_id)
    assert send(trained) == DONE
    assert found.steps("energy") == list(range(1, 31))
    assert Delivered.load(trained.folder).refused == 0


def test_a_deleted_experiment_is_named(silent: None, make_run: MakeRun, store: str, client: Any) -> None:
    run = make_run()
    client.delete_experiment(client.create_experiment(f"gone-{run.id}"))
    MlflowTracker(uri=store, experiment=f"gone-{run.id}").run_started(run, False)
    assert send(run) == BLOCKED
    assert f"the experiment 'gone-{run.id}' was deleted" in Delivered.load(run.folder).problem


def test_a_killed_run_does_not_stay_running_and_can_go_on(
    silent: None, make_run: MakeRun, store: str, seen: SeenOf
) -> None:
    run = make_run()
    first = MlflowTracker(uri=store, wait_seconds=0)
    first.run_started(run, False)
    run.train(first, 1, 20)
    first._flush()
    nobody = 2**22 + 1  # above the largest process number: a parent that is gone
    assert Sender(run.folder, parent=nobody, patience=10).run() == DONE
    assert (seen(run.id).run.info.status, seen(run.id).steps("energy")) == ("KILLED", list(range(1, 21)))

    second = MlflowTracker(uri=store, wait_seconds=0)
    second.run_started(run, True)
    run.train(second, 11, 40)
    second._flush()
    assert send(run) == DONE
    assert seen(run.id).run.info.status == "RUNNING"
    run.finish(second)
    assert send(run) == DONE
    assert seen(run.id).run.info.status == "FINISHED"
    assert seen(run.id).steps("energy") == list(range(1, 41))


def test_two_senders_exclude_each_other(trained: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with sender_lock(trained.folder):
        assert main([str(trained.folder)]) == GAVE_UP
    assert "another process" in capsys.readouterr().err
    assert not Delivered.file(trained.folder).exists()


def test_a_run_of_which_nothing_is_delivered_may_go_elsewhere(
    silent: None, make_run: MakeRun, store: str, seen: SeenOf, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run()
    tracker = MlflowTracker(uri="http://typing.mistake", log_model=False, wait_seconds=0)
    tracker.run_started(run, False)
    run.train(tracker, 1, 3)
    run.finish(tracker)
    assert main([str(run.folder), "--uri", "htp://wrong"]) == 2
    assert main([str(run.folder), "--uri", store]) == DONE
    assert seen(run.id).steps("energy") == [1, 2, 3]
    assert main([str(run.folder), "--uri", "http://another.place"]) == 2
    assert "goes on there" in capsys.readouterr().err


def test_a_folder_without_a_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "holds no tracking records" in capsys.readouterr().err


def test_a_spool_without_a_start_is_not_sent(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append({"op": "metrics", "kind": "step", "step": 1, "time": 1, "values": {"a": 1.0}})
    spool.close()
    assert Sender(tmp_path, parent=None, patience=1).run() == BLOCKED
    assert "does not begin with the start" in Delivered.load(tmp_path).problem


def test_a_sender_killed_in_mid_run_leaves_no_gap_and_no_repeat(
    make_run: MakeRun, store: str, seen: SeenOf, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run()
    tracker = MlflowTracker(uri=store, log_model=False, wait_seconds=60, head_start_seconds=0)
    tracker.run_started(run, False)
    run.train(tracker, 1, 200)
    run.end_epoch(tracker)
    until(lambda: Delivered.load(run.folder).steps.get("step", 0) == 200)
    until(lambda: Delivered.load(run.folder).system_samples > 0)
    sender = tracker._sender
    assert sender is not None
    assert sender.pid is not None
    os.kill(sender.pid, signal.SIGKILL)
    until(lambda: sender.exit_code is not None)
    run.train(tracker, 201, 400)
    run.end_epoch(tracker)  # starts it again
    assert sender.exit_code is None
    run.train(tracker, 401, 500)
    run.finish(tracker)
    assert "all " in capsys.readouterr().err
    found = seen(run.id)
    assert found.steps("energy") == list(range(1, 501))
    assert found.steps("validation/energy") == [200, 400]
    assert found.run.info.status == "FINISHED"
    assert "system/cpu_utilization_percentage" in found.run.data.metrics


def test_system_metrics_are_of_the_given_process() -> None:
    pytest.importorskip("psutil")
    machine = Machine(os.getpid())
    assert machine.sample() is None  # not yet
    machine._next = 0.0
    values = machine.sample()
    assert values is not None
    assert values["system/process_memory_megabytes"] > 10
    assert 0 < values["system/system_memory_usage_percentage"] <= 100
    machine._next = 0.0
    machine._process = machine._psutil.Process(os.getpid())
    assert machine.sample() is not None
    assert Machine(2**22 + 1).sample() is None


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def start_server(free_port: int, store: str, tmp_path: Path) -> Iterator[Callable[[], str]]:
    """Starts ``mlflow server`` on the session's store, with artifacts served by it."""
    running: list[subprocess.Popen[bytes]] = []

    def start() -> str:
        command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store]
        command += ["--artifacts-destination", str(tmp_path / "served"), "--workers", "1"]
        command += ["--host", "127.0.0.1", "--port", str(free_port)]
        with (tmp_path / "server.log").open("wb") as log:
            running.append(subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True))
        return f"http://127.0.0.1:{free_port}"

    yield start
    for server in running:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@pytest.mark.slow
def test_a_dead_server_costs_nothing_and_gets_everything_later(
    make_run: MakeRun,
    start_server: Callable[[], str],
    free_port: int,
    client: Any,
    seen: SeenOf,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    run = make_run()
    uri = f"http://127.0.0.1:{free_port}"
    tracker = MlflowTracker(uri=uri, experiment=f"served-{run.id}", wait_seconds=0.5, patience_seconds=90)
    tracker.run_started(run, False)
    times = []
    for step in range(1, 301):
        began = time.perf_counter()
        tracker.step_done(step, run.metrics_at(step))
        times.append(time.perf_counter() - began)
        time.sleep(0.005)
    run.step = 300
    began = time.perf_counter()
    tracker.epoch_done(run, 300, {"validation/energy": 1.0})
    times.append(time.perf_counter() - began)
    # a busy machine may stop any call for a moment; waiting for a server would show as seconds
    assert sorted(times)[int(0.95 * len(times))] < 5e-3
    assert max(times) < 0.1
    run.finish(tracker)
    assert f"groundstate sync {run.folder}" in capsys.readouterr().err
    assert undelivered(run.folder) > 300

    start_server()
    until(lambda: undelivered(run.folder) == 0, seconds=90)
    until(lambda: tracker._sender is not None and tracker._sender.exit_code == DONE)
    found = seen(run.id)
    assert found.steps("energy") == list(range(1, 301))
    assert found.run.info.status == "FINISHED"
    assert {"config.toml", "report.html"} <= found.artifacts(type(client)(uri))
    folder = MlflowTracker.find_model(run.id, uri)  # downloaded once, then kept
    assert folder == MlflowTracker.find_model(run.id, uri)
    assert folder.is_relative_to(tmp_path / "cache")
    assert (folder / "model.safetensors").read_bytes() == b"weights"
