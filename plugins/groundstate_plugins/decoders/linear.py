"""A dictionary: decoded = z Dᵀ."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from groundstate.components import Context, Decoder
from groundstate.parameters import NormBound
from groundstate.structure import LinearMap


class LinearDecoder(Decoder):
    """D z, with one column (atom) of D per unit of the code.

    The parameter ``dictionary`` is D: (n, units), n the number of entries of an input.
    """

    linear = True
    examples = ({"units": 12}, {"units": 12, "constraint": "sphere", "initialise": "data"})
    dictionary: Tensor
    _input_shape: tuple[int, ...]

    class Config(Decoder.Config):
        units: int = Field(ge=1, description="units of the code, the columns of the dictionary")
        constraint: Literal["ball", "sphere", "none"] = Field(
            "ball", description="each column's norm: at most 1 (ball), exactly 1 (sphere) or free"
        )
        initialise: Literal["random", "data"] = Field(
            "random", description="first columns: random directions, or training samples with noise"
        )
        noise: float = Field(
            0.1, ge=0, description="norm of the noise added to a sample that starts a column, over the sample's norm"
        )

    def code_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (self.config.units,)

    def build(self, context: Context) -> None:
        """Make D with unit columns. Without a sample to look at (``initialise = "data"``) they are random."""
        self._input_shape = context.input_shape
        columns = context.randn(context.inputs, self.config.units)
        if self.config.initialise == "data" and context.sample is not None:
            columns = self._from_samples(context.sample, context.generator, columns)
        columns = columns / columns.norm(dim=0).clamp_min(torch.finfo(columns.dtype).tiny)
        constraint = NormBound((0,), sphere=self.config.constraint == "sphere")
        self.declare(
            "dictionary",
            columns,
            constraint=None if self.config.constraint == "none" else constraint,
            unit_dims=(1,),
        )

    def _from_samples(self, sample: Tensor, generator: torch.Generator, random: Tensor) -> Tensor:
        """Distinct samples as columns, each with noise; blank ones are passed over, and all return in a new
        order where there are fewer than units. random: (n, units) standard normal values, the noise.
        """
        flat = sample.detach().flatten(1).to(random)
        flat = flat[flat.norm(dim=1) > 0]
        if not len(flat):
            return random
        rounds = -(-self.config.units // len(flat))
        order = torch.cat([torch.randperm(len(flat), generator=generator) for _ in range(rounds)])
        columns = flat[order[: self.config.units]].T
        noise: Tensor = self.config.noise * columns.norm(dim=0) / random.norm(dim=0) * random
        return columns + noise

    def forward(self, z: Tensor) -> Tensor:
        """z: (batch, units). Returns (batch, *input_shape)."""
        decoded: Tensor = functional.linear(z, self.dictionary)
        return decoded.reshape(len(z), *self._input_shape)

    def structure(self) -> LinearMap:
        return LinearMap(matrix=self.dictionary)

    def select(self, units: Tensor) -> None:
        super().select(units)
        self.config = self.config.model_copy(update={"units": len(units)})
