"""Which field of the models a key path means: for messages, and for what a type asks of a file's value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from groundstate.components import ConfigPath
from groundstate.config.layers import Merged
from groundstate.config.locate import KeyPath
from groundstate.config.tables import Slot
from groundstate.errors import Fault, InputError, PluginError, nearest
from groundstate.registry import Registry

CONFIG_PATH = get_args(ConfigPath)[1]
"""The mark of a path that is relative to the file it is written in."""


@dataclass(frozen=True)
class Form:
    """One alternative of a field's type, with what its annotations add."""

    type: Any
    marks: tuple[Any, ...] = ()

    @property
    def slot(self) -> Slot | None:
        return next((mark for mark in self.marks if isinstance(mark, Slot)), None)

    @property
    def items(self) -> Any:
        """The type of a mapping's or a sequence's items, or None."""
        arguments = get_args(self.type)
        match get_origin(self.type):
            case origin if origin in (dict, Mapping) or (isinstance(origin, type) and issubclass(origin, Mapping)):
                return arguments[1]
            case origin if origin in (list, tuple, set, frozenset) and arguments:
                return arguments[0]
        return None

    @property
    def mapping(self) -> bool:
        origin = get_origin(self.type) or self.type
        return isinstance(origin, type) and issubclass(origin, Mapping)


def forms(annotation: Any, marks: tuple[Any, ...] = ()) -> Iterator[Form]:
    """The alternatives of a type: unions taken apart, annotations collected."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *own = get_args(annotation)
        yield from forms(inner, (*marks, *own))
    elif origin in (Union, UnionType):
        for alternative in get_args(annotation):
            yield from forms(alternative, marks)
    else:
        yield Form(annotation, marks)


def _field_forms(info: FieldInfo) -> list[Form]:
    return list(forms(info.annotation, tuple(info.metadata)))


def table_of(alternatives: list[Form], value: Any, registry: Registry) -> type[BaseModel] | None:
    """The model that a table in this place is read as, or None (no table here, or of an unknown type)."""
    for form in alternatives:
        if form.slot is not None:
            try:
                return form.slot.model(value, registry)
            except (InputError, PluginError):
                return None  # the validation of that table reports it
        if isinstance(form.type, type) and issubclass(form.type, BaseModel):
            return form.type
    return None


@dataclass(frozen=True)
class Place:
    """What stands at a key path: the field, where there is one, and the keys that are known beside it."""

    info: FieldInfo | None
    known: tuple[str, ...]


def place(model: type[BaseModel], values: Any, path: KeyPath, registry: Registry) -> Place:
    """Follow a key path through the models, guided by the values for the types of plugins."""
    current: type[BaseModel] | None = model
    alternatives: list[Form] = []
    info: FieldInfo | None = None
    known: tuple[str, ...] = ()
    for key in path:
        if current is not None:
            known = tuple(current.model_fields)
            info = current.model_fields.get(str(key))
            alternatives = _field_forms(info) if info is not None else []
        else:
            known = ()
            items = next((form.items for form in alternatives if form.items is not None), None)
            alternatives = list(forms(items)) if items is not None else []
        if isinstance(values, dict):
            values = values.get(key)
        elif isinstance(values, list) and isinstance(key, int) and key < len(values):
            values = values[key]
        else:
            values = None
        current = table_of(alternatives, values, registry)
    return Place(info, known)


@dataclass
class Settle:
    """Turns merged values into what the models validate, each by its field's type.

    A path becomes absolute from the folder of the file it was written in; ``false`` drops a table of a named
    set and means none where a field may be none; a number is never a truth value or a word.
    """

    merged: Merged
    registry: Registry
    faults: list[Fault] = field(default_factory=list)

    def table(self, model: type[BaseModel], values: dict[str, Any], path: KeyPath = ()) -> dict[str, Any]:
        """All values of one table."""
        return {
            key: self._value(_field_forms(info), value, (*path, key))
            if (info := model.model_fields.get(key)) is not None
            else value
            for key, value in values.items()
        }

    def _value(self, alternatives: list[Form], value: Any, path: KeyPath) -> Any:
        if value is False and _may_be_none(alternatives):
            return None
        if isinstance(value, dict):
            return self._dict(alternatives, value, path)
        if isinstance(value, list):
            items = next((form.items for form in alternatives if form.items is not None and not form.mapping), None)
            if items is None:
                return value
            return [self._value(list(forms(items)), item, (*path, i)) for i, item in enumerate(value)]
        if isinstance(value, str) and _is_path(alternatives, value):
            return str((self.merged.provenance.origin(path).folder / Path(value).expanduser()).absolute())
        if isinstance(value, bool | str) and _only_numbers(alternatives):
            shown = str(value).lower() if isinstance(value, bool) else f'"{value}"'
            self.faults.append(self.merged.provenance.fault(path, f"is {shown}; it must be a number"))
        return value

    def _dict(self, alternatives: list[Form], value: dict[str, Any], path: KeyPath) -> Any:
        model = table_of(alternatives, value, self.registry)
        if model is not None:
            return self.table(model, value, path)
        items = next((form.items for form in alternatives if form.mapping and form.items is not None), None)
        if items is None:
            return value
        inner = list(forms(items))
        if any(form.slot is not None or _is_model(form.type) for form in inner):
            value = self._drop(inner, value, path)
        return {key: self._value(inner, item, (*path, key)) for key, item in value.items()}

    def _drop(self, inner: list[Form], tables: dict[str, Any], path: KeyPath) -> dict[str, Any]:
        """Named tables without those that ``false`` drops; where they may be none, the name stays."""
        kept = {}
        callbacks = {entry.name for entry in self.registry.defaults("callback")}
        optional = _may_be_none(inner)
        for key, value in tables.items():
            if value is False and (*path, key) in self.merged.idle and not (optional and key in callbacks):
                known = [name for name in tables if (*path, name) not in self.merged.idle]
                message = f"false drops an inherited table, and there is none of this name; {nearest(key, known)}"
                self.faults.append(self.merged.provenance.fault((*path, key), message))
            elif value is not False or optional:
                kept[key] = value
        return kept


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _may_be_none(alternatives: list[Form]) -> bool:
    takes_false = any(
        form.type in (bool, Any)
        or (get_origin(form.type) is Literal and any(word is False for word in get_args(form.type)))
        for form in alternatives
    )
    return not takes_false and any(form.type is NoneType for form in alternatives)


def _is_path(alternatives: list[Form], value: str) -> bool:
    words = any(
        form.type is str or (get_origin(form.type) is Literal and value in get_args(form.type)) for form in alternatives
    )
    return not words and any(CONFIG_PATH in form.marks for form in alternatives)


def _only_numbers(alternatives: list[Form]) -> bool:
    kinds = {form.type for form in alternatives} - {NoneType}
    return bool(kinds) and kinds <= {int, float}
