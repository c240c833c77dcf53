"""The layers of a config: a file, the files that it extends, overrides; merged, each value with its origin."""

from __future__ import annotations

import copy
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from groundstate.config.locate import KeyPath, locate
from groundstate.errors import Fault, InputError, nearest, relative
from groundstate.registry import Registry, system_config

PUBLISHED = "groundstate:"
"""``extends = "groundstate:<name>"`` names a published system instead of a file."""

Table = dict[str, Any]
Overrides = Mapping[str, Any] | Sequence[str]


@dataclass(frozen=True)
class Origin:
    """Where a value was written; folder: what a relative path in it starts from."""

    where: str
    folder: Path


@dataclass(frozen=True)
class Layer:
    """One source of values. name: how a person calls it. lines: where it is a file, the line of each key."""

    name: str
    values: Table
    folder: Path
    lines: Mapping[KeyPath, int] = field(default_factory=dict)

    def origin(self, path: KeyPath) -> Origin:
        """The origin of a key, or of the nearest table around it that has a line."""
        while path and path not in self.lines:
            path = path[:-1]
        line = self.lines.get(path)
        return Origin(f"{self.name}:{line}" if line is not None else self.name, self.folder)


@dataclass
class Provenance:
    """Where each value of a merged config was written. within: the table that key paths begin in."""

    origins: dict[KeyPath, Origin]
    fallback: Origin
    within: KeyPath = ()

    def inside(self, *table: str) -> Provenance:
        """The same, for key paths that begin in this table."""
        return Provenance(self.origins, self.fallback, (*self.within, *table))

    def written(self, path: KeyPath) -> bool:
        """Whether a file or an override says this key."""
        return (*self.within, *path) in self.origins

    def key(self, path: KeyPath) -> str:
        """The key as it is written in the whole config."""
        return dotted((*self.within, *path))

    def origin(self, path: KeyPath) -> Origin:
        """The origin of a key, or of the nearest table around it that was written."""
        path = (*self.within, *path)
        while path and path not in self.origins:
            path = path[:-1]
        return self.origins.get(path, self.fallback)

    def fault(self, path: KeyPath, message: str) -> Fault:
        """A fault at a key, with the file and line where it stands."""
        return Fault(message, self.key(path), self.origin(path).where)


@dataclass
class Merged:
    """Values of all layers. idle: where ``false`` drops something that no earlier layer has."""

    values: Table
    provenance: Provenance
    idle: set[KeyPath] = field(default_factory=set)

    def add(self, layer: Layer, implied: Mapping[KeyPath, str]) -> None:
        """Put a layer on top: tables merge key by key; one that changes a ``type`` replaces the whole table.

        implied: the type of a table that does not say its own.
        """
        self.provenance.fallback = layer.origin(())
        self._merge(self.values, layer.values, (), layer, implied)

    def _merge(self, base: Table, over: Table, path: KeyPath, layer: Layer, implied: Mapping[KeyPath, str]) -> None:
        for key, value in over.items():
            here = (*path, key)
            old = base.get(key)
            if isinstance(value, dict) and isinstance(old, dict) and not _retyped(old, value, implied.get(here)):
                self._merge(old, value, here, layer, implied)
                continue
            self.idle.discard(here)
            if value is False and key not in base:
                self.idle.add(here)
            base[key] = copy.deepcopy(value)
            origins = self.provenance.origins
            for stale in [path for path in origins if path[: len(here)] == here]:
                del origins[stale]
            for path_inside in _paths(value, here):
                origins[path_inside] = layer.origin(path_inside)


def _retyped(old: Table, new: Table, implied: str | None) -> bool:
    before = old.get("type", implied)
    return "type" in new and before is not None and new["type"] != before


def _paths(value: Any, path: KeyPath) -> Iterable[KeyPath]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inside in items:
        yield from _paths(inside, (*path, key))


def dotted(path: KeyPath) -> str:
    """A path as it is written in a config: ``energy.sparsity.weight``."""
    text = ""
    for key in path:
        if isinstance(key, int):
            text += f"[{key}]"
        else:
            bare = re.fullmatch(r"[A-Za-z0-9_-]+", key) is not None
            text += ("." if text else "") + (key if bare else f'"{key}"')
    return text


# -- files ------------------------------------------------------------------------------------------


def read_files(path: Path, registry: Registry) -> list[Layer]:
    """The layer of a config file, after those that it extends; adds the folders' local plugins."""
    return _read_chain(path.absolute(), registry, ())


def _read_chain(path: Path, registry: Registry, above: tuple[Path, ...]) -> list[Layer]:
    layer = read_file(path)
    registry.add_folder(path.parent)
    if "extends" not in layer.values:
        return [layer]
    extends = layer.values.pop("extends")
    where = layer.origin(("extends",)).where
    if not isinstance(extends, str):
        raise InputError(Fault(f"must be a file or '{PUBLISHED}<name>', not {extends!r}", "extends", where))
    try:
        if extends.startswith(PUBLISHED):
            parent = system_config(registry, extends)
        else:
            parent = path.parent / Path(extends).expanduser()
            require_file(parent)
    except InputError as error:
        raise InputError(Fault(fault.message, "extends", where) for fault in error.faults) from error
    chain = (*above, path.resolve())
    if parent.resolve() in chain:
        circle = " → ".join(relative(file) for file in (*chain, parent.resolve()))
        raise InputError(Fault(f"files extend each other in a circle: {circle}", "extends", where))
    return [*_read_chain(parent.absolute(), registry, chain), layer]


def require_file(path: Path) -> None:
    """Refuse a config path that is no file, with the nearest name that is there."""
    if path.is_dir():
        raise InputError(f"{relative(path)} is a folder; give a config file in it")
    if not path.is_file():
        beside = [file.name for file in path.parent.glob("*.toml")] if path.parent.is_dir() else []
        hint = nearest(path.name, beside) if beside else "its folder holds no config (*.toml)"
        raise InputError(f"there is no file {relative(path)}; {hint}")


def read_file(path: Path) -> Layer:
    """One config file with its lines. InputError where it is not there, or is not TOML."""
    require_file(path)
    name = relative(path)
    try:
        text = path.read_text(encoding="utf-8")
        return Layer(name, tomllib.loads(text), path.parent, locate(text))
    except UnicodeDecodeError as error:
        raise InputError(Fault(f"is not UTF-8 text (byte {error.start}); save it as UTF-8", where=name)) from error
    except OSError as error:
        raise InputError(Fault(f"cannot be read: {error.strerror}", where=name)) from error
    except tomllib.TOMLDecodeError as error:
        message, line, column = _toml_error(error, text)
        raise InputError(Fault(f"not TOML: {message}", where=f"{name}:{line}:{column}")) from error


def _toml_error(error: tomllib.TOMLDecodeError, text: str) -> tuple[str, int, int]:
    """The parser's message with line and column, which it tells only in words."""
    message = str(error)
    found = re.search(r" \(at line (\d+), column (\d+)\)$", message)
    if found is not None:
        return message[: found.start()], int(found[1]), int(found[2])
    lines = text.split("\n")
    return message.removesuffix(" (at end of document)") + ", at the end of the file", len(lines), len(lines[-1]) + 1


# -- overrides --------------------------------------------------------------------------------------


def read_overrides(overrides: Overrides) -> Layer:
    """The layer of ``key.path=value`` words (or of a mapping from key paths to values, from Python).

    A value is read as TOML, and as a string where it is none. A key that is given twice takes the later value.
    """
    if isinstance(overrides, Mapping):
        name, pairs = "override", list(overrides.items())
    else:
        name, pairs = "command line", [_split(word) for word in overrides]
    values: Table = {}
    for key, value in pairs:
        _insert(values, _keys(key, name), value, name)
    return Layer(name, values, Path.cwd())


def _split(word: str) -> tuple[str, Any]:
    key, equals, text = word.partition("=")
    if not equals:
        raise InputError(Fault(f"'{word}' is not of the form key.path=value", where="command line"))
    return key, _value(text)


def _value(text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return parsed["value"] if parsed.keys() == {"value"} else text


def key_path(key: str) -> tuple[str, ...]:
    """The parts of a dotted key. InputError where it is none."""
    return tuple(_keys(key, ""))


def _keys(key: str, name: str) -> list[str]:
    """A dotted key's parts, read as TOML reads them."""
    table: Any = None
    with suppress(tomllib.TOMLDecodeError):
        table = tomllib.loads(f"{key} = 0")
    keys: list[str] = []
    while isinstance(table, dict) and len(table) == 1:
        ((part, table),) = table.items()
        keys.append(part)
    if not keys or table != 0:
        raise InputError(Fault(f"'{key}' is not a key path such as energy.sparsity.weight", where=name))
    return keys


def _insert(values: Table, keys: list[str], value: Any, name: str) -> None:
    *parents, last = keys
    for depth, part in enumerate(parents, 1):
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            message = f"is given a value, and so is {dotted(tuple(keys))} inside it; give one of them"
            raise InputError(Fault(message, dotted(tuple(keys[:depth])), name))
    if isinstance(value, Mapping) and isinstance(values.get(last), dict):
        for key, inside in value.items():
            _insert(values[last], [key], inside, name)
    elif isinstance(values.get(last), dict):
        message = f"is given {value!r}, and so is a key inside it; give one of them"
        raise InputError(Fault(message, dotted(tuple(keys)), name))
    else:
        values[last] = dict(value) if isinstance(value, Mapping) else value
