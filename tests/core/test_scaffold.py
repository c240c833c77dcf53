"""What ``plugins new`` writes works as written, for every kind, and never overwrites."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from groundstate.errors import InputError
from groundstate.registry import KINDS, Registry
from groundstate.scaffold import SUMMARIES, new_plugin

PYTEST = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "-W", "error")


def run_pytest(folder: Path, *arguments: str) -> str:
    done = subprocess.run([*PYTEST, *arguments], cwd=folder, capture_output=True, encoding="utf-8", timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_there_is_a_template_for_each_kind() -> None:
    assert set(SUMMARIES) == set(KINDS)


@pytest.mark.slow
def test_every_kind_passes_its_own_tests_as_written(tmp_path: Path) -> None:
    for kind in KINDS:
        new_plugin(kind, f"my-{kind}", tmp_path)
    printed = run_pytest(tmp_path)
    assert "failed" not in printed
    registry = Registry()
    registry.add_folder(tmp_path)
    found = {entry.kind: registry.load(entry) for entry in registry.entries()}
    assert set(found) == set(KINDS)
    assert registry.problems == []


@pytest.mark.slow
def test_every_kind_passes_its_own_tests_as_a_distribution(tmp_path: Path) -> None:
    sources = []
    for kind in KINDS:
        new_plugin(kind, f"our-{kind}", tmp_path, package=True)
        sources.append(str(tmp_path / f"groundstate-our-{kind}" / "src"))
    run_pytest(tmp_path, "--import-mode=importlib", "-o", f"pythonpath={' '.join(sources)}", str(tmp_path))


def test_a_distribution_has_all_that_publishing_needs(tmp_path: Path) -> None:
    files = new_plugin("regulariser", "smooth-abs", tmp_path, package=True)
    top = tmp_path / "groundstate-smooth-abs"
    assert {str(file.relative_to(top)) for file in files} == {
        "pyproject.toml",
        "README.md",
        ".github/workflows/ci.yml",
        "src/groundstate_smooth_abs/__init__.py",
        "src/groundstate_smooth_abs/smooth_abs.py",
        "src/groundstate_smooth_abs/registry.toml",
        "tests/test_smooth_abs.py",
    }
    project = tomllib.loads((top / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["groundstate"] == {"groundstate_smooth_abs": "groundstate_smooth_abs"}
    assert "${{ matrix.python }}" in (top / ".github/workflows/ci.yml").read_text()


def test_a_second_plugin_is_added_to_the_registry(tmp_path: Path) -> None:
    new_plugin("regulariser", "one", tmp_path)
    new_plugin("encoder", "two", tmp_path)
    tables = tomllib.loads((tmp_path / "registry.toml").read_text())
    assert tables["regulariser"]["one"]["path"] == "one:One"
    assert tables["encoder"]["two"]["path"] == "two:Two"


@pytest.mark.parametrize("package", [False, True])
def test_nothing_is_overwritten(tmp_path: Path, package: bool) -> None:
    for file in new_plugin("regulariser", "mine", tmp_path, package=package):
        file.write_text("# changed by hand\n" if file.suffix == ".py" else file.read_text(), encoding="utf-8")
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    with pytest.raises(InputError, match=r"there already|is taken"):
        new_plugin("regulariser", "mine", tmp_path, package=package)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("regularizer", "mine", "'regularizer' is not a kind of plugin; did you mean 'regulariser'"),
        ("regulariser", "Two Words", "lower-case words joined by hyphens"),
        ("regulariser", "9lives", "lower-case words joined by hyphens"),
        ("regulariser", "../mine", "lower-case words joined by hyphens"),
        ("regulariser", "class", "lower-case words joined by hyphens"),
        ("regulariser", "", "lower-case words joined by hyphens"),
        ("regulariser", "torch", "would hide the module 'torch'"),
        ("data", "json", "would hide the module 'json'"),
        ("regulariser", "l1", "is taken by regulariser 'l1' of groundstate"),
        ("task", "l1", "is taken by regulariser 'l1' of groundstate"),
    ],
)
def test_a_bad_name_is_refused_in_one_sentence(tmp_path: Path, kind: str, name: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        new_plugin(kind, name, tmp_path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_broken_registry_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "registry.toml").write_text("[regulariser.x\n")
    with pytest.raises(InputError, match="mend it first"):
        new_plugin("regulariser", "mine", tmp_path)
    assert (tmp_path / "registry.toml").read_text() == "[regulariser.x\n"
    assert not (tmp_path / "mine.py").exists()
