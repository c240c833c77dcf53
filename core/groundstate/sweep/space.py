"""The keys that a sweep varies: lists of values and ranges, read from ``[sweep.over]`` or ``--over``."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from groundstate.config import LoadedConfig
from groundstate.config.layers import Layer, Origin, Provenance, dotted, key_path, read_overrides
from groundstate.config.load import load_layers, merge
from groundstate.config.locate import KeyPath
from groundstate.errors import Fault, InputError, nearest
from groundstate.registry import Registry

NAMED = ("energy", "phases")
"""Tables that hold tables by names of a person's choice."""
CORNERS = 64
"""At most so many configs are checked before the first trial."""


class Range(BaseModel):
    """An interval to draw from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    low: float = Field(description="the smallest value")
    high: float = Field(description="the largest value")
    log: bool = Field(False, description="draw evenly on a logarithmic scale")
    step: float | None = Field(None, gt=0, description="only low, low + step, low + 2·step, …")
    int: bool = Field(False, description="whole numbers only")

    @model_validator(mode="after")
    def _possible(self) -> Range:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError("low must be less than high")
        if self.log and self.low <= 0:
            raise ValueError("with log, low must be greater than 0")
        if self.log and self.step is not None:
            raise ValueError("log and step exclude each other")
        if self.int and any(value % 1 for value in (self.low, self.high, self.step or 1)):
            raise ValueError("with int, low, high and step must be whole numbers")
        return self

    @property
    def finite(self) -> bool:
        """Whether its values can be listed."""
        return self.step is not None or (self.int and not self.log)

    def points(self) -> list[Any]:
        """Every value of a finite range."""
        step = self.step or 1.0
        values = [self.low + number * step for number in range(math.floor((self.high - self.low) / step + 1e-9) + 1)]
        return [round(value) for value in values] if self.int else values

    def ends(self) -> list[Any]:
        """Values that show what a key's field takes: both ends, and where fractions are drawn, a fraction."""
        if self.int:
            return [round(self.low), round(self.high)]
        if self.step is not None:
            return [*self.points()[:2], self.points()[-1]]
        middle = math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2
        return [self.low, self.high, middle + (self.high - middle) * 1e-3 * math.sqrt(2)]


Over = Range | list[Any]


@dataclass(frozen=True)
class Space:
    """The searched keys, on top of the layers of a config. places: where each was written."""

    over: Mapping[str, Over]
    places: Mapping[str, Origin]
    layers: Sequence[Layer]
    registry: Registry
    file: Path | None = None

    def config(self, values: Mapping[str, Any]) -> LoadedConfig:
        """The config with these values; InputError tells the line that asks for what cannot be."""
        layers: list[Layer] = []
        for key, value in values.items():
            name, line = _split(self.places[key].where)
            path: KeyPath = key_path(key)
            lines: dict[KeyPath, int] = (
                {} if line is None else {path[:length]: line for length in range(1, len(path) + 1)}
            )
            layers.append(Layer(name, read_overrides({key: value}).values, self.places[key].folder, lines))
        # A key of a table whose type is searched too comes after it, or the new type would drop it.
        layers.sort(key=lambda layer: not _has_type(layer.values))
        return load_layers([*self.layers, *layers], self.registry, self.file)

    def strangers(self) -> Iterator[Fault]:
        """Searched keys inside a term or a phase that the config has not."""
        values = merge(list(self.layers), self.registry).values
        made = {path[:2] for path in map(key_path, self.over) if len(path) == 2 or path[2:] == ("type",)}
        for key in self.over:
            path = key_path(key)
            named = values.get(path[0])
            if path[0] in NAMED and isinstance(named, dict) and path[1] not in named and path[:2] not in made:
                message = f"there is no [{dotted(path[:2])}] in the config; {nearest(path[1], named)}"
                yield Fault(message, key, self.places[key].where)

    def grid(self) -> list[dict[str, Any]]:
        """Every combination of lists and finite ranges, the last key varying fastest."""
        axes = [one.points() if isinstance(one, Range) else one for one in self.over.values()]
        return [dict(zip(self.over, point, strict=True)) for point in itertools.product(*axes)]

    def corners(self, most: int = CORNERS) -> list[dict[str, Any]]:
        """Every combination of list values and range ends where they are few.

        Where they are many, about ``most`` of them, each value among them at least once.
        """
        axes = {key: one.ends() if isinstance(one, Range) else one for key, one in self.over.items()}
        if math.prod(len(axis) for axis in axes.values()) <= most:
            return [dict(zip(axes, point, strict=True)) for point in itertools.product(*axes.values())]
        chance = random.Random(0)
        count = max(most, *(len(axis) for axis in axes.values()))
        drawn = {key: _each_once(axis, count, chance) for key, axis in axes.items()}
        return [{key: values[number] for key, values in drawn.items()} for number in range(count)]


def _split(where: str) -> tuple[str, int | None]:
    name, _, line = where.rpartition(":")
    return (name, int(line)) if name and line.isdigit() else (where, None)


def _has_type(values: Mapping[str, Any]) -> bool:
    return any(key == "type" or (isinstance(inside, dict) and _has_type(inside)) for key, inside in values.items())


def _each_once(axis: list[Any], count: int, chance: random.Random) -> list[Any]:
    first, *rest = [*axis, *(chance.choice(axis) for _ in range(count - len(axis)))]
    chance.shuffle(rest)
    return [first, *rest]


@dataclass
class SpaceReader:
    """Reads searched keys and collects the faults."""

    provenance: Provenance
    faults: list[Fault] = field(default_factory=list)

    def read(
        self, table: Mapping[str, Any], path: KeyPath, key: tuple[str, ...] = ()
    ) -> Iterator[tuple[str, Over, Origin]]:
        """Every searched key below a table: quoted dotted keys and nested tables say the same."""
        for name, value in table.items():
            here = (*path, name)
            try:
                inside = (*key, *key_path(name))
            except InputError as error:
                self.faults.append(self.provenance.fault(here, error.faults[0].message))
                continue
            if isinstance(value, dict) and value and not {"low", "high"} & value.keys():
                yield from self.read(value, here, inside)
            elif (one := self._one(value, here)) is not None:
                yield dotted(inside), one, self.provenance.origin(here)

    def _one(self, value: Any, path: KeyPath) -> Over | None:
        if isinstance(value, dict):
            try:
                return Range.model_validate(value)
            except ValidationError as error:
                self.faults += [
                    self.provenance.fault((*path, *one["loc"]), _lower(one["msg"])) for one in error.errors()
                ]
        elif not isinstance(value, list) or not value:
            message = f"is {value!r}; must be a list of values, or {{low = …, high = …}} with log, step or int"
            self.faults.append(self.provenance.fault(path, message))
        elif _plain(value):
            return value
        else:
            message = "may hold only numbers, texts, truth values, and lists or tables of them"
            self.faults.append(self.provenance.fault(path, message))
        return None


def _lower(message: str) -> str:
    message = message.removeprefix("Value error, ")
    return message[:1].lower() + message[1:]


def _plain(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True
