"""Loading a config: files and overrides in, a validated RunConfig out, or every fault at once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from groundstate.config.faults import cross_faults, required_faults, validation_faults
from groundstate.config.fields import Settle
from groundstate.config.layers import (
    PUBLISHED,
    Layer,
    Merged,
    Origin,
    Overrides,
    Provenance,
    read_files,
    read_overrides,
)
from groundstate.config.locate import KeyPath
from groundstate.config.models import DEFAULT_KINDS, NAME_PATTERN, LayerConfig, RunConfig
from groundstate.config.tables import PluginTable
from groundstate.errors import Fault, InputError
from groundstate.registry import REGISTRY_FILE, Registry, system_config

M = TypeVar("M", bound=BaseModel)

SWEEP = "sweep"
"""The table of a config file that a sweep reads, and a single run has not."""


@dataclass(frozen=True)
class LoadedConfig:
    """A validated config, the registry it was read with, and where each value was written.

    file: the config file, None for one from Python.
    """

    config: RunConfig
    registry: Registry
    provenance: Provenance
    file: Path | None = None

    @property
    def layers(self) -> tuple[LoadedLayer, ...]:
        """The layers from the inputs up; one, without a name, where the run is not a stack."""
        return tuple(
            LoadedLayer(name, layer, self.provenance.inside("layers", name) if name else self.provenance)
            for name, layer in self.config.stack.items()
        )

    def place(self, error: InputError | ValidationError, *table: str) -> InputError:
        """The same error with a key inside this table and the file and line where it stands.

        For what a component says of its own fields once it is made, or built on the data's shapes.
        """
        return placed(error, table, self.provenance)


@dataclass(frozen=True)
class LoadedLayer:
    """One layer of a loaded config, and where each value of it was written; key paths begin in its table."""

    name: str
    config: LayerConfig
    provenance: Provenance

    @property
    def tables(self) -> Mapping[str, PluginTable]:
        """The tables of the layer's plugins by their key: model.encoder, energy.<name>, inference, input, pool."""
        config = self.config
        found = {
            "model.encoder": config.model.encoder,
            "model.decoder": config.model.decoder,
            **{f"energy.{name}": table for name, table in config.energy.items()},
            "inference": config.inference,
            "input": config.input,
            "pool": config.pool,
        }
        return {key: table for key, table in found.items() if table is not None}

    def place(self, error: InputError | ValidationError, *table: str) -> InputError:
        """The same error with a key inside this table of the layer, and the file and line where it stands."""
        return placed(error, table, self.provenance)


def placed(error: InputError | ValidationError, table: KeyPath, provenance: Provenance) -> InputError:
    """Faults of a component, located in the table that made it."""
    if isinstance(error, ValidationError):
        return InputError(
            provenance.fault((*table, *detail["loc"]), f"is {detail['input']!r}; {detail['msg']}")
            for detail in error.errors(include_url=False)
        )
    return InputError(_placed(fault, table, provenance) for fault in error.faults)


def _placed(fault: Fault, table: KeyPath, provenance: Provenance) -> Fault:
    # A component names its own field ("index"), a longer key ("data.test"), several of them, or nothing.
    named = [tuple(key.strip().split(".")) for key in fault.key.split(",") if key]
    paths: list[KeyPath] = [keys if keys[: len(table)] == table else (*table, *keys) for keys in named] or [table]
    path = next((path for path in paths if provenance.written(path)), paths[0])
    key = ", ".join(provenance.key(path) for path in paths)
    return Fault(fault.message, key, fault.where or provenance.origin(path).where)


def load_config(source: Path | str | Mapping[str, Any], overrides: Overrides | None = None) -> LoadedConfig:
    """Read a config with overrides on top.

    source: a file, ``groundstate:<name>`` for a published system, or a mapping of the same form.
    overrides: ``key.path=value`` words, or a mapping from key paths to values. InputError holds every fault.
    """
    layers, registry, file = read_layers(source, overrides)
    for layer in layers:
        if SWEEP in layer.values:
            message = "says what `groundstate sweep` searches; take the table out for a single run"
            raise InputError(Fault(message, SWEEP, layer.origin((SWEEP,)).where))
    return load_layers(layers, registry, file)


def read_layers(
    source: Path | str | Mapping[str, Any], overrides: Overrides | None = None
) -> tuple[list[Layer], Registry, Path | None]:
    """The layers of a config, overrides on top, not merged yet; with the plugins that they may name."""
    if isinstance(source, Mapping):
        file = None
        registry = Registry.discover(Path.cwd())
        layers = [Layer("", _plain(source), Path.cwd())]
    else:
        registry = Registry.discover()
        published = str(source).startswith(PUBLISHED)
        file = system_config(registry, str(source)) if published else Path(source)
        layers = read_files(file, registry)
        if published:
            # as a file here that extends the system: relative paths start from this folder, not from the package's
            layers.append(Layer(str(source), {}, Path.cwd(), {("extends",): 1}))
    layers.append(read_overrides(overrides or ()))
    return layers, registry, file


def load_layers(layers: list[Layer], registry: Registry, file: Path | None = None) -> LoadedConfig:
    """Layers merged and validated. file: gives the run its name where no layer does."""
    faults = list(add_plugins(layers, registry))
    merged = merge(layers, registry)
    if file is not None and "name" not in merged.values:
        merged.values["name"] = name_of(file)
    config = validate(RunConfig, merged, registry, faults)
    config = config.model_copy(update={"plugins": sorted(used_registries(config))})
    return LoadedConfig(config, registry, merged.provenance, file)


def merge(layers: list[Layer], registry: Registry) -> Merged:
    """All layers' values, the last on top."""
    first = next((layer for layer in reversed(layers) if layer.lines), layers[0])
    merged = Merged({}, Provenance({}, first.origin(())))
    implied: dict[KeyPath, str] = {
        (key,): found[0].name for key, kind in DEFAULT_KINDS.items() if (found := registry.defaults(kind))
    }
    for layer in layers:
        merged.add(layer, implied)
    merged.provenance.fallback = Origin(first.name, first.folder)
    return merged


def validate(model: type[M], merged: Merged, registry: Registry, faults: list[Fault] | None = None) -> M:
    """The merged values as this model; InputError with every fault, those given among them."""
    faults = faults if faults is not None else []
    settle = Settle(merged, registry)
    values = settle.table(model, merged.values)
    config: M | None = None
    found = settle.faults
    known = {fault.key for fault in found}
    try:
        config = model.model_validate(values, context={"registry": registry})
    except ValidationError as error:
        more = validation_faults(error, model, values, merged.provenance, registry)
        found += [fault for fault in more if fault.key not in known]
    known |= {fault.key for fault in found}
    crossed = cross_faults(values, merged.provenance, registry)
    if model is RunConfig:
        crossed += required_faults(values, merged.provenance, registry)
    faults += [*found, *(fault for fault in crossed if fault.key not in known)]
    if faults or config is None:
        raise InputError(sorted(faults, key=_in_file_order))
    return config


def _in_file_order(fault: Fault) -> tuple[str, int]:
    name, _, line = fault.where.rpartition(":")
    return (name, int(line)) if line.isdigit() else (fault.where, 0)


def add_plugins(layers: list[Layer], registry: Registry) -> Iterator[Fault]:
    """Local plugins that a layer's ``plugins`` names: registry.toml files, or their folders."""
    for layer in layers:
        listed = layer.values.get("plugins")
        for number, name in enumerate(listed if isinstance(listed, list) else ()):
            if not isinstance(name, str | Path):
                continue
            path = layer.folder / Path(name).expanduser()
            path = path / REGISTRY_FILE if path.is_dir() else path
            if path.is_file():
                registry.add_file(path)
            else:
                where = layer.origin(("plugins", number)).where
                yield Fault(f"there is no file {path}; it should be a {REGISTRY_FILE}", f"plugins[{number}]", where)


def used_registries(config: BaseModel) -> set[Path]:
    """The local registry.toml files that name a plugin of this config, so that a copy elsewhere finds them."""
    return {
        table.entry.source.file
        for table in plugin_tables(config)
        if table.entry.source.kind == "local" and table.entry.source.file is not None
    }


def plugin_tables(value: Any) -> Iterator[PluginTable]:
    """Every plugin's table in a config, wherever it stands."""
    if isinstance(value, PluginTable):
        yield value
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from plugin_tables(getattr(value, name))
    elif isinstance(value, Mapping):
        for inside in value.values():
            yield from plugin_tables(inside)


def name_of(file: Path) -> str:
    """A file's stem as a run's name: what cannot stand in one becomes '-'."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", file.stem).strip("-._")
    return stem if re.match(NAME_PATTERN, stem) else "run"


def _plain(value: Any) -> Any:
    """Mappings and sequences as TOML would give them; models as their written-out fields."""
    from groundstate.config.write import to_toml

    if isinstance(value, BaseModel):
        return to_toml(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(inside) for key, inside in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inside) for inside in value]
    return value
