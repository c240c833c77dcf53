"""``sweep``, ``runs``, ``reproduce`` and ``sync`` as a person types them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w

from groundstate.cli import main
from groundstate.run import train
from groundstate.sweep import search, worker

pytest.importorskip("optuna", reason="needs Optuna: install the [sweep] extra")


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A run of a twentieth of a second, also as tiny.toml in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32))
    tables = {
        "data": {"type": "npy", "path": "x.npy"},
        "model": {"decoder": {"type": "linear", "units": 6}},
        "energy": {"reconstruction": {"type": "squared-error"}, "sparsity": {"type": "l1", "weight": 0.1}},
        "inference": {"type": "fista", "max_iterations": 5, "tolerance": 1e-2},
        "learning": {"batch_size": 100, "monitor": "validation/energy"},
        "phases": {"learn": {"epochs": 1}},
        "tracking": False,
        "callbacks": {"progress": False},
        "output": {"report": False},
    }
    (tmp_path / "tiny.toml").write_text(tomli_w.dumps(tables))
    return tables


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    class Done:
        def __init__(self, made: search.Sweep, number: int) -> None:
            self.code = worker.run_trial(made.folder, number, made._url)

        def poll(self) -> int:
            return self.code

        def wait(self) -> int:
            return self.code

    monkeypatch.setattr(search.Sweep, "_spawn", lambda made, number: Done(made, number))


@pytest.mark.usefixtures("config", "in_process")
def test_a_sweep_ends_with_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sweep", "tiny.toml", "--sampler", "grid", "--over", "energy.sparsity.weight=[0.1, 0.5]", "--jobs", "2"]
    assert main(words) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert lines[0].split() == ["trial", "state", "validation/energy", "energy.sparsity.weight", "run"]
    assert [line.split()[1] for line in lines[1:3]] == ["finished", "finished"]
    assert lines[-2] == "best: trial 0, runs/sweeps/tiny/best.toml"
    assert printed.err.splitlines()[-1].endswith("2 of 2 done")
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["status"] == "finished"
    assert found["best"]["trial"] == 0
    assert len(found["table"]) == 2


@pytest.mark.usefixtures("config")
def test_a_key_that_is_not_there_is_refused_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "tiny.toml", "--over", "energy.sparsity.wieght=[0.1]"]) == 2
    assert capsys.readouterr().err == "command line energy.sparsity.wieght: unknown key; did you mean 'weight'?\n"
    assert main(["sweep", "tiny.toml", "--over", "energy.sparsity.weight=0.1..0.2"]) == 2
    assert "must be a list of values" in capsys.readouterr().err
    assert not Path("runs").exists()


@pytest.mark.usefixtures("config")
def test_runs_are_listed_shown_and_compared(capsys: pytest.CaptureFixture[str]) -> None:
    one = train("tiny.toml")
    two = train("tiny.toml", {"learning.rate": 0.01})
    assert main(["runs", "list"]) == 0
    listed = capsys.readouterr().out
    assert one.id in listed
    assert f"{two.metrics['validation/energy']:.4g}" in listed
    assert main(["runs", "list", "--json"]) == 0
    assert {found["id"] for found in json.loads(capsys.readouterr().out)} == {one.id, two.id}
    assert main(["runs", "show", one.id]) == 0
    assert one.splits.fingerprint[:8] in capsys.readouterr().out
    assert main(["runs", "show", one.id, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == one.record["metrics"]
    assert main(["runs", "diff", one.id, two.id, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["config"] == {"learning.rate": [0.001, 0.01]}
    assert found["code"] == found["data"] == found["machine"] == {}
    assert "validation/energy" in found["figures"]
    assert main(["runs", "diff", one.id, two.id]) == 0
    assert "code: the same" in capsys.readouterr().out


@pytest.mark.usefixtures("config")
def test_a_run_that_is_not_there_is_refused_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    run = train("tiny.toml")
    for words in (["runs", "show"], ["runs", "diff", run.id], ["reproduce"], ["sync"]):
        assert main([*words, f"{run.id}x"]) == 2
        assert f"did you mean '{run.id}'?" in capsys.readouterr().err
    assert main(["runs", "list", "--folder", "nowhere"]) == 2


@pytest.mark.usefixtures("config")
def test_reproduce_says_whether_the_figures_agree(capsys: pytest.CaptureFixture[str]) -> None:
    run = train("tiny.toml")
    assert main(["reproduce", run.id]) == 0
    assert f"is {run.id} again, bit for bit" in capsys.readouterr().out
    record = json.loads((run.folder / "run.json").read_text())
    record["metrics"]["test/energy"] *= 1.01
    (run.folder / "run.json").write_text(json.dumps(record))
    assert main(["reproduce", run.id]) == 1
    assert "test/energy" in capsys.readouterr().out
    assert main(["reproduce", run.id, "--tolerance", "0.02", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["agrees"] is True


@pytest.mark.usefixtures("config")
def test_sync_delivers_through_the_default_tracker(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Sequence[Path], str | None]] = []

    class Tracker:
        @staticmethod
        def sync(folders: Sequence[Path], to: str | None) -> Iterator[tuple[Path, bool, str]]:
            asked.append((folders, to))
            yield folders[0], len(folders) == 1, "what happened"

    monkeypatch.setattr("groundstate.registry.Registry.load", lambda self, entry: Tracker)
    for name in ("a", "b"):
        (Path("runs") / name).mkdir(parents=True)
        (Path("runs") / name / "run.json").write_text("{}")
    (Path("runs/sweeps/c")).mkdir(parents=True)
    Path("runs/sweeps/c/sweep.json").write_text("{}")
    assert main(["sync"]) == 1
    assert [str(folder) for folder in asked[0][0]] == ["runs/a", "runs/b", "runs/sweeps/c"]
    assert main(["sync", "c", "--to", "somewhere"]) == 0
    assert asked[1] == ([Path("runs/sweeps/c")], "somewhere")
    assert "runs/sweeps/c: what happened" in capsys.readouterr().out
