"""A disk that is full in mid-run: one sentence, nothing half written, and the run goes on when there is room."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from tests.stores.conftest import Process, assert_all_there, small, until

from groundstate_plugins.trackers.spool import Delivered, undelivered

SIZE = 8 * 1024 * 1024


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "groundstate-test", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the right to mount a tmpfs")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)  # a sender may not have ended yet


def groundstate(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "groundstate", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", check=False)


def write(folder: Path, output: Path, epochs: int, **tracking: Any) -> None:
    folder.mkdir(exist_ok=True)
    config = small(output, {"type": "mlflow", "wait_seconds": 300, "log_model": False, **tracking}, epochs)
    (folder / "config.toml").write_text(tomli_w.dumps(config))


@pytest.mark.soak
def test_a_run_on_a_full_disk_goes_on_when_there_is_room(tmp_path: Path, disk: Path, client: Any) -> None:
    write(tmp_path / "whole", tmp_path / "whole" / "runs", 60)
    write(tmp_path / "cut", disk / "runs", 60, patience_seconds=0)
    assert groundstate(tmp_path / "whole", "train", "config.toml").returncode == 0
    (disk / "filler").write_bytes(bytes(SIZE - 400_000))
    failed = groundstate(tmp_path / "cut", "train", "config.toml")
    assert failed.returncode == 1
    assert "No space left on device" in failed.stderr
    assert "Traceback" not in failed.stderr
    (run,) = (file.parent for file in disk.glob("runs/*/run.json"))
    assert f"--resume {run.name}" in failed.stderr
    assert [file.name for file in run.iterdir() if file.name.startswith(".")] == []
    json.loads((run / "run.json").read_text())

    # still no room: again one sentence, and nothing is lost by trying
    again = groundstate(tmp_path / "cut", "train", "config.toml", "--resume", run.name)
    assert again.returncode in (1, 2), again.stderr
    assert "No space left on device" in again.stderr
    assert "Traceback" not in again.stderr

    (disk / "filler").unlink()
    done = groundstate(tmp_path / "cut", "train", "config.toml", "--resume", run.name)
    assert done.returncode == 0, done.stderr
    (whole,) = (file.parent for file in (tmp_path / "whole" / "runs").glob("*/run.json"))
    weights = "model/model.safetensors"
    assert (run / weights).read_bytes() == (whole / weights).read_bytes()
    until(lambda: groundstate(tmp_path / "cut", "sync", str(run)).returncode == 0 and not undelivered(run))
    known = Delivered.load(run)
    assert_all_there(client(known.tracking_uri), known.run_id, run)


@pytest.mark.soak
def test_no_space_for_artifacts_is_told_and_waits(tmp_path: Path, disk: Path, client: Any) -> None:
    """The store's own disk is full: the database takes nothing more, the run ends well and says what waits."""
    store = f"sqlite:///{disk / 'mlflow.db'}"
    write(tmp_path, tmp_path / "runs", 2, uri=store, wait_seconds=5, patience_seconds=0)
    (disk / "filler").write_bytes(bytes(SIZE - 50_000))
    done = groundstate(tmp_path, "train", "config.toml")
    assert done.returncode == 0, done.stderr
    assert "records are not delivered" in done.stderr
    assert "groundstate sync" in done.stderr
    assert "Traceback" not in done.stderr
    (run,) = (file.parent for file in (tmp_path / "runs").glob("*/run.json"))
    told = [groundstate(tmp_path, "sync", str(run))]
    until(lambda: told.append(groundstate(tmp_path, "sync", str(run))) or told[-1].returncode == 1)
    assert "disk" in told[-1].stdout or "space" in told[-1].stdout
    (disk / "filler").unlink()
    until(lambda: groundstate(tmp_path, "sync", str(run)).returncode == 0 and not undelivered(run))
    known = Delivered.load(run)
    assert_all_there(client(store), known.run_id, run)


@pytest.mark.soak
def test_no_space_for_a_servers_artifacts_is_told_and_waits(
    tmp_path: Path, disk: Path, make_server: Callable[..., Process], client: Any
) -> None:
    """The server answers, but its artifacts' disk is full: the run ends well, says what waits, and sync brings it."""
    database = f"sqlite:///{tmp_path / 'server.db'}"
    server = make_server("--backend-store-uri", database, "--artifacts-destination", str(disk / "artifacts"))
    uri = server.start("/health")
    with (disk / "filler").open("wb", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(bytes(4096))
    write(tmp_path, tmp_path / "runs", 2, uri=uri, wait_seconds=20, patience_seconds=0, log_model=True)
    done = groundstate(tmp_path, "train", "config.toml")
    assert done.returncode == 0, done.stderr
    assert f"records are not delivered to {uri} yet" in done.stderr
    assert "groundstate sync" in done.stderr
    assert "Traceback" not in done.stderr
    (run,) = (file.parent for file in (tmp_path / "runs").glob("*/run.json"))
    told = [groundstate(tmp_path, "sync", str(run))]
    until(lambda: told.append(groundstate(tmp_path, "sync", str(run))) or told[-1].returncode == 1)
    print(done.stderr, told[-1].stdout)
    (disk / "filler").unlink()
    until(lambda: groundstate(tmp_path, "sync", str(run)).returncode == 0 and not undelivered(run))
    known = Delivered.load(run)
    assert known.refused == 0
    assert_all_there(client(uri), known.run_id, run)
    kept = {file.name for file in (disk / "artifacts").rglob("*") if file.is_file()}
    assert {"config.toml", "run.json", "model.safetensors"} <= kept


@pytest.mark.soak
def test_a_run_that_cannot_begin_leaves_nothing(tmp_path: Path, disk: Path) -> None:
    write(tmp_path, disk / "runs", 1)
    (disk / "runs").mkdir()
    with (disk / "filler").open("wb", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(bytes(4096))
    done = groundstate(tmp_path, "train", "config.toml")
    assert done.returncode == 2
    assert done.stderr.startswith("output.folder: ")
    assert "No space left on device" in done.stderr
    assert list((disk / "runs").iterdir()) == []
