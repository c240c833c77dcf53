"""Tables that a plugin's ``type`` gives their form: a union discriminated on ``type``, resolved when it is read.

Only the types that a config uses are imported, so a broken plugin hurts none but those who name it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    ValidationInfo,
    create_model,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from groundstate.components import Learner, Plugin
from groundstate.errors import InputError, PluginError
from groundstate.registry import TERM_KINDS, Entry, Registry

PLUGIN_FAULT = "plugin"
"""Type of the pydantic errors that are whole sentences already."""


class PluginTable(BaseModel):
    """A table of a config that becomes one plugin: its ``type`` and the fields of the plugin's ``Config``.

    The concrete class is made by ``table_model``; ``entry`` and ``plugin`` say for what.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    entry: ClassVar[Entry]
    plugin: ClassVar[type[Plugin]]

    type: str

    def arguments(self) -> dict[str, Any]:
        """The plugin's constructor arguments."""
        return {name: getattr(self, name) for name in type(self).model_fields if name != "type"}


_MODELS: dict[tuple[Entry, type[Plugin]], type[PluginTable]] = {}


def table_model(entry: Entry, plugin: type[Plugin]) -> type[PluginTable]:
    """The form of a table whose ``type`` names this plugin: the plugin's Config and ``type``.

    Always the same class for the same plugin, so that configs compare equal.
    """
    if (entry, plugin) not in _MODELS:
        create: Callable[..., type[PluginTable]] = create_model
        kind = (Literal[entry.name], Field(entry.name, description=f"the {entry.kind} plugin"))
        made = create(
            f"{plugin.__name__}Table", __base__=(plugin.Config, PluginTable), __doc__=entry.summary, type=kind
        )
        made.entry, made.plugin = entry, plugin
        _MODELS[entry, plugin] = made
    return _MODELS[entry, plugin]


def registry_of(info: ValidationInfo) -> Registry:
    """The registry that a validation was given, else everything installed."""
    given = (info.context or {}).get("registry")
    return given if isinstance(given, Registry) else _installed()


@cache
def _installed() -> Registry:
    return Registry.discover()


@dataclass(frozen=True)
class Slot:
    """Marks a field that holds a PluginTable of one of these kinds."""

    kinds: tuple[str, ...]

    @property
    def name(self) -> str:
        return "term" if self.kinds == TERM_KINDS else self.kinds[0]

    def default_type(self, registry: Registry) -> str | None:
        """The type of a table that does not say its own, from the registry."""
        if len(self.kinds) > 1 or self.kinds[0] == "callback":
            return None
        entry = registry.default(self.kinds[0])
        return entry.name if entry is not None else None

    def model(self, value: Any, registry: Registry) -> type[PluginTable] | None:
        """The form of this table; None where it names no type. InputError or PluginError as the registry says."""
        named = value.get("type") if isinstance(value, dict) else None
        if named is None:
            named = self.default_type(registry)
        if not isinstance(named, str):
            return None
        entry = registry.get(self.kinds, named)
        return table_model(entry, registry.load(entry))

    def validate(self, value: Any, info: ValidationInfo) -> PluginTable:
        """Read a table as its plugin's; errors carry the place inside it."""
        if isinstance(value, PluginTable):
            return value
        if not isinstance(value, dict):
            raise PydanticCustomError(
                PLUGIN_FAULT, "must be a table with a type that names a {kind}", {"kind": self.name}
            )
        try:
            model = self.model(value, registry_of(info))
        except (InputError, PluginError) as error:
            raise _at_type(str(error), value) from error
        if model is None:
            raise _at_type(f"is required: the name of a {self.name} plugin", value)
        return model.model_validate({**value, "type": model.entry.name}, context=info.context)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(self.validate)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {SLOT_MARK: self.name}


SLOT_MARK = "x-groundstate-slot"
"""Stands in pydantic's JSON Schema where ``schema`` puts the union of a slot's plugins."""


def _at_type(message: str, value: Any) -> ValidationError:
    error = PydanticCustomError(PLUGIN_FAULT, message)
    detail = InitErrorDetails(type=error, loc=("type",), input=value)
    return ValidationError.from_exception_data("type", [detail])


class LearnerFields(PluginTable, Learner.Config):
    """What every learner's table has, whichever its plugin: a run reads these."""


EncoderTable = Annotated[PluginTable, Slot(("encoder",))]
DecoderTable = Annotated[PluginTable, Slot(("decoder",))]
TransformTable = Annotated[PluginTable, Slot(("transform",))]
TermTable = Annotated[PluginTable, Slot(TERM_KINDS)]
SolverTable = Annotated[PluginTable, Slot(("solver",))]
BackendTable = Annotated[PluginTable, Slot(("backend",))]
LearnerTable = Annotated[LearnerFields, Slot(("learner",))]
DataTable = Annotated[PluginTable, Slot(("data",))]
TrackerTable = Annotated[PluginTable, Slot(("tracker",))]
CallbackTable = Annotated[PluginTable, Slot(("callback",))]
