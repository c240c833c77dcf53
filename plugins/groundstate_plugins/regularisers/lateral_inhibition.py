"""Lateral inhibition: units that S couples do not fire together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor

from groundstate.components import ConfigPath, Context, Regulariser
from groundstate.errors import Fault, InputError
from groundstate.parameters import select_units
from groundstate.problem import Step, soft_threshold
from groundstate.structure import L1, Inhibition, Structure
from groundstate_plugins.regularisers.inhibition_set import InhibitionSet

SYMMETRIC = 1e-6
"""Entries of a file's S and their mirrors may differ by this, relative to the largest: rounding in float32."""


class InhibitionTerm(Regulariser, ABC):
    """α‖z‖₁ + |z|ᵀS|z| with S symmetric, non-negative and zero where units do not inhibit each other.

    S is fixed, or a parameter that ascends the energy inside ``InhibitionSet``: a large S_ij says that i and j must
    not fire together. The energy is not convex; its prox majorises it at the current code. Subclasses say
    which pairs may inhibit each other and what S starts from.

    ``matrix`` is S as (*code_shape, *code_shape), so that pruning finds the axes it slices.
    """

    matrix: Tensor

    class Config(Regulariser.Config):
        sparsity: float = Field(
            1.0, ge=0, allow_inf_nan=False, description="α, the weight of ‖z‖₁ beside the inhibition"
        )
        strength: float = Field(
            1.0, ge=0, allow_inf_nan=False, description="value of S where units inhibit each other, at the start"
        )
        non_negative: bool = Field(False, description="restrict codes to z ≥ 0")
        learn: bool = Field(False, description="S ascends the energy, with learning.ascent_rate")
        row_sum: float | None = Field(
            None,
            gt=0,
            allow_inf_nan=False,
            description="bound on each row's sum of a learned S, from the start on; without it the ascent diverges",
        )

        @model_validator(mode="after")
        def _bounded(self) -> Self:
            if self.learn and self.row_sum is None:
                raise ValueError("learn = true needs row_sum, e.g. 5: without a bound the ascent of S diverges")
            if self.row_sum is not None and not self.learn:
                raise ValueError("row_sum bounds a learned S; set learn = true or leave it out")
            return self

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        self.non_negative = self.config.non_negative
        self._largest: tuple[Tensor, int, float] | None = None

    @abstractmethod
    def allowed(self, units: int) -> Tensor:
        """(units, units) bool, symmetric, False on the diagonal: which pairs may inhibit each other."""

    @abstractmethod
    def start(self, allowed: Tensor) -> Tensor:
        """The first S, (units, units)."""

    def build(self, context: Context) -> None:
        """Make S, a parameter where it is learned and a buffer where it is given."""
        self.code_shape = context.code_shape
        allowed = self.allowed(context.units)
        start = self.start(allowed).view(self.code_shape * 2)
        if self.config.learn:
            bound = InhibitionSet(allowed.view_as(start), self.config.row_sum)
            self.declare("matrix", start, direction="ascend", constraint=bound, unit_dims=self._unit_dims())
        else:
            self.register_buffer("matrix", start)

    def _unit_dims(self) -> tuple[int, int]:
        return 0, len(self.code_shape)

    def _between_units(self) -> Tensor:
        """S, (units, units)."""
        return self.matrix.flatten(0, len(self.code_shape) - 1).flatten(1)

    def energy(self, z: Tensor) -> Tensor:
        """z: (batch, *code_shape). Returns (batch,)."""
        size = z.flatten(1).abs()
        return (size * (self.config.sparsity + size @ self._between_units())).sum(1)

    def prox(self, v: Tensor, step: Step, z: Tensor) -> Tensor:
        """Soft threshold at step·(α + 2 S|z|): the prox of the energy majorised at z (see ``curvature``)."""
        threshold = self.config.sparsity + 2 * (z.flatten(1).abs() @ self._between_units())
        return soft_threshold(v, step * threshold.view_as(z), non_negative=self.non_negative)

    def curvature(self) -> float:
        """2 λmax(S): |u|ᵀS|u| is at most its linearisation in |z| plus λmax(S)‖u − z‖²."""
        held = self._largest
        if held is None or held[0] is not self.matrix or held[1] != self.matrix._version:
            with torch.no_grad():
                top = float(torch.linalg.eigvalsh(self._between_units().double())[-1])
            held = self._largest = (self.matrix, self.matrix._version, 2 * max(top, 0.0) * (1 + 1e-9))
        return held[2]

    def structure(self) -> Inhibition:
        return Inhibition(matrix=self._between_units(), sparsity=self.config.sparsity, non_negative=self.non_negative)

    def prox_after(self, earlier: Sequence[Structure | None]) -> bool:
        """Soft thresholds add up, whatever each unit's own."""
        return all(isinstance(form, L1) for form in earlier)

    def select(self, units: Tensor) -> None:
        """Keep these units, indices along the code's first axis."""
        super().select(units)
        if not self.config.learn:
            self.register_buffer("matrix", select_units(self.matrix, self._unit_dims(), units))
        self.code_shape = (len(units), *self.code_shape[1:])
        self._largest = None

    def formula(self) -> str:
        sparsity = f"{self.config.sparsity:g}·‖z‖₁ + " if self.config.sparsity else ""
        return f"{sparsity}|z|ᵀS|z|" + (", z ≥ 0" if self.non_negative else "")


class LateralInhibition(InhibitionTerm):
    """α‖z‖₁ + |z|ᵀS|z| between any two units, S given by a file or a rule, or learned from there.

    Once read, S belongs to the model and its file: a saved model does not ask for ``matrix`` again.
    """

    examples: ClassVar[Sequence[Mapping[str, Any]]] = (
        {},
        {"rule": "constant", "strength": 0.3, "non_negative": True},
        {"rule": "distance", "sheet": (6, 6), "strength": 0.2},
        {"rule": "constant", "strength": 0.2, "learn": True, "row_sum": 2.0},
    )

    class Config(InhibitionTerm.Config):
        matrix: ConfigPath | None = Field(
            None, description="S as a .npy file, (units, units): symmetric, non-negative, zero diagonal"
        )
        rule: Literal["none", "constant", "distance"] = Field(
            "none",
            description="S without a file: zero; strength between all units; or strength between units that lie "
            "further apart than reach",
        )
        sheet: tuple[PositiveInt, PositiveInt] | None = Field(
            None, description="rows and columns on which the units lie, for distances; by default a line"
        )
        reach: float = Field(1.5, ge=0, description="units at most this far apart do not inhibit each other")
        wrap: bool = Field(True, description="the line is a ring, the sheet a torus")

        @model_validator(mode="after")
        def _one_source(self) -> Self:
            if self.matrix is not None and self.rule != "none":
                raise ValueError("matrix and rule both say what S is; leave one out")
            return self

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        self._given: Tensor | None = None

    def allowed(self, units: int) -> Tensor:
        return ~torch.eye(units, dtype=torch.bool)

    def start(self, allowed: Tensor) -> Tensor:
        units = len(allowed)
        if self.config.matrix is not None:
            self._given = self._read(units)
            self.config = self.config.model_copy(update={"matrix": None})
        if self._given is not None and len(self._given) == units:
            return self._given.clone()
        match self.config.rule:
            case "constant":
                coupled = allowed
            case "distance":
                coupled = allowed & (self._distances(units) > self.config.reach)
            case _:
                coupled = torch.zeros_like(allowed)
        return self.config.strength * coupled.float()

    def _distances(self, units: int) -> Tensor:
        """Euclidean distances of the units on their line or sheet, neighbours 1 apart, (units, units)."""
        rows, columns = self.config.sheet or (1, units)
        if rows * columns != units:
            raise _fault("sheet", f"{rows} × {columns} has {rows * columns} places; the code has {units} units")
        place = torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij"), -1).view(-1, 2)
        apart = (place[:, None] - place[None, :]).abs()
        if self.config.wrap:
            apart = torch.minimum(apart, torch.tensor([rows, columns]) - apart)
        return apart.double().norm(dim=2)

    def _read(self, units: int) -> Tensor:
        """S from the file, at most rounding away from symmetric."""
        path = self.config.matrix
        try:
            values = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise _fault("matrix", f"{path} cannot be read as a .npy file: {error}") from error
        if not isinstance(values, np.ndarray) or values.dtype.kind not in "biuf":
            raise _fault("matrix", f"{path} is not one array of real numbers; save S by numpy.save")
        if values.shape != (units, units):
            raise _fault("matrix", f"{path} has shape {values.shape}; the code needs ({units}, {units})")
        values = values.astype(np.float64)

        def refuse(wrong: np.ndarray, message: str) -> None:
            if wrong.any():
                row, column = np.argwhere(wrong)[0].tolist()
                value, mirror = values[row, column], values[column, row]
                place = f"row {row}, column {column} is {value:g}"
                raise _fault("matrix", f"{path}: {place}" + message.format(row=row, column=column, mirror=mirror))

        refuse(~np.isfinite(values), "; every value must be finite")
        refuse(values < 0, "; S must be ≥ 0")
        refuse(
            np.abs(values - values.T) > SYMMETRIC * np.abs(values).max(initial=0),
            ", but row {column}, column {row} is {mirror:g}; S must be symmetric",
        )
        refuse(np.diag(np.diag(values)) != 0, "; a unit does not inhibit itself, so the diagonal must be 0")
        return torch.from_numpy(0.5 * (values + values.T)).to(torch.get_default_dtype())

    def select(self, units: Tensor) -> None:
        """Keep only these units; from then on S lives in the model's file, not in a rule."""
        super().select(units)
        self.config = self.config.model_copy(update={"matrix": None, "rule": "none", "sheet": None})


def _fault(key: str, message: str) -> InputError:
    return InputError(Fault(message, key=key))
