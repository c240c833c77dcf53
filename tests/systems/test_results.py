"""`make results`: a tiny protocol measured from real runs, interrupted, resumed, and what is refused."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROTOCOL = '''\
"""A tiny system.

More than its title.
"""

from matplotlib.figure import Figure

SMALL = {
    "name": "tiny",
    "data": {"type": "digits"},
    "model": {"decoder": {"type": "linear", "units": 4}},
    "energy": {"reconstruction": {"type": "squared-error"}, "sparsity": {"type": "l1", "weight": 0.1}},
    "inference": {"type": "fista", "max_iterations": 2},
    "learning": {"batch_size": 700},
    "phases": {"learn": {"epochs": 1}},
    "tracking": False,
    "output": {"report": False},
}


def measure(lab):
    runs = lab.train(SMALL, label="four units")
    lab.row("energy", [run.metrics["test/energy"] for run in runs], must="≤ 1000", goal="≤ 0", reference="none")
    lab.picture(Figure(figsize=(1, 1)), "nothing to see")
'''


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with one protocol."""
    (tmp_path / "examples" / "results").mkdir(parents=True)
    (tmp_path / "examples" / "results" / "tiny.py").write_text(PROTOCOL, encoding="utf-8")
    return tmp_path


@dataclass(frozen=True)
class Done:
    """What the command left behind."""

    code: int
    said: str


@pytest.fixture
def results(checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """The command in this process, for the one checkout."""
    folder = ROOT / "examples" / "results"
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("GROUNDSTATE_DATA", str(checkout / "data"))
    spec = importlib.util.spec_from_file_location("examples_results", folder / "measure.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def call(*words: str) -> Done:
        capsys.readouterr()
        code = module.main([*words, "--root", str(checkout)])
        return Done(code, capsys.readouterr().err)

    return call


def test_a_protocol_writes_its_rows_and_uses_finished_seeds_again(checkout: Path, results: Callable[..., Done]) -> None:
    done = results("tiny", "--seeds", "1")
    assert done.code == 0, done.said
    done = results("tiny", "--seeds", "2")
    assert done.code == 0, done.said
    assert len(list((checkout / "runs" / "results").glob("tiny-*"))) == 2  # the first seed was not trained twice
    record = json.loads((checkout / "examples" / "results" / "records" / "tiny.json").read_text(encoding="utf-8"))
    assert [run["seed"] for run in record["runs"]] == [0, 1]
    assert len(record["rows"][0]["values"]) == 2
    page = (checkout / "examples" / "RESULTS.md").read_text(encoding="utf-8")
    (line,) = (line for line in page.splitlines() if "`make results NAME=tiny`" in line)
    assert "A tiny system | energy | ≤ 1000 ✓ | ≤ 0 ✗ |" in line
    assert record["runs"][0]["config_hash"][:8] in page
    assert "*nothing to see*" in page
    assert (checkout / "docs" / "pictures" / "tiny.png").is_file()


def test_a_protocol_that_fails_leaves_the_page_as_it_was(checkout: Path, results: Callable[..., Done]) -> None:
    page = checkout / "examples" / "RESULTS.md"
    page.write_text("as it was\n", encoding="utf-8")
    protocol = checkout / "examples" / "results" / "tiny.py"
    broken = PROTOCOL.replace('"max_iterations": 2', '"max_iterations": -2')
    protocol.write_text(broken, encoding="utf-8")
    done = results("tiny", "--seeds", "1")
    assert done.code == 2
    assert "max_iterations" in done.said
    assert "Traceback" not in done.said
    assert page.read_text(encoding="utf-8") == "as it was\n"
    assert not (checkout / "docs" / "pictures" / "tiny.png").exists()


def test_what_is_missing_is_said_in_one_sentence(checkout: Path, results: Callable[..., Done]) -> None:
    done = results("tinny")
    assert (done.code, done.said) == (2, "there is no protocol 'tinny'; did you mean 'tiny'?\n")
    protocol = checkout / "examples" / "results" / "tiny.py"
    protocol.write_text('"""Needs data."""\n\n\ndef measure(lab):\n    lab.data("mnist")\n', encoding="utf-8")
    done = results("tiny")
    assert done.code == 2
    folder = checkout / "data" / "mnist"
    assert done.said == (f"there is no folder {folder}: name the one that holds mnist/ by --data or GROUNDSTATE_DATA\n")


def test_every_protocol_is_named_after_a_title_and_measures() -> None:
    for file in (ROOT / "examples" / "results").glob("*.py"):
        if file.stem not in ("measure", "lab", "table", "draw", "angles"):
            text = file.read_text(encoding="utf-8")
            assert text.startswith('"""'), file.name
            assert "def measure(lab: Lab) -> None:" in text, file.name
