"""The config of a saved model: written from its components, read back into them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import tomli_w
from torch import nn

from groundstate.components import Backend, Plugin
from groundstate.config.assemble import LayerParts, Maker
from groundstate.config.layers import read_files
from groundstate.config.load import add_plugins, merge, validate
from groundstate.config.models import ModelConfig, RunConfig, StackConfig
from groundstate.config.tables import PluginTable, table_model
from groundstate.config.write import to_toml
from groundstate.errors import InputError
from groundstate.loading import LOADED
from groundstate.registry import Registry

if TYPE_CHECKING:
    from groundstate.model import Model
    from groundstate.stack import Layer, Stack


def model_tables(model: Model) -> str:
    """The config, as TOML, of a model's components as they are now (pruned ones say their new sizes).

    InputError where a component's class is in no registry: nothing could make it again.
    """
    writer = _Writer(Registry.discover())
    return writer.text(writer.model(model), model.backend)


def stack_tables(stack: Stack) -> str:
    """The config, as TOML, of a stack, each layer as ``model_tables`` writes a model."""
    writer = _Writer(Registry.discover())
    layers = {layer.name: writer.layer(layer) for layer in stack}
    tables = {"layers": layers} if stack.top.name else layers[""]
    return writer.text(tables, stack.top.model.backend)


def pruned_tables(config: RunConfig, layer: Layer) -> dict[str, Any]:
    """The values of a run's config with the components of one of its layers as they are now."""
    tables = to_toml(config)
    place = tables["layers"][layer.name] if layer.name else tables
    place |= _Writer(Registry.discover()).model(layer.model)
    return tables


class _Writer:
    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.local: set[Path] = set()

    def text(self, tables: dict[str, Any], backend: Backend | None) -> str:
        if backend is not None:
            tables = {**tables, "backend": self.table(backend)}
        return tomli_w.dumps({"plugins": sorted(str(file) for file in self.local), **tables})

    def model(self, model: Model) -> dict[str, Any]:
        """The tables of a model's components."""
        maps = {"encoder": model.encoder, "decoder": model.decoder}
        return {
            "model": {name: self.table(part) for name, part in maps.items() if part is not None},
            "energy": {name: self.table(term) for name, term in model.energy.terms.items()},
            "inference": self.table(model.solver),
        }

    def layer(self, layer: Layer) -> dict[str, Any]:
        """The tables of a layer: those of its model, and what stands around it."""
        around = {"input": layer.input, "pool": layer.pool}
        tables = {name: self.table(part) for name, part in around.items() if part is not None}
        return {"features": layer.features, **tables, **self.model(layer.model)}

    def table(self, part: Plugin | nn.Module) -> dict[str, Any]:
        cls = type(part)
        entry = LOADED.get(cls) or self.registry.find(cls)
        if entry is None:
            raise InputError(
                f"{cls.__module__}.{cls.__qualname__} is in no registry.toml, so a saved model could not name it; "
                "register it, or keep its state_dict yourself"
            )
        if entry.source.kind == "local" and entry.source.file is not None:
            self.local.add(entry.source.file)
        return {"type": entry.name, **to_toml(cast(Plugin, part).config)}


def load_model_tables(path: Path) -> tuple[tuple[LayerParts, ...], Backend | None]:
    """The layers that a file of ``model_tables`` or ``stack_tables`` describes, and the backend; nothing is built.

    A backend that this machine has not gives way to the registry's default, in the same precision.
    """
    registry = Registry.discover()
    files = read_files(path, registry)
    faults = list(add_plugins(files, registry))
    merged = merge(files, registry)
    make = Maker(merged.provenance)
    config: ModelConfig | StackConfig
    if "layers" in merged.values:
        config = validate(StackConfig, merged, registry, faults)
        layers = tuple(make.layer(name, layer, ("layers", name)) for name, layer in config.layers.items())
    else:
        config = validate(ModelConfig, merged, registry, faults)
        layers = (make.layer("", config),)
    backend = make(_usable_backend(config.backend, registry), ("backend",))
    make.finish()
    return layers, backend


def _usable_backend(table: PluginTable | None, registry: Registry) -> PluginTable | None:
    default = registry.default("backend")
    if table is None or default is None or not issubclass(table.plugin, Backend):
        return table
    if table.plugin.available().available:
        return table
    values = {"type": default.name, "dtype": table.arguments()["dtype"]}
    return table_model(default, registry.load(default)).model_validate(values)
