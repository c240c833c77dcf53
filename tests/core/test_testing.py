"""The conformance kit's ways in: what it tells, the command line, and the pytest plugin."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from torch import Tensor

from groundstate import Regulariser
from groundstate.cli import main
from groundstate.errors import InputError
from groundstate.testing import CHECKS, Examination, checks_of, examine, find

WRONG = """
from groundstate import Regulariser


class Wrong(Regulariser):
    def energy(self, z):
        return z.abs().sum()
"""
REGISTRY = '[regulariser.wrong]\npath = "wrong:Wrong"\nsummary = "sums over the batch"\n'
TEST = """
import pytest


@pytest.mark.groundstate("{name}")
def test_it(conformance):
    conformance()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong.py").write_text(WRONG)
    (tmp_path / "registry.toml").write_text(REGISTRY)
    return tmp_path


def test_every_check_says_what_it_makes_sure_of() -> None:
    assert len(CHECKS) >= 40
    for check in CHECKS.values():
        assert check.says
        assert check.says[0].islower() or check.says.startswith("Config")


def test_a_right_plugin_fails_nothing_and_passes_what_applies() -> None:
    class Size(Regulariser):
        def energy(self, z: Tensor) -> Tensor:
            return z.flatten(1).abs().sum(1)

    found = {result.check.name: result.status for result in examine(Size)}
    assert set(found) == {check.name for check in checks_of("regulariser")}
    assert "failed" not in found.values()
    assert found["energy-per-sample"] == found["gradient-is-the-slope"] == "passed"
    assert found["prox-is-the-minimiser"] == "skipped"


def test_what_a_term_asks_for_beyond_the_usual_can_be_given() -> None:
    class Weighted(Regulariser):
        def energy(self, z: Tensor, importance: Tensor) -> Tensor:
            return importance * z.flatten(1).square().sum(1)

    without = Examination(Weighted, "regulariser", "weighted").run(CHECKS["energy-per-sample"])
    assert without.status == "skipped"
    assert "importance" in without.message

    def batch(samples: int, generator: object) -> dict[str, Tensor]:
        import torch

        return {"importance": torch.linspace(0.5, 1.5, samples, dtype=torch.float64)}

    examination = Examination(Weighted, "regulariser", "weighted", batch=batch)
    assert examination.run(CHECKS["energy-per-sample"]).status == "passed"
    assert examination.run(CHECKS["batch-invariance"]).status == "passed"


def test_an_error_is_told_with_its_line(folder: Path) -> None:
    (folder / "wrong.py").write_text(WRONG.replace("z.abs().sum()", "z.no_such_thing()"))
    (target,) = find("wrong")
    assert target.cls is not None
    result = Examination(target.cls, target.kind, target.name).run(CHECKS["energy-per-sample"])
    assert result.status == "failed"
    assert "AttributeError" in result.message
    assert "wrong.py:7" in result.message


@pytest.mark.parametrize("what", ["wrong", "wrong.py", ".", "registry.toml"])
def test_a_plugin_is_found_by_its_name_its_file_or_its_folder(folder: Path, what: str) -> None:
    assert [(target.kind, target.name) for target in find(what)] == [("regulariser", "wrong")]


@pytest.mark.parametrize("what", ["nowhere", "nowhere.py"])
def test_what_is_not_there_is_told(folder: Path, what: str) -> None:
    with pytest.raises(InputError, match="nowhere"):
        find(what)


def test_the_command_line_shows_failures_with_input_and_advice(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(("plugins", "test", "wrong")) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "FAILED energy-per-sample: energy returns ()" in printed
    assert "shown by Wrong()" in printed
    assert "to mend it: sum over the axes behind the first only" in printed
    assert main(("plugins", "test", "l2", "weight=0.5", "--json")) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert {one["status"] for one in record["checks"]} == {"passed", "skipped"}


def test_a_plugin_that_cannot_be_imported_fails_the_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "wrong.py").write_text("import nothing_of_this_name\n")
    assert main(("plugins", "test", "wrong")) == 1
    assert "nothing_of_this_name" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "code", "said"), [("wrong", 1, "one value per sample"), ("l2", 0, "passed")])
def test_the_pytest_plugin_makes_a_test_of_each_check(folder: Path, name: str, code: int, said: str) -> None:
    (folder / "test_it.py").write_text(TEST.format(name=name))
    words = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-W", "error", str(folder / "test_it.py")]
    done = subprocess.run(words, cwd=folder, capture_output=True, encoding="utf-8", timeout=120)
    assert done.returncode == code, done.stdout + done.stderr
    assert said in done.stdout
    assert "test_it[energy-per-sample]" in done.stdout


def test_the_pytest_plugin_asks_which_plugin_is_meant(folder: Path) -> None:
    (folder / "test_it.py").write_text("def test_it(conformance):\n    conformance()\n")
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(folder / "test_it.py")]
    done = subprocess.run(words, cwd=folder, capture_output=True, encoding="utf-8", timeout=120)
    assert done.returncode != 0
    assert "name the plugin" in done.stdout + done.stderr
