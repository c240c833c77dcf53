"""From a config to objects: plain constructors, their faults located in the config."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from groundstate.components import Backend, Callback, Data, Decoder, Encoder, Learner, Solver, Term, Tracker, Transform
from groundstate.config.layers import Provenance, dotted
from groundstate.config.load import LoadedConfig, placed
from groundstate.config.locate import KeyPath
from groundstate.config.models import Composition
from groundstate.config.tables import PluginTable
from groundstate.errors import Fault, InputError, PluginError


@dataclass(frozen=True)
class LayerParts:
    """What a layer is made of, constructed but not built."""

    name: str
    encoder: Encoder | None
    decoder: Decoder | None
    terms: dict[str, Term]
    solver: Solver[Any]
    input: Transform | None
    pool: Transform | None
    features: str
    learner: Learner


@dataclass(frozen=True)
class Parts:
    """Everything a run is made of. reference: the solver of ``[evaluation.reference]``."""

    layers: tuple[LayerParts, ...]
    backend: Backend
    data: Data
    tracker: Tracker | None
    callbacks: dict[str, Callback]
    reference: Solver[Any] | None


def assemble(loaded: LoadedConfig) -> Parts:
    """Construct every component of a config; InputError with all that the constructors refuse."""
    config, make = loaded.config, Maker(loaded.provenance)
    parts = Parts(
        layers=tuple(make.layer(name, layer, ("layers", name) if name else ()) for name, layer in config.stack.items()),
        backend=make(config.backend, ("backend",)),
        data=make(config.data, ("data",)),
        tracker=make(config.tracking, ("tracking",)),
        callbacks={
            name: make(table, ("callbacks", name)) for name, table in config.callbacks.items() if table is not None
        },
        reference=make(config.evaluation.reference, ("evaluation", "reference")),
    )
    make.finish()
    return parts


class Maker:
    """Calls constructors and collects what they refuse; ``finish`` raises it all at once."""

    def __init__(self, provenance: Provenance) -> None:
        self.provenance = provenance
        self.faults: list[Fault] = []

    def __call__(self, table: PluginTable | None, path: KeyPath) -> Any:
        """The plugin of a table, of the kind that its slot asked for; None without a table.

        A refused one is None too, until ``finish`` raises: so all are found.
        """
        if table is None:
            return None
        try:
            return table.plugin(**table.arguments())
        except (InputError, ValidationError) as error:
            self.faults += placed(error, path, self.provenance).faults
        except Exception as error:
            where = self.provenance.origin(path).where
            raise PluginError(
                f"{table.entry} of {table.entry.source} failed while [{dotted(path)}] ({where}) was made: "
                f"{type(error).__name__}: {error}"
            ) from error
        return None

    def layer(self, name: str, config: Composition, path: KeyPath = ()) -> LayerParts:
        """The parts of a layer whose table stands at this path."""
        return LayerParts(
            name=name,
            encoder=self(config.model.encoder, (*path, "model", "encoder")),
            decoder=self(config.model.decoder, (*path, "model", "decoder")),
            terms={term: self(table, (*path, "energy", term)) for term, table in config.energy.items()},
            solver=self(config.inference, (*path, "inference")),
            input=self(config.input, (*path, "input")),
            pool=self(config.pool, (*path, "pool")),
            features=config.features,
            learner=self(getattr(config, "learning", None), (*path, "learning")),
        )

    def finish(self) -> None:
        """Raise InputError with everything that was refused."""
        if self.faults:
            raise InputError(self.faults)
