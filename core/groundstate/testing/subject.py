"""The plugin under examination, and the small made-up surroundings it is tried in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from groundstate.components import Component, Context, Plugin
from groundstate.errors import InputError
from groundstate.structure import LinearMap
from groundstate.testing.results import Broken

CLASSES = 3
INPUT_SHAPES = ((20,), (2, 8, 8))
CODE_SHAPES = ((36,), (4, 3, 3))
"""Flat and 2-D; 36 units divide into pools of 2, 3, 4, 6 and 9 and stand on a 6×6 sheet."""

MakeBatch = Callable[[int, torch.Generator], Mapping[str, Tensor]]
"""(samples, generator) → further fields of a batch, each (samples, …)."""


def generator(seed: int = 0) -> torch.Generator:
    """A source of random numbers that nothing else draws from."""
    return torch.Generator().manual_seed(seed)


@dataclass(frozen=True)
class Subject:
    """One plugin with the constructor fields that it is tried with.

    batch: makes what its terms ask for beyond x, y and mask, or None.
    """

    cls: type[Plugin]
    kind: str
    name: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    batch: MakeBatch | None = None

    def __str__(self) -> str:
        return f"{self.cls.__name__}({', '.join(f'{key}={value!r}' for key, value in self.fields.items())})"

    def make(self, **changes: Any) -> Any:
        """A new instance with these fields and changes."""
        return self.cls(**{**self.fields, **changes})


def subjects(
    cls: type[Plugin],
    kind: str,
    name: str,
    fields: Mapping[str, Any] | None = None,
    batch: MakeBatch | None = None,
) -> list[Subject]:
    """The plugin with the given fields, else with each of its own ``examples``, else with its defaults."""
    tried = [fields] if fields is not None else examples_of(cls)
    return [Subject(cls, kind, name, dict(one), batch) for one in tried]


def examples_of(cls: type[Plugin]) -> Sequence[Mapping[str, Any]]:
    """The constructor fields that a plugin says it can be tried with; one without any where it says nothing."""
    given = getattr(cls, "examples", ())
    return tuple(given() if callable(given) else given) or ({},)


@dataclass(frozen=True)
class Setting:
    """Shapes that a component is built for, and how often: inputs, codes."""

    input_shape: tuple[int, ...]
    code_shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"inputs of shape {self.input_shape}, codes of shape {self.code_shape}"

    @property
    def units(self) -> int:
        return int(torch.Size(self.code_shape).numel())

    def matrix(self) -> Tensor:
        """A dictionary with unit columns, (n, units), float64."""
        n = int(torch.Size(self.input_shape).numel())
        d = torch.randn(n, self.units, generator=generator(7), dtype=torch.float64)
        norms: Tensor = d.norm(dim=0)
        return d / norms

    def context(self, seed: int = 0) -> Context:
        """What a component sees while it is built."""
        sample = torch.randn(32, *self.input_shape, generator=generator(11))
        decoder = LinearMap(matrix=self.matrix().float()) if len(self.code_shape) == 1 else None
        return Context(self.input_shape, self.code_shape, generator(seed), CLASSES, sample, decoder)


def build(subject: Subject, setting: Setting, *, seed: int = 0, dtype: torch.dtype = torch.float64) -> Component:
    """A component built for a setting. InputError where it refuses the shapes."""
    # What a component draws from the global generator differs between two builds, and is found by that.
    torch.manual_seed(seed + 1_000)
    part: Component = make(subject)
    part.build(setting.context(seed))
    return part.to(dtype)


def make(subject: Subject) -> Any:
    """A new instance; Broken where the fields are refused."""
    try:
        return subject.make()
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        key = ".".join(map(str, detail["loc"]))
        raise Broken(
            f"{subject} cannot be made: {key}: {detail['msg']}",
            advice="say what it can be tried with: examples = ({…},) in the class, or fields given to the test",
        ) from error


def accepted(subject: Subject, settings: Sequence[Setting]) -> Iterator[Setting]:
    """The settings that the component does not refuse. Broken where it refuses all."""
    refused = []
    for setting in settings:
        try:
            build(subject, setting)
        except InputError as error:
            refused.append(f"{setting}: {error}")
        else:
            yield setting
    if len(refused) == len(settings):
        raise Broken(
            f"{subject} refuses every shape it is tried with; {refused[0]}",
            advice=f"it must take one of {', '.join(map(str, settings))}; or give it examples that do",
        )


def some(value: Tensor, most: int = 6) -> str:
    """A few of a tensor's entries, for a message."""
    flat = value.detach().flatten()
    shown = ", ".join(f"{float(entry):.4g}" for entry in flat[:most])
    return f"[{shown}{', …' if flat.numel() > most else ''}]"


def close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    """Equal shapes, and entries that differ by at most tolerance·(1 + |b|)."""
    if a.shape != b.shape:
        return False
    both_infinite = (a == b) & torch.isinf(a)
    return bool((both_infinite | ((a - b).abs() <= tolerance * (1 + b.abs()))).all())
