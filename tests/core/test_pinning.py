"""Pins of local plugins: what was looked at runs, anything else is refused under --locked before it is executed."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from groundstate.cli import main
from groundstate.config import load_config
from groundstate.errors import InputError
from groundstate.pinning import LOCK_FILE, VARIABLE, lock, locked, pin
from groundstate.registry import Registry

PLUGIN = """
from pathlib import Path

from groundstate import Regulariser

Path(__file__).with_name("executed").touch()


class Mine(Regulariser):
    def energy(self, z):
        return z.flatten(1).abs().sum(1)
"""
REGISTRY = '[regulariser.mine]\npath = "mine:Mine"\nsummary = "a test"\n'
CONFIG = 'extends = "groundstate:drsae"\n[energy.sparsity]\ntype = "mine"\nweight = 0.1\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(VARIABLE, "")  # so that what a test sets is undone
    (tmp_path / "mine.py").write_text(PLUGIN)
    (tmp_path / "registry.toml").write_text(REGISTRY)
    (tmp_path / "config.toml").write_text(CONFIG)
    return tmp_path


def test_a_pin_holds_the_digest_of_the_registry_and_of_each_file(folder: Path) -> None:
    pinned = pin(folder)
    assert pinned.missing == ()
    found = tomllib.loads((folder / LOCK_FILE).read_text())
    assert set(found["sha256"]) == {"registry.toml", "mine.py"}
    assert all(len(value) == 64 for value in found["sha256"].values())


def test_without_locked_nothing_needs_a_pin(folder: Path) -> None:
    assert not locked()
    assert load_config("config.toml").config.energy["sparsity"].type == "mine"


def test_locked_lets_what_is_pinned_run(folder: Path) -> None:
    pin(folder)
    lock()
    assert load_config("config.toml").config.energy["sparsity"].type == "mine"


def test_locked_refuses_what_is_not_pinned_before_it_is_executed(folder: Path) -> None:
    lock()
    with pytest.raises(InputError, match=r"registry\.toml is not pinned.*groundstate plugins pin"):
        load_config("config.toml")
    assert not (folder / "executed").exists()


@pytest.mark.parametrize("changed", ["mine.py", "registry.toml"])
def test_locked_refuses_what_changed_since(folder: Path, changed: str) -> None:
    pin(folder)
    with (folder / changed).open("a") as file:
        file.write("# one more line\n")
    lock()
    with pytest.raises(InputError, match=f"{changed} was changed since it was pinned"):
        load_config("config.toml")
    assert not (folder / "executed").exists()


def test_a_torn_lock_file_refuses_all(folder: Path) -> None:
    pin(folder)
    (folder / LOCK_FILE).write_text("version = 1\n[sha2")
    lock()
    with pytest.raises(InputError, match="cannot be read"):
        load_config("config.toml")


def test_a_plugin_without_a_file_is_told_and_not_pinned(folder: Path) -> None:
    (folder / "registry.toml").write_text(REGISTRY + '[regulariser.other]\npath = "torch.nn:Linear"\nsummary = "x"\n')
    pinned = pin(folder)
    assert pinned.missing == ("regulariser 'other' (torch.nn)",)


def test_there_must_be_something_to_pin(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no registry\.toml"):
        pin(tmp_path)


def test_built_in_plugins_need_no_pin(folder: Path) -> None:
    lock()
    registry = Registry.discover()
    assert registry.load(registry.get("regulariser", "l1")).__name__ == "L1"


@pytest.mark.parametrize("words", [("--locked", "check", "config.toml"), ("check", "config.toml", "--locked")])
def test_the_command_line_refuses_and_after_a_pin_accepts(
    folder: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert "is not pinned" in capsys.readouterr().err
    assert main(("plugins", "pin")) == 0
    assert "mine.py" in capsys.readouterr().out
    assert main(words) == 0
