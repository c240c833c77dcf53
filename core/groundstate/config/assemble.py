"""From a config to objects: plain constructors, their faults located in the config."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from groundstate.components import Backend, Callback, Data, Decoder, Encoder, Learner, Solver, Term, Tracker
from groundstate.config.layers import Provenance, dotted
from groundstate.config.load import LoadedConfig, placed
from groundstate.config.locate import KeyPath
from groundstate.config.models import Composition
from groundstate.config.tables import PluginTable
from groundstate.errors import Fault, InputError, PluginError


@dataclass(frozen=True)
class ModelParts:
    """What a model is made of, constructed but not built."""

    encoder: Encoder | None
    decoder: Decoder | None
    terms: dict[str, Term]
    solver: Solver[Any]


@dataclass(frozen=True)
class Parts(ModelParts):
    """Everything a run is made of. reference: the solver of ``[evaluation.reference]``."""

    learner: Learner
    backend: Backend
    data: Data
    tracker: Tracker | None
    callbacks: dict[str, Callback]
    reference: Solver[Any] | None


def assemble(loaded: LoadedConfig) -> Parts:
    """Construct every component of a config; InputError with all that the constructors refuse."""
    config, make = loaded.config, Maker(loaded.provenance)
    model = make.model(config)
    parts = Parts(
        **model,
        learner=make(config.learning, ("learning",)),
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

    def model(self, config: Composition) -> dict[str, Any]:
        """The fields of ModelParts."""
        return {
            "encoder": self(config.model.encoder, ("model", "encoder")),
            "decoder": self(config.model.decoder, ("model", "decoder")),
            "terms": {name: self(table, ("energy", name)) for name, table in config.energy.items()},
            "solver": self(config.inference, ("inference",)),
        }

    def finish(self) -> None:
        """Raise InputError with everything that was refused."""
        if self.faults:
            raise InputError(self.faults)
