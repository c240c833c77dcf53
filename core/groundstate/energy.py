"""The energy: a weighted sum of terms, each giving one value per sample."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from copy import deepcopy
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import torch
from torch import Tensor

from groundstate.components import Code, Decoder, Stage, Term, needs
from groundstate.data import Batch
from groundstate.errors import InputError, PluginError

PROVIDED = ("z", "code", "prediction", "decoded", "decode", "generator")
"""What every point provides beside the fields of the data's batch (x, y, …)."""
OF_THE_ENCODER = ("prediction", "code")
"""What the encoder gives, so that it runs for a term that asks for it."""


class Point:
    """The named quantities of one evaluation: what terms may ask for, computed once and shared.

    code: (batch, *code_shape) and what the encoder shares. prediction: the encoder's code, where there is one.
    """

    def __init__(
        self,
        batch: Batch,
        code: Code,
        decoder: Decoder | None,
        prediction: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        self.batch = batch
        self.code = code
        self.decoder = decoder
        self.prediction = prediction
        self.generator = generator
        self._decoded: Tensor | None = None

    @property
    def decoded(self) -> Tensor:
        """decode(z), computed at the first call."""
        if self._decoded is None:
            self._decoded = self._decoder().decode(self.code)
        return self._decoded

    def _decoder(self) -> Decoder:
        if self.decoder is None:
            raise InputError("a term asks for 'decoded', but the model has no decoder; add [model.decoder]")
        return self.decoder

    def provide(self, name: str) -> Any:
        """The quantity of this name; InputError with the list of what there is."""
        match name:
            case "z":
                return self.code.value
            case "code":
                return self.code
            case "decoded":
                return self.decoded
            case "decode":
                return self._decoder()
            case "generator":
                return self.generator
            case "prediction":
                if self.prediction is None:
                    raise InputError("a term asks for 'prediction', but the model has no encoder; add [model.encoder]")
                return self.prediction
        try:
            return self.batch.fields[name]
        except KeyError:
            there = ", ".join((*self.batch.fields, *PROVIDED))
            raise InputError(f"a term asks for '{name}', which nothing provides; there is: {there}") from None

    def call(self, method: Callable[..., Any]) -> Any:
        """Call a term's method with what it asks for by name."""
        return method(**{name: self.provide(name) for name in needs(method)})


@dataclass(frozen=True)
class Split:
    """How acting terms share the work of a solver.

    smooth: names whose gradient is taken. proxed: names handled by proximal maps, in order.
    composed: applying those maps in that order is the prox of their sum (else proximal Dykstra).
    """

    smooth: tuple[str, ...]
    proxed: tuple[str, ...]
    composed: bool


class Energy:
    """E = Σ_t w_t · term_t, per sample.

    A batch's energy is the mean over its samples, so that a weight means the same at any batch size.
    """

    def __init__(self, terms: Mapping[str, Term], decoder: Decoder | None = None) -> None:
        self.terms = terms
        self.decoder = decoder
        self._splits: dict[tuple[str, ...], Split] = {}

    def in_double(self) -> Energy:
        """A copy with its parameters in double precision."""
        terms, decoder = deepcopy((dict(self.terms), self.decoder))
        for part in (*terms.values(), decoder):
            if part is not None:
                part.double()
        return Energy(terms, decoder)

    def weights(
        self, stage: Stage, only: Collection[str] | None = None, changed: Mapping[str, float] | None = None
    ) -> dict[str, float]:
        """The weight of each term that acts in this stage.

        only: names that a phase lets act (None for all). changed: weights that a phase sets instead.
        """
        changed = changed or {}
        return {
            name: changed.get(name, term.config.weight)
            for name, term in self.terms.items()
            if term.acts_in(stage) and (only is None or name in only)
        }

    def values(self, point: Point, weights: Mapping[str, float]) -> dict[str, Tensor]:
        """Each named term's weighted energy, (batch,) each; their sum is the total."""
        return {name: weight * self._value(name, point) for name, weight in weights.items()}

    def total(self, point: Point, weights: Mapping[str, float]) -> Tensor:
        """The energy per sample, (batch,)."""
        total = point.code.value.new_zeros(len(point.code.value))
        for value in self.values(point, weights).values():
            total = total + value
        return total

    def _value(self, name: str, point: Point) -> Tensor:
        value: Tensor = point.call(self.terms[name].energy)
        batch = len(point.code.value)
        if value.shape != (batch,):
            raise PluginError(
                f"energy.{name} ({type(self.terms[name]).__qualname__}) returned shape {tuple(value.shape)}; "
                f"an energy is one value per sample, ({batch},)"
            )
        return value

    def split(self, names: tuple[str, ...]) -> Split:
        """Which of the named terms a solver takes by gradient and which by prox, in an exact order if any."""
        if names not in self._splits:
            proxed = tuple(name for name in names if self.terms[name].prox is not None)
            smooth = tuple(name for name in names if name not in proxed)
            order = self._exact_order(proxed)
            self._splits[names] = Split(smooth, order or proxed, order is not None)
        return self._splits[names]

    def _exact_order(self, names: tuple[str, ...]) -> tuple[str, ...] | None:
        if len(names) < 2:
            return names
        forms = {name: self.terms[name].structure() for name in names}
        for order in permutations(names):
            exact = (
                self.terms[name].prox_after([forms[earlier] for earlier in order[:position]])
                for position, name in enumerate(order)
                if position
            )
            if all(exact):
                return order
        return None
