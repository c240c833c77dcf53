"""Writes what the documentation says of the code from the code: `make docs`. A test compares the two."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from groundstate.cli.described import options
from groundstate.components import Learner
from groundstate.config import EvaluationConfig, OutputConfig, PhaseConfig, RunConfig
from groundstate.files import write_text
from groundstate.registry import KINDS, Entry, Registry
from groundstate.sweep import SweepConfig

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
REFERENCE = ROOT / "docs" / "reference"
NOTE = "<!-- made by `make docs`: edit the code it is read from -->"
BEGIN, END = "<!-- plugins: made by `make docs` -->", "<!-- end of plugins -->"
SPEED = ROOT / "docs" / "speed.md"
SPEED_BEGIN, SPEED_END = "<!-- speed: made by `make docs` from benchmarks/results -->", "<!-- end of speed -->"
CLI = "import sys; sys.argv[0] = 'groundstate'; from groundstate.cli import main; sys.exit(main())"


def generated() -> dict[Path, str]:
    """Every file that is made from the code, with the text it should have."""
    entries = [entry for entry in Registry.discover().entries() if entry.source.kind == "built-in"]
    return {
        README: _with_table(README.read_text(encoding="utf-8"), entries),
        REFERENCE / "plugins.md": _plugins_page(entries),
        REFERENCE / "config.md": _config_page(),
        REFERENCE / "cli.md": _cli_page(),
        ROOT / "examples" / "RESULTS.md": _results_page(),
        SPEED: _speed_page(SPEED.read_text(encoding="utf-8")),
    }


def _speed_page(page: str) -> str:
    """The page with what the benchmarks measured between its two marks."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        from _table import rows
    finally:
        sys.path.pop(0)
    table = _table(("work", "against", "asked", "measured", "file"), rows(ROOT))
    before, _, rest = page.partition(SPEED_BEGIN)
    _, _, after = rest.partition(SPEED_END)
    return f"{before}{SPEED_BEGIN}\n{table}\n{SPEED_END}{after}"


def _results_page() -> str:
    """The figures that `make results` recorded."""
    sys.path.insert(0, str(ROOT / "examples" / "results"))
    try:
        from table import page
    finally:
        sys.path.pop(0)
    return page(ROOT)


# -- plugins ----------------------------------------------------------------------------------------


def _with_table(page: str, entries: list[Entry]) -> str:
    """The page with the table of plugins between its two marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{_overview(entries)}\n{END}{after}"


def _overview(entries: list[Entry]) -> str:
    rows = (
        (kind, ", ".join(f"`{entry.name}`" for entry in entries if entry.kind == kind))
        for kind in KINDS
        if any(entry.kind == kind for entry in entries)
    )
    return _table(("kind", "plugins"), rows)


def _plugins_page(entries: list[Entry]) -> str:
    parts = [NOTE, "# Plugins", "What a config may name, by kind, with every option and its default."]
    for kind in KINDS:
        named = [entry for entry in entries if entry.kind == kind]
        if not named:
            continue
        parts.append(f"## {kind.capitalize()}")
        for entry in named:
            plugin = Registry.discover().load(entry)
            default = " The default." if entry.default else ""
            parts += [f"### `{entry.name}`", f"{entry.summary}.{default}"]
            parts += [_options(plugin.Config)] if plugin.Config.model_fields else ["It has no options."]
    systems = [(f"`groundstate:{entry.name}`", entry.summary) for entry in Registry.discover().systems()]
    parts += ["## Published systems", "What `extends` may name.", _table(("name", "what it is"), systems)]
    return "\n\n".join(parts) + "\n"


# -- options ----------------------------------------------------------------------------------------


def _config_page() -> str:
    tables: Mapping[str, type[BaseModel]] = {
        "Top level": RunConfig,
        "`[learning]`": Learner.Config,
        "`[phases.<name>]`": PhaseConfig,
        "`[evaluation]`": EvaluationConfig,
        "`[output]`": OutputConfig,
        "`[sweep]`": SweepConfig,
    }
    parts = [NOTE, "# Config", "The tables that the core owns; those of the plugins are in [plugins](plugins.md)."]
    for title, model in tables.items():
        parts += [f"## {title}", _options(model)]
    return "\n\n".join(parts) + "\n"


def _options(model: type[BaseModel]) -> str:
    """A table of a model's fields: key, type with its range, default, meaning."""
    schema = model.model_json_schema()
    rows = []
    for option in options(schema):
        slots = re.findall(r"'x-groundstate-slot': '(\w+)'", str(schema["properties"][option["name"]]))
        kind = f"{slots[0]} table" if slots else option["type"]
        rows.append((f"`{option['name']}`", kind, _default(option, slots), option["description"]))
    return _table(("key", "type", "default", "meaning"), rows)


def _default(option: Mapping[str, Any], slots: list[str]) -> str:
    """The default; of a table that a plugin gives its form, the plugins that the registry names."""
    if option["required"]:
        chosen = [entry.name for slot in slots for entry in Registry.discover().defaults(slot)]
        return ", ".join(f"`{name}`" for name in chosen) or "required"
    absent = option["default"] is None or isinstance(option["default"], dict)
    return "" if absent else f"`{json.dumps(option['default'], ensure_ascii=False)}`"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    cells = ([cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


# -- the command line -------------------------------------------------------------------------------


def _cli_page() -> str:
    parts = [NOTE, "# Command line", "Exit codes: 0 done, 1 failed while running, 2 wrong input, 130 interrupted."]
    for words in _commands(()):
        title = " ".join(("groundstate", *words))
        parts += [f"## `{title}`", f"```text\n{_help(words)}\n```"]
    return "\n\n".join(parts) + "\n"


def _commands(words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """A command, then those below it, as their helps list them."""
    yield words
    _, found, listed = _help(words).partition("Commands")
    for name in re.findall(r"^[│| ] +([a-z][a-z-]*)  ", listed, re.MULTILINE) if found else ():
        yield from _commands((*words, name))


def _help(words: tuple[str, ...]) -> str:
    environment = {**os.environ, "COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8"}
    shown = subprocess.run(
        [sys.executable, "-c", CLI, *words, "--help"],
        env=environment,
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    return "\n".join(line.rstrip() for line in shown.stdout.strip().splitlines())


if __name__ == "__main__":
    REFERENCE.mkdir(exist_ok=True)
    for path, text in generated().items():
        write_text(path, text)
        print(path.relative_to(ROOT))
