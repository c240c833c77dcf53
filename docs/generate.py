"""Writes what the documentation says of the code from the code: `make docs`. A test compares the two."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from groundstate.config import EvaluationConfig, LearningConfig, OutputConfig, PhaseConfig, RunConfig
from groundstate.files import write_text
from groundstate.registry import KINDS, Entry, Registry

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
REFERENCE = ROOT / "docs" / "reference"
NOTE = "<!-- made by `make docs`: edit the code it is read from -->"
BEGIN, END = "<!-- plugins: made by `make docs` -->", "<!-- end of plugins -->"
CLI = "import sys; sys.argv[0] = 'groundstate'; from groundstate.cli import main; sys.exit(main())"


def generated() -> dict[Path, str]:
    """Every file that is made from the code, with the text it should have."""
    entries = [entry for entry in Registry.discover().entries() if entry.source.kind == "built-in"]
    return {
        README: _with_table(README.read_text(encoding="utf-8"), entries),
        REFERENCE / "plugins.md": _plugins_page(entries),
        REFERENCE / "config.md": _config_page(),
        REFERENCE / "cli.md": _cli_page(),
    }


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
    return "\n\n".join(parts) + "\n"


# -- options ----------------------------------------------------------------------------------------


def _config_page() -> str:
    tables: Mapping[str, type[BaseModel]] = {
        "Top level": RunConfig,
        "`[learning]`": LearningConfig,
        "`[phases.<name>]`": PhaseConfig,
        "`[evaluation]`": EvaluationConfig,
        "`[output]`": OutputConfig,
    }
    parts = [NOTE, "# Config", "The tables that the core owns; those of the plugins are in [plugins](plugins.md)."]
    for title, model in tables.items():
        parts += [f"## {title}", _options(model)]
    return "\n\n".join(parts) + "\n"


def _options(model: type[BaseModel]) -> str:
    """A table of a model's fields: key, type with its range, default, meaning."""
    schema = model.model_json_schema()
    definitions = schema.get("$defs", {})
    rows = [
        (f"`{name}`", _type(field, definitions), _default(model, name, field), _cell(field.get("description", "")))
        for name, field in schema["properties"].items()
    ]
    return _table(("key", "type", "default", "meaning"), rows)


def _default(model: type[BaseModel], name: str, schema: Mapping[str, Any]) -> str:
    field = model.model_fields[name]
    if field.is_required():
        slots = re.findall(r"'x-groundstate-slot': '(\w+)'", str(schema))
        chosen = [entry.name for slot in slots for entry in Registry.discover().defaults(slot)]
        return ", ".join(f"`{one}`" for one in chosen) or "required"
    value = field.get_default(call_default_factory=True)
    if value is None or isinstance(value, BaseModel):
        return ""
    shown = list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value
    return f"`{shown}`" if isinstance(shown, int | float) and not isinstance(shown, bool) else f"`{_toml(shown)}`"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return str(value)


def _type(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """A JSON Schema as a person would say it."""
    if "x-groundstate-slot" in schema:
        return f"a {schema['x-groundstate-slot']} table"
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return _type(definitions[name], definitions)
    for union in ("anyOf", "oneOf", "allOf"):
        if union in schema:
            kinds = [_type(one, definitions) for one in schema[union] if one.get("type") != "null"]
            return " or ".join(dict.fromkeys(kinds))
    if "const" in schema:
        return f"`{_toml(schema['const'])}`"
    if "enum" in schema:
        return ", ".join(f"`{_toml(value)}`" for value in schema["enum"])
    return _plain(schema, definitions)


def _plain(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    match schema.get("type"):
        case "array":
            items = schema.get("items") or (schema.get("prefixItems") or [{}])[0]
            return f"list of {_type(items, definitions)}"
        case "object" if isinstance(schema.get("additionalProperties"), dict):
            return f"{_type(schema['additionalProperties'], definitions)} by name"
        case "object":
            return "a table"
        case "string":
            return "path" if schema.get("format") == "path" else "text"
        case "boolean":
            return "true or false"
        case None:
            return "any"
        case name:
            return f"{name}{_range(schema)}"


def _range(schema: Mapping[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    said = [f"{sign} {schema[key]:g}" for key, sign in signs.items() if key in schema and abs(schema[key]) < 2**31]
    return f" {', '.join(said)}" if said else ""


def _table(head: tuple[str, ...], rows: Any) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


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
