"""What ``plugins show`` prints: a plugin's options from its Config, and TOML to paste."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import tomli_w

from groundstate.cli.output import console, table
from groundstate.errors import PluginError
from groundstate.registry import SYSTEM, TERM_KINDS, Entry, Registry

TABLES = {
    "transform": "pool",
    "encoder": "model.encoder",
    "decoder": "model.decoder",
    "solver": "inference",
    "learner": "learning",
    "backend": "backend",
    "data": "data",
    "tracker": "tracking",
}
"""Where a kind stands in a config; terms and callbacks have names of their own."""

EXAMPLES: Mapping[str, Any] = {"integer": 1, "number": 1.0, "boolean": False, "string": "…", "array": [], "object": {}}


def describe(entry: Entry, registry: Registry) -> dict[str, Any]:
    """The plugin's documentation, options and TOML, as plain values. PluginError where it is broken."""
    if entry.broken is not None or entry.kind == SYSTEM:
        return {"options": [], "toml": snippet(entry, {}) if entry.broken is None else None}
    plugin = registry.load(entry)
    schema = plugin.Config.model_json_schema()
    return {
        "documentation": inspect.getdoc(plugin) or "",
        "file": inspect.getsourcefile(plugin),
        "options": list(options(schema)),
        "toml": snippet(entry, schema, plugin.examples[0] if plugin.examples else {}),
    }


def options(schema: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Each option with its type and range in words, its default (None where it is required) and what it means."""
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        yield {
            "name": name,
            "type": type_words(field, schema.get("$defs", {})),
            "required": name in required,
            "default": field.get("default"),
            "description": field.get("description", ""),
        }


def type_words(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """A JSON Schema as a person would say it: number > 0, "ball" | "sphere", path."""
    if "$ref" in field:
        return type_words(definitions.get(field["$ref"].rpartition("/")[2], {}), definitions)
    for union in ("anyOf", "oneOf"):
        if union in field:
            words = (type_words(one, definitions) for one in field[union] if one.get("type") != "null")
            return " or ".join(dict.fromkeys(words))
    if "enum" in field:
        return " | ".join(_toml(value) for value in field["enum"])
    if "const" in field:
        return _toml(field["const"])
    kind: str = field.get("type", "any")
    if kind == "array":
        items: Mapping[str, Any] = field.get("items") or next(iter(field.get("prefixItems", ())), {})
        return f"list of {type_words(items, definitions)}" if items else "list"
    names: Mapping[str, str] = {"string": field.get("format", "text"), "boolean": "true or false", "object": "table"}
    return names.get(kind, f"{kind}{_range(field)}")


def _range(field: Mapping[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return "".join(f" {sign} {field[key]:g}" for key, sign in signs.items() if key in field)


def _toml(value: Any) -> str:
    return tomli_w.dumps({"value": value}).removeprefix("value = ").strip()


def snippet(entry: Entry, schema: Mapping[str, Any], example: Mapping[str, Any] | None = None) -> str:
    """A config's table for this plugin with every default.

    example: fields that the plugin works with, where its defaults do not. A required option gets its value from
    there, or one that fits its type; one without a default or an example stands there as a comment.
    """
    example = example or {}
    if entry.kind == SYSTEM:
        return f'extends = "groundstate:{entry.name}"\n'
    lines = [f"[{_table(entry)}]", f"type = {_toml(entry.name)}"]
    if entry.kind == "format":
        # No config names one: the command line does, key by key.
        lines = [f"# groundstate encode … --read type={entry.name} --read KEY=VALUE, the same with --write"]
    definitions = schema.get("$defs", {})
    for name, field in schema.get("properties", {}).items():
        about = f"  # {field['description']}" if "description" in field else ""
        if name in schema.get("required", ()):
            value = example.get(name, _example(field, definitions))
            lines.append(f"{name} = {_toml(value)}  # required: {about.removeprefix('  # ')}")
        elif field.get("default") is None and name not in example:
            lines.append(f"# {name} = {_toml(_example(field, definitions))}{about}")
        else:
            value = example.get(name, field.get("default"))
            lines.append(f"{name} = {_toml(value)}{about}")
    return "\n".join(lines) + "\n"


def _table(entry: Entry) -> str:
    if entry.kind in TERM_KINDS:
        return f"energy.{entry.name}"
    return TABLES.get(entry.kind, f"callbacks.{entry.name}")


def _example(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> Any:
    """A value of the field's type and range."""
    if field.get("examples"):
        return field["examples"][0]
    if "$ref" in field:
        return _example(definitions.get(field["$ref"].rpartition("/")[2], {}), definitions)
    for union in ("anyOf", "oneOf"):
        if union in field:
            return _example(next(one for one in field[union] if one.get("type") != "null"), definitions)
    if "enum" in field or "const" in field:
        return field.get("const", field.get("enum", [None])[0])
    if "minimum" in field:
        return field["minimum"]
    if "exclusiveMinimum" in field and "exclusiveMaximum" in field:
        return (field["exclusiveMinimum"] + field["exclusiveMaximum"]) / 2
    if field.get("format") == "path":
        return "path/to/it"
    return EXAMPLES.get(field.get("type", "string"), "…")


def print_description(entry: Entry, registry: Registry) -> None:
    """Everything a person needs to use a plugin."""
    print(f"{entry.kind} {entry.name}: {entry.summary}")
    print(f"from {entry.source}{', the default' if entry.default else ''}")
    if entry.broken is not None:
        raise PluginError(f"{entry} cannot be used: {entry.broken}")
    found = describe(entry, registry)
    if found.get("documentation"):
        print(f"\n{found['documentation']}\n")
    if found["options"]:
        rows = table("option", "type", "default", "meaning")
        for option in found["options"]:
            default = "none" if option["default"] is None else _toml(option["default"])
            default = "required" if option["required"] else default
            rows.add_row(option["name"], option["type"], default, option["description"])
        console().print(rows)
    if "file" in found:
        print(f"\nin {found['file']}")
    print(f"\n{found['toml']}", end="")
