"""What ``plugins list`` says of plugins that it does not import."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from groundstate.cli import main
from groundstate.glance import glance
from groundstate.registry import Entry, Registry, Source

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("plugin_list", ROOT / "benchmarks" / "plugin_list.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_two_hundred_plugins_are_listed_with_the_broken_ones_and_none_is_imported(
    benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    benchmark.write_plugins(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(("plugins", "list", "--json")) == 0
    listed = {one["name"]: one for one in json.loads(capsys.readouterr().out)["plugins"]}
    mine = {name: one["broken"] for name, one in listed.items() if name.startswith("penalty-")}
    assert len(mine) == 200
    broken = {name: reason for name, reason in mine.items() if reason}
    assert set(broken) == {f"penalty-{number}" for number in range(5)}
    assert "not of the form package.module:Class" in broken["penalty-0"]
    assert "version 99" in broken["penalty-1"]
    assert "penalty2.py:1 cannot be parsed" in broken["penalty-2"]
    assert "there is no module 'penalty3'" in broken["penalty-3"]
    assert "penalty4.py defines no 'Another'" in broken["penalty-4"]
    assert list(tmp_path.glob("*.imported")) == []


def test_it_takes_no_longer_than_a_person_waits_for(benchmark: ModuleType, tmp_path: Path) -> None:
    """The benchmark holds the figure (0.6 s by the clock); a busy machine does not change the processor's time."""
    benchmark.write_plugins(tmp_path)
    _, processor = benchmark.measure(tmp_path, rounds=3)
    assert min(processor) <= 0.6


@pytest.mark.parametrize("path", ["torch.nn:Linear", "json:loads", "pydantic.fields:FieldInfo"])
def test_an_installed_module_is_found_without_importing_it(path: str) -> None:
    assert glance(Entry("regulariser", "x", path, "", Source("shiny", "1.0"))).broken is None


def test_a_missing_installed_module_is_broken() -> None:
    assert "there is no module" in str(
        glance(Entry("regulariser", "x", "torch.nowhere:X", "", Source("a", "1"))).broken
    )
    assert "there is no module" in str(
        glance(Entry("regulariser", "x", "nowhere_at_all:X", "", Source("a", "1"))).broken
    )


def test_every_built_in_is_left_as_it_is() -> None:
    for entry in Registry.discover().entries():
        assert glance(entry) == entry
    assert "groundstate_plugins.nowhere" not in sys.modules
