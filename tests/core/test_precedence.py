"""Disabling plugins without uninstalling them, and who wins where a name is taken twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from groundstate.config import load_config
from groundstate.errors import InputError
from groundstate.registry import Registry, Source

MINE = '[regulariser.l1]\npath = "mine:Mine"\nsummary = "my own"\n'
PLUGIN = """
from groundstate import Regulariser


class Mine(Regulariser):
    class Config(Regulariser.Config):
        non_negative: bool = False

    def energy(self, z):
        return z.flatten(1).abs().sum(1)
"""
CONFIG = 'extends = "groundstate:drsae"\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(PLUGIN)
    (tmp_path / "config.toml").write_text(CONFIG)
    return tmp_path


def registry(folder: Path, text: str) -> Registry:
    (folder / "registry.toml").write_text(text, encoding="utf-8")
    return Registry.discover(folder)


def test_a_disabled_plugin_is_shown_and_refused(folder: Path) -> None:
    found = registry(folder, 'disable = ["regulariser.l1"]\n')
    (entry,) = (entry for entry in found.entries("regulariser") if entry.name == "l1")
    assert entry.broken == "it is disabled in registry.toml"
    with pytest.raises(InputError, match=r"regulariser 'l1' cannot be used: it is disabled in registry\.toml"):
        found.get("regulariser", "l1")
    assert found.get("regulariser", "l2")
    with pytest.raises(InputError, match=r"'l1' cannot be used"):
        load_config("config.toml")


def test_a_disabled_default_is_no_default(folder: Path) -> None:
    assert registry(folder, 'disable = ["tracker.mlflow"]\n').defaults("tracker") == []
    assert load_config("config.toml").config.tracking is None


def test_a_whole_distribution_is_disabled(folder: Path) -> None:
    found = registry(folder, 'disable = ["groundstate"]\n')
    assert all(entry.broken for entry in found.entries())


@pytest.mark.parametrize(("of", "path"), [("local", "mine:Mine"), ("built-in", None), ("groundstate", None)])
def test_the_preferred_source_wins(folder: Path, of: str, path: str | None) -> None:
    found = registry(folder, f'[prefer]\n"regulariser.l1" = "{of}"\n\n{MINE}')
    chosen = found.get("regulariser", "l1")
    assert (chosen.path == path) if path else chosen.source.kind == "built-in"
    (loser,) = (entry for entry in found.entries("regulariser") if entry.name == "l1" and entry is not chosen)
    assert "prefers that of" in str(loser.broken)


def test_a_preference_reaches_the_run(folder: Path) -> None:
    registry(folder, f'[prefer]\n"regulariser.l1" = "local"\n\n{MINE}')
    assert load_config("config.toml", ["energy.sparsity.weight=1"]).config.energy["sparsity"].plugin.__name__ == "Mine"


def test_disabling_one_of_two_settles_a_clash(folder: Path) -> None:
    found = registry(folder, f'disable = ["groundstate"]\n\n{MINE}')
    assert found.get("regulariser", "l1").path == "mine:Mine"


def test_without_a_rule_both_are_refused_and_named(folder: Path) -> None:
    found = registry(folder, MINE)
    with pytest.raises(InputError, match=r"taken twice: .* in groundstate .* and .* in registry.toml; .*\[prefer\]"):
        found.get("regulariser", "l1")


def test_a_broken_plugin_takes_no_name_from_a_working_one(folder: Path) -> None:
    assert registry(folder, MINE + "api = 99\n").get("regulariser", "l1").source.kind == "built-in"


def test_only_a_registry_of_ones_own_may_rule(folder: Path) -> None:
    found = Registry()
    from groundstate.registry import Register

    (folder / "theirs.toml").write_text('disable = ["regulariser.l1"]\n')
    Register(found, Source("pushy", "1.0")).toml(folder / "theirs.toml")
    assert "only a registry.toml of one's own" in str(found.problems[0])


@pytest.mark.parametrize("text", ["disable = 3\n", "disable = [1]\n", "[prefer]\nx = 1\n", "prefer = 2\n"])
def test_a_rule_of_another_form_is_told(folder: Path, text: str) -> None:
    found = registry(folder, text)
    assert len(found.problems) == 1
    assert found.get("regulariser", "l1")
