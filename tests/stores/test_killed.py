"""A run that is killed with -9 at random moments and resumed each time ends as if nothing had happened."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import tomli_w
from tests.stores.conftest import assert_all_there, histories, small, until

from groundstate_plugins.trackers.spool import Delivered, undelivered

PACE = """
import time

from groundstate import Callback, hookimpl


class Pace(Callback):
    \"\"\"Gives every step a least duration.\"\"\"

    @hookimpl
    def step_done(self) -> None:
        time.sleep(0.003)
"""
REGISTRY = """
[callback.pace]
path = "pace:Pace"
summary = "gives every step a least duration"
"""


class Killed:
    """One config, trained by the command line in processes that are killed. kills: so far."""

    def __init__(self, folder: Path, epochs: int, chance: random.Random) -> None:
        folder.mkdir()
        (folder / "pace.py").write_text(PACE)
        (folder / "registry.toml").write_text(REGISTRY)
        tracking = {"type": "mlflow", "wait_seconds": 300, "head_start_seconds": 0}
        config = small(folder / "runs", tracking, epochs)
        config["learning"]["checkpoint_seconds"] = 0.3
        config["callbacks"] = {"pace": {"type": "pace"}, "progress": {"type": "progress"}}
        (folder / "config.toml").write_text(tomli_w.dumps(config))
        self.folder, self.chance, self.kills = folder, chance, 0
        self.moments: list[str] = []

    @property
    def runs(self) -> list[Path]:
        return sorted(file.parent for file in (self.folder / "runs").glob("*/run.json"))

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "groundstate", "train", "config.toml"]
        log = (self.folder / "log").open("ab")
        with log:
            return subprocess.Popen(
                [*command, *(["--resume", self.runs[-1].name] if self.runs else [])],
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )

    def train(self, kills: int) -> Path:
        """To the end, with this many kills on the way where the run is long enough for them. Gives its folder."""
        while True:
            size = (self.folder / "log").stat().st_size if (self.folder / "log").exists() else 0
            with self.start() as process:
                if self.kills < kills and self._kill(process, size):
                    self.kills += 1
                    continue
                assert process.wait(900) == 0, (self.folder / "log").read_text()[-2000:]
            assert len(self.runs) <= 1
            return self.runs[0]

    def _kill(self, process: subprocess.Popen[bytes], told: int) -> bool:
        """At a random moment after it began to train, or while it starts; its sender too, one time in three."""
        if self.chance.random() < 0.8:
            until(lambda: self._trains(told) or process.poll() is not None)
        delay = self.chance.uniform(0, 2)
        time.sleep(delay)
        if process.poll() is not None:
            return False
        children = psutil.Process(process.pid).children() if self.chance.random() < 1 / 3 else []
        process.kill()
        for child in children:
            child.kill()
        process.wait()
        return True

    def _trains(self, told: int) -> bool:
        return b"ing small-" in (self.folder / "log").read_bytes()[told:]


def weights(run: Path) -> bytes:
    return (run / "model" / "model.safetensors").read_bytes()


def assert_as_uninterrupted(run: Path, whole: Path, client: Any) -> None:
    known = [Delivered.load(folder) for folder in (run, whole)]
    until(lambda: not undelivered(run) and not undelivered(whole))
    assert weights(run) == weights(whole)
    stores = [client(one.tracking_uri) for one in known]
    there, expected = (histories(store, one.run_id) for store, one in zip(stores, known, strict=True))
    assert there.keys() == expected.keys()
    for name, values in expected.items():
        assert there[name] == values, name
    assert_all_there(stores[0], known[0].run_id, run)
    assert [one.refused for one in known] == [0, 0]
    told = stores[0].get_run(known[0].run_id)
    assert told.info.status == "FINISHED"
    assert len(told.outputs.model_outputs) == 1
    experiment = stores[0].get_experiment_by_name("small").experiment_id
    assert len(stores[0].search_runs([experiment])) == 1


def killed_again_and_again(tmp_path: Path, client: Any, kills: int, epochs: int) -> int:
    """Runs until that many kills have happened. Gives how many runs it took."""
    chance = random.Random(0)
    whole = Killed(tmp_path / "whole", epochs, chance).train(0)
    happened, number = 0, 0
    while happened < kills:
        number += 1
        killed = Killed(tmp_path / f"killed{number}", epochs, chance)
        run = killed.train(kills - happened)
        happened += killed.kills
        assert_as_uninterrupted(run, whole, client)
    return number


@pytest.mark.slow
def test_a_run_killed_three_times_ends_as_if_nothing_had_happened(tmp_path: Path, client: Any) -> None:
    killed_again_and_again(tmp_path, client, kills=3, epochs=60)


@pytest.mark.soak
def test_a_run_killed_thirty_times_ends_as_if_nothing_had_happened(tmp_path: Path, client: Any) -> None:
    runs = killed_again_and_again(tmp_path, client, kills=30, epochs=250)
    print(f"\n30 kills in {runs} run{'s' if runs > 1 else ''}: same parameters, same history")
