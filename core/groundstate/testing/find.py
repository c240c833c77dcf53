"""Which plugins a name or a path means."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from groundstate.components import KINDS, Plugin
from groundstate.errors import InputError, PluginError, relative
from groundstate.loading import import_file
from groundstate.registry import REGISTRY_FILE, Entry, Registry


@dataclass(frozen=True)
class Target:
    """One plugin to examine. error: why it could not be imported, then cls is None."""

    kind: str
    name: str
    cls: type[Plugin] | None
    error: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


def find(what: str | Path | type[Plugin], *, kind: str | None = None, folder: Path | None = None) -> list[Target]:
    """The plugins of a name, a class, a file, or a folder with a registry.toml. InputError where there is none.

    kind: only of this kind. folder: where local plugins are looked for; the nearest registry.toml above it counts.
    """
    if isinstance(what, type):
        return [Target(kind or what.kind, what.__name__.lower(), what)]
    path = (folder or Path.cwd()) / what
    if path.is_dir() or path.name == REGISTRY_FILE:
        return _of_registry(path if path.is_dir() else path.parent, kind)
    if path.suffix == ".py":
        return _of_file(path, kind)
    return _of_name(str(what), kind, folder or Path.cwd())


def _of_name(name: str, kind: str | None, folder: Path) -> list[Target]:
    registry = Registry.discover(_registry_above(folder))
    kinds = tuple(KINDS) if kind is None else (kind,)
    found = [entry for entry in registry.entries(*kinds) if entry.name == name]
    if not found:
        registry.get(kinds, name)
    return [_loaded(entry, registry) for entry in found]


def _registry_above(folder: Path) -> Path:
    return next((one for one in (folder, *folder.parents) if (one / REGISTRY_FILE).is_file()), folder)


def _of_registry(folder: Path, kind: str | None) -> list[Target]:
    if not (folder / REGISTRY_FILE).is_file():
        raise InputError(f"{relative(folder)} holds no {REGISTRY_FILE}, so nothing says which plugins are in it")
    registry = Registry.discover(folder)
    file = (folder / REGISTRY_FILE).resolve()
    found = [
        entry
        for entry in registry.entries()
        if entry.source.file == file and entry.kind in KINDS and kind in (None, entry.kind)
    ]
    if not found:
        raise InputError(f"{relative(folder / REGISTRY_FILE)} names no plugin{f' of kind {kind}' if kind else ''}")
    return [_loaded(entry, registry) for entry in found]


def _of_file(file: Path, kind: str | None) -> list[Target]:
    if not file.is_file():
        raise InputError(f"there is no file {relative(file)}")
    try:
        module = import_file(file)
    except Exception as error:
        raise PluginError(f"{relative(file)} cannot be imported: {type(error).__name__}: {error}") from error
    found = [
        Target(value.kind, name.lower(), value)
        for name, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, Plugin)
        and value.__module__ == module.__name__
        and kind in (None, value.kind)
    ]
    if not found:
        raise InputError(f"{relative(file)} defines no plugin{f' of kind {kind}' if kind else ''}")
    return found


def _loaded(entry: Entry, registry: Registry) -> Target:
    try:
        return Target(entry.kind, entry.name, registry.load(entry))
    except PluginError as error:
        return Target(entry.kind, entry.name, None, str(error))
