"""Writing a config: TOML with every value said, which loads to an equal one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from datetime import date, time
from enum import Enum
from pathlib import Path
from types import NoneType
from typing import Any

import tomli_w
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from groundstate.config.fields import forms
from groundstate.config.layers import dotted
from groundstate.config.locate import KeyPath
from groundstate.config.models import RunConfig
from groundstate.errors import InputError

WITHOUT_EFFECT = {"name", "output", "tracking", "callbacks"}
"""Tables that change no number of a run."""


def dump_toml(config: BaseModel) -> str:
    """A config as TOML: every default written out, paths as they are, no comments, the same text every time.

    None is written as ``false``, where it is not the default; loading reads that as none.
    """
    return tomli_w.dumps(to_toml(config))


def config_hash(config: RunConfig) -> str:
    """SHA-256 of what determines a run's numbers: all but name, output, tracking and callbacks."""
    tables = {key: value for key, value in to_toml(config).items() if key not in WITHOUT_EFFECT}
    return hashlib.sha256(tomli_w.dumps(tables).encode()).hexdigest()


def config_changes(old: RunConfig, new: RunConfig) -> dict[str, tuple[Any, Any]]:
    """Keys that determine a run's numbers and differ, each with both values; None where a config has it not."""
    one, two = (dict(_flat(to_toml(config), ())) for config in (old, new))
    return {
        key: (one.get(key), two.get(key))
        for key in dict.fromkeys((*one, *two))
        if one.get(key) != two.get(key) and key.partition(".")[0] not in WITHOUT_EFFECT
    }


def _flat(table: Mapping[str, Any], path: KeyPath) -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, (*path, key))
        else:
            yield dotted((*path, key)), value


def to_toml(config: BaseModel) -> dict[str, Any]:
    """A model's fields as TOML values, in the order in which the models name them."""
    table: dict[str, Any] = {}
    for name, info in type(config).model_fields.items():
        if isinstance(config, RunConfig) and name in config.elsewhere:
            continue
        value = getattr(config, name)
        if value is not None:
            table[name] = _value(_as_declared(value, info), name)
        elif info.get_default(call_default_factory=True, validated_data={}) is not None:
            table[name] = False
    return table


def _as_declared(value: Any, info: FieldInfo) -> Any:
    """A default that is written as a whole number where the field holds a float: its text must not differ."""
    kinds = {form.type for form in forms(info.annotation)} - {NoneType}
    return float(value) if kinds == {float} and isinstance(value, int) else value


def _value(value: Any, name: str) -> Any:
    if isinstance(value, BaseModel):
        return to_toml(value)
    if isinstance(value, Mapping):
        return {str(key): False if inside is None else _value(inside, name) for key, inside in value.items()}
    if isinstance(value, list | tuple):
        return [_value(inside, name) for inside in value]
    if isinstance(value, set | frozenset):
        return sorted(_value(inside, name) for inside in value)
    if isinstance(value, Enum):
        return _value(value.value, name)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, str | bool | int | float | date | time):
        return value
    raise InputError(f"the value {value!r} of '{name}' cannot be written in TOML")
