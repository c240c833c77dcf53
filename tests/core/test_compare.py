"""Runs side by side: read from their folders alone, damaged ones too."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from groundstate.compare import diff_runs, list_runs, summarise

CONFIG = """\
name = "{name}"
[learning]
rate = {rate}
{monitor}
[energy.sparsity]
type = "l1"
[tracking]
type = "anything"
experiment = "{name}"
"""


def make(folder: Path, run: str, *, rate: float = 0.1, monitor: str = "", **changes: Any) -> Path:
    path = folder / run
    path.mkdir(parents=True)
    (path / "config.toml").write_text(CONFIG.format(name=run, rate=rate, monitor=monitor))
    record = {
        "id": run,
        "status": "finished",
        "created": f"2026-01-0{len(list(folder.iterdir()))}T10:00:00+00:00",
        "config_hash": f"{rate}",
        "versions": {"python": "3.11", "torch": "2.0"},
        "git": {"commit": "abc", "dirty": False},
        "host": {"cpu": "one", "threads": 2},
        "data": {"fingerprint": "f", "samples": {"train": 10}},
        "metrics": {"validation/energy": 1.5, "test/x/error": 0.25, "seconds": 3.0},
        "error": None,
        **changes,
    }
    (path / "run.json").write_text(json.dumps(record))
    return path


def test_runs_are_listed_by_age_with_the_figure_that_they_monitor(tmp_path: Path) -> None:
    make(tmp_path, "b")
    make(tmp_path, "a", monitor='monitor = "test/x/error"', parent={"id": "search", "trial": 3})
    first, second = list_runs(tmp_path)
    assert (first.id, first.metric, first.figure, first.seconds) == ("b", "validation/energy", 1.5, 3.0)
    assert (second.id, second.metric, second.figure, second.parent) == ("a", "test/x/error", 0.25, "search")


def test_a_damaged_run_is_told_and_hides_no_other(tmp_path: Path) -> None:
    make(tmp_path, "good")
    (make(tmp_path, "bad") / "run.json").write_text('{"id": "ba')
    found = {one.id: one for one in list_runs(tmp_path)}
    assert found["good"].status == "finished"
    assert found["bad"].status == "unreadable"
    assert "JSONDecodeError" in (found["bad"].problem or "")


def test_a_run_that_says_running_but_is_silent_is_doubted(tmp_path: Path) -> None:
    folder = make(tmp_path, "a", status="running", metrics={})
    (folder / "metrics.jsonl").write_text(
        '{"step": 1, "time": 0, "phase": "p", "kind": "step", "values": {"energy": 2.0}}\n{"step": 2, "ti'
    )
    assert (summarise(folder).status, summarise(folder).figure) == ("running", 2.0)
    for file in folder.iterdir():
        os.utime(file, (0, 0))
    assert summarise(folder).status == "running?"


def test_equal_runs_do_not_differ_but_in_name_and_time(tmp_path: Path) -> None:
    one, two = (
        make(tmp_path, "a"),
        make(tmp_path, "b", metrics={"validation/energy": 1.5, "test/x/error": 0.25, "seconds": 9}),
    )
    assert not any(vars(diff_runs(one, two)).values())


@pytest.mark.parametrize(
    ("part", "changes", "key", "pair"),
    [
        ("config", {"rate": 0.2}, "learning.rate", (0.1, 0.2)),
        ("config", {"monitor": 'monitor = "x"'}, "learning.monitor", (None, "x")),
        ("code", {"git": {"commit": "def", "dirty": False}}, "commit", ("abc", "def")),
        ("code", {"git": None}, "uncommitted changes", (False, None)),
        ("code", {"versions": {"python": "3.11", "torch": "2.1"}}, "version of torch", ("2.0", "2.1")),
        ("data", {"data": {"fingerprint": "g", "samples": {"train": 10}}}, "fingerprint", ("f", "g")),
        ("data", {"data": {"fingerprint": "f", "samples": {"train": 9}}}, "samples.train", (10, 9)),
        ("machine", {"host": {"cpu": "one", "threads": 1}}, "threads", (2, 1)),
        ("figures", {"metrics": {"validation/energy": 1.0, "test/x/error": 0.25}}, "validation/energy", (1.5, 1.0)),
    ],
)
def test_what_differs_is_found_in_its_part(
    tmp_path: Path, part: str, changes: dict[str, Any], key: str, pair: tuple[Any, Any]
) -> None:
    found = diff_runs(make(tmp_path, "a"), make(tmp_path, "b", **changes))
    assert getattr(found, part)[key] == pair
    assert [name for name, differing in vars(found).items() if differing] == [part]
    json.dumps(found.record())
