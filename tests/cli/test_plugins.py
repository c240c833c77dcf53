"""``plugins list`` and ``plugins show``."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from groundstate.config import load_config
from groundstate.registry import KINDS, Registry

Cli = Callable[..., Any]

ENTRIES = [(entry.kind, entry.name) for entry in Registry.discover().entries()]


def test_list_names_every_plugin_under_its_kind(small: Path, groundstate: Cli) -> None:
    done = groundstate("plugins", "list")
    assert done.code == 0, done.err
    kind, listed = "", []
    for line in done.out.splitlines():
        if line.startswith("  "):
            listed.append((kind, line.split()[0]))
        else:
            kind = line
    assert [entry for entry in listed if entry[0] in KINDS] == ENTRIES
    assert ("system", "drsae") in listed


def test_list_of_one_kind(small: Path, groundstate: Cli) -> None:
    lines = groundstate("plugins", "list", "backend").out.splitlines()
    assert lines[0] == "backend"
    assert lines[1].split()[0] == "cpu"
    assert lines[1].endswith("(default)")


def test_list_shows_what_is_broken_and_why(small: Path, groundstate: Cli) -> None:
    text = '[regulariser.l1]\npath = "x:X"\nsummary = "mine"\n[regularizer.y]\n'
    (small.parent / "registry.toml").write_text(text, encoding="utf-8")
    done = groundstate("plugins", "list")
    assert done.code == 0
    broken = next(line for line in done.out.splitlines() if line.split()[:1] == ["l1"])
    assert "BROKEN: the name 'l1' is taken twice: regulariser 'l1' in groundstate" in broken
    assert "registry.toml" in broken
    assert "not readable: registry.toml: [regularizer] is not a kind of plugin" in done.out
    said = json.loads(groundstate("plugins", "list", "--json").out)
    assert len(said["problems"]) == 1
    assert {one["name"] for one in said["plugins"] if one["broken"]} == {"l1"}
    assert groundstate("plugins", "show", "l1").code == 1


def test_local_plugins_of_another_folder(small: Path, groundstate: Cli) -> None:
    folder = small.parent / "elsewhere"
    folder.mkdir()
    (folder / "mine.py").write_text("class Mine: ...\n", encoding="utf-8")
    (folder / "registry.toml").write_text('[solver.mine]\npath = "mine:Mine"\nsummary = "mine"\n', encoding="utf-8")
    assert "mine" not in groundstate("plugins", "list", "solver").out
    listed = groundstate("plugins", "list", "solver", "--folder", folder).out
    assert "mine (from elsewhere/registry.toml)" in listed


def test_show_tells_options_with_types_ranges_defaults_and_meaning(small: Path, groundstate: Cli) -> None:
    done = groundstate("plugins", "show", "l1")
    assert done.code == 0, done.err
    assert done.out.startswith("regulariser l1: ")
    text = " ".join(done.out.split())
    assert "weight number ≥ 0 1.0 multiplies the term; ≥ 0" in text
    assert "non_negative true or false false restrict codes to z ≥ 0" in text
    assert 'acts "inference" | "learning" | "both" none' in text
    assert "regularisers/l1.py" in text


def test_show_all_of_a_name_or_one_kind(small: Path, groundstate: Cli) -> None:
    both = json.loads(groundstate("plugins", "show", "linear", "--json").out)
    assert [one["kind"] for one in both] == ["encoder", "decoder"]
    (decoder,) = json.loads(groundstate("plugins", "show", "linear", "--kind", "decoder", "--json").out)
    units = next(option for option in decoder["options"] if option["name"] == "units")
    assert units == {
        "name": "units",
        "type": "integer ≥ 1",
        "required": True,
        "default": None,
        "description": "units of the code, the columns of the dictionary",
    }


def test_a_published_system_can_be_extended_as_shown(small: Path, groundstate: Cli) -> None:
    done = groundstate("plugins", "show", "drsae")
    assert done.out.endswith('extends = "groundstate:drsae"\n')


@pytest.mark.parametrize(("kind", "name"), ENTRIES, ids=[f"{kind}-{name}" for kind, name in ENTRIES])
def test_what_show_ends_with_can_be_pasted(small: Path, groundstate: Cli, kind: str, name: str) -> None:
    """The TOML loads in a config, and says the defaults that are left out otherwise."""
    done = groundstate("plugins", "show", name, "--kind", kind, "--json")
    assert done.code == 0, done.err
    (said,) = json.loads(done.out)
    if kind == "format":  # no config names one: the command line gives its options
        registry = Registry.discover()
        made = registry.load(registry.get(kind, name))(**tomllib.loads(said["toml"]))
        assert made.kind == kind
        return
    encoder = "" if kind == "encoder" else 'model.encoder.type = "linear"\n'
    pasted = small.parent / "pasted.toml"
    pasted.write_text(f'extends = "small.toml"\n{encoder}{said["toml"]}', encoding="utf-8")
    config = load_config(pasted).config
    tables = {
        "encoder": config.model.encoder,
        "decoder": config.model.decoder,
        "solver": config.inference,
        "backend": config.backend,
        "data": config.data,
        "tracker": config.tracking,
        "callback": config.callbacks.get(name),
        "learner": config.learning,
        "transform": config.pool,
    }
    table = tables[kind] if kind in tables else config.energy[name]
    assert table.type == name
