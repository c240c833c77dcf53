"""A rectified recurrence, unrolled: the encoder of DrSAE, and LISTA."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from groundstate.components import Context, Encoder
from groundstate.parameters import NonNegative, NormBound
from groundstate.structure import L1, Inhibition, LeastSquares, LinearMap, Ridge, Structure
from groundstate_plugins.encoders.recurrence import iterated, unrolled


class Recurrent(Encoder):
    """z⁰ = 0, z^{t+1} = f(E x + R zᵗ − b), ``steps`` = T times; so E and b act T times and R acts T − 1 times.

    f is a rectifier (Rolfe & LeCun 2013, where T is counted so), or a soft threshold at b for signed codes
    (LISTA, Gregor & LeCun 2010). It starts as T steps of ISTA on the decoder's dictionary D: E = αDᵀ,
    R = I − αDᵀD, b = αλ, with λ from the energy's sparsity over the data's weight. Parameters:
    ``feedforward`` E (units, n), ``recurrent`` R (units, units), ``threshold`` b (units,); with ``untied`` each
    has one more axis in front, of T (T − 1 for R).
    """

    feedforward: Tensor
    recurrent: Tensor
    threshold: Tensor

    class Config(Encoder.Config):
        units: int | None = Field(None, ge=1, description="units of the code; by default those of the decoder")
        steps: int = Field(11, ge=1, description="T, how often the nonlinearity is applied")
        activation: Literal["relu", "soft-threshold"] = Field(
            "relu", description="rectifier for non-negative codes, or soft threshold for signed ones"
        )
        untied: bool = Field(False, description="own matrices for each step")
        step: float | None = Field(
            None, gt=0, description="α of the first matrices; by default 1/λmax(DᵀD), or less to keep bound_rows"
        )
        threshold: float | None = Field(
            None, ge=0, description="λ of the first b; by default the energy's L1 weight over its data weight"
        )
        rate: float | None = Field(
            None, gt=0, description="factor on the learning rate of E, R and b; by default 1/T, or 1 if untied"
        )
        bound_rows: float | Literal["paper"] | None = Field(
            "paper", description="largest norm of a row of E; 'paper': 1.25/(T − 1), none at T = 1"
        )

    def code_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...] | None:
        return None if self.config.units is None else (self.config.units,)

    def build(self, context: Context) -> None:
        """Make E, R and b from the decoder's dictionary, or from a random one where the decoder has none."""
        start = self._start(context)
        steps, untied = self.config.steps, self.config.untied
        rate = self.config.rate or (1.0 if untied else 1.0 / steps)
        rows, bound = (2 if untied else 1), self._bound
        first = 1 if untied else 0

        def per_step(value: Tensor, count: int) -> Tensor:
            return value.expand(count, *value.shape).clone() if untied else value

        self.declare(
            "feedforward",
            per_step(start.feedforward, steps),
            rate=rate,
            constraint=None if bound is None else NormBound((rows,), bound),
            unit_dims=(first,),
        )
        self.declare("recurrent", per_step(start.recurrent, steps - 1), rate=rate, unit_dims=(first, first + 1))
        signed = self.config.activation == "soft-threshold"
        self.declare(
            "threshold",
            per_step(start.threshold, steps),
            rate=rate,
            constraint=NonNegative() if signed else None,
            unit_dims=(first,),
        )

    @property
    def _bound(self) -> float | None:
        if self.config.bound_rows == "paper":
            return 1.25 / (self.config.steps - 1) if self.config.steps > 1 else None
        bound: float | None = self.config.bound_rows
        return bound

    def _start(self, context: Context) -> _Start:
        """One step of ISTA on w·½‖x − Dz‖² + ½ρ‖z‖² + λ‖z‖₁, everything over the data's weight w."""
        units = context.flat_units(self.config.units)
        dictionary = context.decoder
        if dictionary is None:
            random = context.randn(context.inputs, units)
            dictionary = LinearMap(matrix=random / random.norm(dim=0))
        sparsity, ridge = penalties_of(context.penalties)
        d = dictionary.matrix.detach()
        step = self.config.step
        if step is None:
            step = 1.0 / max(dictionary.squared_norm() + ridge, torch.finfo(torch.float32).tiny)
            # a row of αDᵀ over the bound would be cut, and R would no longer belong to it
            longest = float(d.norm(dim=0).max())
            if self._bound is not None and step * longest > self._bound:
                step = self._bound / longest
        threshold = sparsity if self.config.threshold is None else self.config.threshold
        identity = torch.eye(units, dtype=d.dtype, device=d.device)
        return _Start(
            feedforward=step * d.T,
            recurrent=(1.0 - step * ridge) * identity - step * (d.T @ d),
            threshold=torch.full((units,), step * threshold, dtype=d.dtype, device=d.device),
        )

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, *input_shape). Returns the code after T steps, (batch, units)."""
        return unrolled(*self._given(x))

    def iterates(self, x: Tensor) -> Iterator[Tensor]:
        """The codes z¹ … z^T, each (batch, units), without their gradient."""
        yield from iterated(*self._given(x))

    def _given(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, int, bool]:
        signed = self.config.activation == "soft-threshold"
        return x.flatten(1), self.feedforward, self.recurrent, self.threshold, self.config.steps, signed

    def select(self, units: Tensor) -> None:
        super().select(units)
        if self.config.units is not None:
            self.config = self.config.model_copy(update={"units": len(units)})


@dataclass(frozen=True)
class _Start:
    """The first matrices of one step."""

    feedforward: Tensor
    recurrent: Tensor
    threshold: Tensor


def penalties_of(forms: tuple[Structure, ...]) -> tuple[float, float]:
    """λ and ρ over the data's weight, from the weighted structures of the energy's terms."""
    data, sparsity, ridge = 0.0, 0.0, 0.0
    for form in forms:
        match form:
            case LeastSquares(weight=weight):
                data += weight
            case L1(weight=weight):
                sparsity += weight
            case Inhibition(weight=weight, sparsity=own):
                sparsity += weight * own
            case Ridge(weight=weight):
                ridge += weight
    return sparsity / (data or 1.0), ridge / (data or 1.0)
