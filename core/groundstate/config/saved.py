"""The config of a saved model: written from its components, read back into them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w

from groundstate.components import Backend, Plugin
from groundstate.config.assemble import Maker
from groundstate.config.layers import read_files
from groundstate.config.load import add_plugins, merge, validate
from groundstate.config.models import ModelConfig
from groundstate.config.tables import PluginTable, table_model
from groundstate.config.write import to_toml
from groundstate.errors import InputError
from groundstate.loading import LOADED
from groundstate.registry import Registry

if TYPE_CHECKING:
    from groundstate.model import Model


def model_tables(model: Model) -> str:
    """The config, as TOML, of a model's components as they are now (pruned ones say their new sizes).

    InputError where a component's class is in no registry: nothing could make it again.
    """
    writer = _Writer(Registry.discover())
    text: dict[str, Any] = {
        "model": {
            name: writer.table(part)
            for name, part in (("encoder", model.encoder), ("decoder", model.decoder))
            if part is not None
        },
        "energy": {name: writer.table(term) for name, term in model.energy.terms.items()},
        "inference": writer.table(model.solver),
    }
    if model.backend is not None:
        text["backend"] = writer.table(model.backend)
    return tomli_w.dumps({"plugins": sorted(str(file) for file in writer.local), **text})


class _Writer:
    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.local: set[Path] = set()

    def table(self, part: Plugin) -> dict[str, Any]:
        cls = type(part)
        entry = LOADED.get(cls) or self.registry.find(cls)
        if entry is None:
            raise InputError(
                f"{cls.__module__}.{cls.__qualname__} is in no registry.toml, so a saved model could not name it; "
                "register it, or keep its state_dict yourself"
            )
        if entry.source.kind == "local" and entry.source.file is not None:
            self.local.add(entry.source.file)
        return {"type": entry.name, **to_toml(part.config)}


def load_model_tables(path: Path) -> Model:
    """The model that a file of ``model_tables`` describes, not built and without weights.

    A backend that this machine has not gives way to the registry's default, in the same precision.
    """
    from groundstate.model import Model

    registry = Registry.discover()
    layers = read_files(path, registry)
    faults = list(add_plugins(layers, registry))
    merged = merge(layers, registry)
    config = validate(ModelConfig, merged, registry, faults)
    make = Maker(merged.provenance)
    parts = make.model(config)
    backend = make(_usable_backend(config.backend, registry), ("backend",))
    make.finish()
    return Model(**parts, backend=backend)


def _usable_backend(table: PluginTable | None, registry: Registry) -> PluginTable | None:
    default = registry.default("backend")
    if table is None or default is None or not issubclass(table.plugin, Backend):
        return table
    if table.plugin.available().available:
        return table
    values = {"type": default.name, "dtype": table.arguments()["dtype"]}
    return table_model(default, registry.load(default)).model_validate(values)
