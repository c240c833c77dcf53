"""The form of a run's config: what each table may say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, model_validator

from groundstate.components import ConfigPath
from groundstate.config.tables import (
    BackendTable,
    CallbackTable,
    DataTable,
    DecoderTable,
    EncoderTable,
    LearnerTable,
    SolverTable,
    TermTable,
    TrackerTable,
    TransformTable,
    registry_of,
)
from groundstate.learning import PhaseConfig
from groundstate.registry import Registry

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"

RunName = Annotated[str, Field(pattern=NAME_PATTERN)]
"""A name that can begin a folder's: letters, digits, '.', '_' and '-'."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


def _absolute(path: Path) -> Path:
    return path.expanduser().absolute()


class ComponentsConfig(_Table):
    """``[model]``: what predicts a code and what decodes it."""

    encoder: EncoderTable | None = Field(None, description="predicts a code from an input; none by default")
    decoder: DecoderTable | None = Field(None, description="maps a code back to the input; none by default")


class EvaluationConfig(_Table):
    """``[evaluation]``: what is measured beside the terms' own figures."""

    reference: SolverTable | None = Field(
        None, description="a solver whose certified codes an amortised encoder's are compared with"
    )
    samples: int = Field(1000, ge=1, description="inputs of each split that the reference solver is run on")


class OutputConfig(_Table):
    """``[output]``: where runs are written."""

    folder: Annotated[Path, AfterValidator(_absolute)] = Field(
        Path("runs"),
        validate_default=True,
        description="holds a folder per run; relative to the working directory",
    )
    report: bool = Field(True, description="end the run with report.html")


Terms = Annotated[
    dict[str, TermTable], Field(description="the energy's terms by name; the energy is their weighted sum")
]
Phases = Annotated[dict[str, PhaseConfig], Field(description="stretches of training by name, in order")]
INFERENCE = "the solver that finds the code of lowest energy"


class _Parts(_Table):
    """What may be left out of a layer."""

    model: ComponentsConfig = Field(default_factory=ComponentsConfig, description="encoder and decoder")
    input: TransformTable | None = Field(None, description="what is done to the inputs first; nothing by default")
    pool: TransformTable | None = Field(
        None,
        description="what is done to the codes before the next layer, or a classifier, sees them; nothing by default",
    )
    features: Literal["code", "encoder"] = Field(
        "code",
        description="what goes on from here once the layer is trained: the code that inference finds, "
        "or the encoder's prediction of it",
    )


class Composition(_Parts):
    """What a model is made of."""

    energy: Terms
    inference: SolverTable = Field(description=INFERENCE)


class LayerConfig(Composition):
    """``[layers.<name>]``: a model and how it learns."""

    learning: LearnerTable = Field(description="how parameters learn")
    phases: dict[str, PhaseConfig] = Field(
        default_factory=dict,
        description="stretches of training by name, in order; a layer of a stack that has none stays as it starts",
    )


class _Saved(_Table):
    """What a saved model's config says beside what it is made of."""

    backend: BackendTable | None = Field(None, description="device and precision")
    plugins: list[ConfigPath] = Field(default_factory=list, description="registry.toml files of local plugins")


class ModelConfig(Composition, _Saved):
    """The config of a saved model: what ``Model.load`` needs beside the weights."""


class StackConfig(_Saved):
    """The config of a saved stack."""

    layers: dict[str, Composition] = Field(description="its layers, from the inputs up")


class RunConfig(_Parts):
    """A whole run: one layer, or the layers of a stack. The tables that are left out take the registry's defaults."""

    energy: Terms = Field(default_factory=dict)
    inference: SolverTable | None = Field(None, description=INFERENCE)
    learning: LearnerTable | None = Field(None, description="how parameters learn")
    phases: Phases = Field(default_factory=dict)
    layers: dict[str, LayerConfig] = Field(
        default_factory=dict,
        description="of a stack, from the inputs up: each has its own model, energy, inference, learning and phases, "
        "and is trained on what the layers below it make of the data",
    )
    name: RunName = Field("run", description="begins the run's id; by default the file's name")
    seed: int = Field(0, ge=0, lt=2**63, description="of every random draw; the same seed gives the same run")
    plugins: list[ConfigPath] = Field(
        default_factory=list,
        description="registry.toml files of local plugins, beside the one in the config's folder",
    )
    data: DataTable = Field(description="the data set")
    backend: BackendTable = Field(description="device and precision")
    tracking: TrackerTable | None = Field(description="keeps a record of the run; false for none")
    callbacks: dict[str, CallbackTable | None] = Field(description="what else follows the run; false drops one")
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig, description="what is measured")
    output: OutputConfig = Field(default_factory=OutputConfig, description="where runs are written")

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any, info: ValidationInfo) -> Any:
        return with_defaults(values, registry_of(info)) if isinstance(values, dict) else values

    @property
    def elsewhere(self) -> tuple[str, ...]:
        """The keys that this config cannot have: those of a single layer in a stack, and the other way round."""
        return LAYER_KEYS if self.layers else ("layers",)

    @property
    def stack(self) -> Mapping[str, LayerConfig]:
        """The layers from the inputs up; of a run that is one layer, that one, without a name."""
        if self.layers:
            return self.layers
        return {"": LayerConfig.model_construct(**{name: getattr(self, name) for name in LayerConfig.model_fields})}


LAYER_KEYS = tuple(LayerConfig.model_fields)
"""What stands either at the top level, or in each layer."""

REQUIRED = ("energy", "inference", "phases")
"""What a run that is one layer must say."""


DEFAULT_KINDS = {"backend": "backend", "tracking": "tracker", "inference": "solver", "learning": "learner"}
"""Top-level tables that may be left out, and the kind whose default plugin then stands there."""

NO_TRACKER = "none"
"""``[tracking] type = "none"`` says the same as ``tracking = false``."""


def with_defaults(values: dict[str, Any], registry: Registry) -> dict[str, Any]:
    """The tables of a run with the registry's default plugins where they say none; ``false`` becomes none.

    Two plugins that both claim to be the default are left to the table's own validation, which says so.
    """
    filled = dict(values)
    for key, kind in DEFAULT_KINDS.items():
        each_layers_own = key in LAYER_KEYS and filled.get("layers")
        if key not in filled and registry.defaults(kind) and not each_layers_own:
            filled[key] = {}
    layers = filled.get("layers")
    if isinstance(layers, dict) and registry.defaults("learner"):
        filled["layers"] = {
            name: {"learning": {}, **layer} if isinstance(layer, dict) else layer for name, layer in layers.items()
        }
    if filled.setdefault("tracking", None) in (False, {"type": NO_TRACKER}):
        filled["tracking"] = None
    callbacks = filled.get("callbacks", {})
    if isinstance(callbacks, dict):
        own = {entry.name: {"type": entry.name} for entry in registry.defaults("callback")}
        filled["callbacks"] = own | {
            name: None if value is False else own.get(name, {}) | value if isinstance(value, dict) else value
            for name, value in callbacks.items()
        }
    return filled
