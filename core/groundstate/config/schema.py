"""JSON Schema of a config file and of a registry.toml, for editors."""

from __future__ import annotations

from typing import Any

from groundstate.config.layers import PUBLISHED
from groundstate.config.models import DEFAULT_KINDS, NO_TRACKER, REQUIRED, RunConfig
from groundstate.config.tables import SLOT_MARK, table_model
from groundstate.errors import InputError, PluginError
from groundstate.registry import KINDS, SYSTEM, TERM_KINDS, Entry, Registry, table_fields

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"

DROPPED: Schema = {"const": False, "description": "drops the inherited table"}


def json_schema(registry: Registry) -> Schema:
    """The schema of a config file, with every plugin that can be imported.

    A file that ``extends`` another may leave out what it inherits; so ``type`` and the required tables are asked
    of the others only.
    """
    from groundstate.sweep.plan import SweepConfig  # which needs configs itself

    schema = RunConfig.model_json_schema()
    definitions: Schema = schema.pop("$defs", {})
    required = set(schema.pop("required", ())) - {"tracking", "callbacks"}
    defaulted = {key for key, kind in DEFAULT_KINDS.items() if registry.defaults(kind)}
    required -= defaulted
    for kind in KINDS:
        if kind not in TERM_KINDS:
            definitions[kind] = _union(registry, (kind,), definitions)
    definitions["term"] = _union(registry, TERM_KINDS, definitions)
    definitions |= {name: _droppable(name, table) for name, table in definitions.items()}
    schema = _resolved(schema)
    published = [f"{PUBLISHED}{entry.name}" for entry in registry.systems() if entry.broken is None]
    schema["properties"]["tracking"]["anyOf"].append({"const": {"type": NO_TRACKER}})
    schema["properties"] = {
        "extends": {
            "type": "string",
            "description": "a config file, relative to this one, or a published system, that this one changes",
            "examples": published,
        },
        **schema["properties"],
        "sweep": {**SweepConfig.model_json_schema(), "description": "what `groundstate sweep` searches"},
    }
    return {
        "$schema": DIALECT,
        **schema,
        "title": "groundstate config",
        "$defs": {name: _resolved(table) for name, table in sorted(definitions.items())},
        "if": {"not": {"required": ["extends"]}},
        "then": {
            "required": sorted(required),
            "anyOf": [{"required": ["layers"]}, {"required": sorted(set(REQUIRED) - defaulted)}],
            "properties": {
                "data": {"required": ["type"]},
                "energy": {"additionalProperties": {"required": ["type"]}},
                "phases": {"additionalProperties": {"required": ["epochs"]}},
            },
        },
    }


def _union(registry: Registry, kinds: tuple[str, ...], definitions: Schema) -> Schema:
    """Every plugin of these kinds, told apart by ``type``; a table without one takes its type from elsewhere."""
    names = []
    for entry in registry.entries(*kinds):
        table = _table(entry, registry)
        if table is not None:
            name = f"{entry.kind}.{entry.name}"
            for inner, definition in table.pop("$defs", {}).items():
                definitions[f"{name}.{inner}"] = _renamed(definition, name)
            definitions[name] = _renamed(table, name)
            names.append(name)
    untyped = {
        "type": "object",
        "not": {"required": ["type"]},
        "properties": _shared([definitions[name]["properties"] for name in names]),
        "description": "a part of an inherited table, or of the default plugin's",
    }
    return {
        "oneOf": [*({"$ref": f"#/$defs/{name}"} for name in names), untyped],
        "discriminator": {
            "propertyName": "type",
            "mapping": {name.partition(".")[2]: f"#/$defs/{name}" for name in names},
        },
    }


def _shared(tables: list[Schema]) -> Schema:
    """Keys that have one form, whatever the plugin; their defaults may differ."""

    def form(field: Schema) -> Schema:
        return {key: value for key, value in field.items() if key != "default"}

    first, *others = tables or [{}]
    return {
        key: form(field)
        for key, field in first.items()
        if key != "type" and all(key in other and form(other[key]) == form(field) for other in others)
    }


def _table(entry: Entry, registry: Registry) -> Schema | None:
    """The schema of one plugin's table; None where it cannot be imported."""
    try:
        model = table_model(entry, registry.load(entry))
    except (InputError, PluginError):
        return None
    schema = model.model_json_schema()
    properties: Schema = schema["properties"]
    schema["properties"] = {"type": properties.pop("type"), **properties}
    schema["properties"]["type"].pop("default", None)
    # Without this a table of another type, or of none, would fit too.
    schema["required"] = ["type", *(name for name in schema.get("required", ()) if name != "type")]
    return schema | {"description": entry.summary}


def _renamed(schema: Any, owner: str) -> Any:
    """A plugin's own definitions stand beside all others under its name."""
    if isinstance(schema, dict):
        return {
            key: f"#/$defs/{owner}.{value.removeprefix('#/$defs/')}" if key == "$ref" else _renamed(value, owner)
            for key, value in schema.items()
        }
    return [_renamed(item, owner) for item in schema] if isinstance(schema, list) else schema


def _resolved(schema: Any) -> Any:
    """The marks of slots replaced by their unions; what may be none may be false, as TOML has no none."""
    if isinstance(schema, dict):
        if SLOT_MARK in schema:
            rest = {key: value for key, value in schema.items() if key != SLOT_MARK}
            return {"$ref": f"#/$defs/{schema[SLOT_MARK]}", **rest}
        if schema == {"type": "null"}:
            return {"const": False, "description": "none"}
        return {key: _resolved(value) for key, value in schema.items() if not (key == "default" and value is None)}
    return [_resolved(item) for item in schema] if isinstance(schema, list) else schema


def _droppable(name: str, table: Schema) -> Schema:
    """Tables of a named set, which a child config may drop."""
    if name == "PhaseConfig":
        # A child may change one key of an inherited phase.
        table = {key: value for key, value in table.items() if key != "required"}
    if name in ("term", "PhaseConfig"):
        return {"anyOf": [table, DROPPED]}
    return table


def registry_schema() -> Schema:
    """The schema of a registry.toml."""
    return {
        "$schema": DIALECT,
        "title": "groundstate registry",
        "description": "Plugins by kind and name, and published systems.",
        "type": "object",
        "properties": {
            "disable": {
                "type": "array",
                "items": {"type": "string"},
                "description": "plugins, '<kind>.<name>', or whole distributions that no config here may use",
            },
            "prefer": {
                "type": "object",
                "additionalProperties": {"type": "string"},
                "description": "for a name, '<kind>.<name>', that several sources give: whose counts, a "
                "distribution's, the 'built-in' or the 'local' one",
            },
            **{kind: {"type": "object", "additionalProperties": _entry(kind)} for kind in (*KINDS, SYSTEM)},
        },
        "additionalProperties": False,
    }


def _entry(kind: str) -> Schema:
    names = {str: "string", bool: "boolean", int: "integer"}
    fields = table_fields(kind)
    return {
        "type": "object",
        "properties": {
            key: {"type": names[type_], "description": meaning} for key, (type_, _, meaning) in fields.items()
        },
        "required": [key for key, (_, required, _) in fields.items() if required],
        "additionalProperties": False,
    }
