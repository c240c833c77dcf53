"""A dictionary: decoded = z Dᵀ."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from groundstate.components import Code, ConfigPath, Context, Decoder
from groundstate.errors import Fault, InputError
from groundstate.parameters import NormBound
from groundstate.structure import LinearMap

GATHERED = 32
"""A code of at most one entry in so many is decoded faster by a gather than by a product."""


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
        initialise: Literal["random", "data", "cosine"] = Field(
            "random",
            description="first columns: random directions, training samples with noise, or, for square patches, "
            "products of cosines",
        )
        seed: int | None = Field(
            None, ge=0, lt=2**32, description="draws the random directions; by default the run's seed does"
        )
        dictionary: ConfigPath | None = Field(
            None, description="a .npy file with the first columns, (n, units), in place of initialise"
        )
        noise: float = Field(
            0.1, ge=0, description="norm of the noise added to a sample that starts a column, over the sample's norm"
        )

    def code_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (self.config.units,)

    def build(self, context: Context) -> None:
        """Make D with unit columns. Without a sample to look at (``initialise = "data"``) they are random."""
        self._input_shape = context.input_shape
        columns = self._random(context)
        if self.config.dictionary is not None:
            columns = self._read(self.config.dictionary, tuple(columns.shape))
            # a saved model holds the matrix and must load where the file is not
            self.config = self.config.model_copy(update={"dictionary": None})
        elif self.config.initialise == "data" and context.sample is not None:
            columns = self._from_samples(context.sample, context.generator, columns)
        elif self.config.initialise == "cosine":
            columns = _cosines(context.inputs, self.config.units).to(columns)
        columns = columns / columns.norm(dim=0).clamp_min(torch.finfo(columns.dtype).tiny)
        constraint = NormBound((0,), sphere=self.config.constraint == "sphere")
        self.declare(
            "dictionary",
            columns,
            constraint=None if self.config.constraint == "none" else constraint,
            unit_dims=(1,),
        )

    def _random(self, context: Context) -> Tensor:
        if self.config.seed is None:
            return context.randn(context.inputs, self.config.units)
        own = torch.Generator().manual_seed(self.config.seed)
        return torch.randn(context.inputs, self.config.units, generator=own)

    def _read(self, path: Path, shape: tuple[int, ...]) -> Tensor:
        try:
            matrix = np.load(path)
        except (OSError, ValueError) as error:
            raise InputError(Fault(f"{path} cannot be read as .npy: {error}", "dictionary")) from error
        if matrix.shape != shape or not np.isfinite(matrix).all():
            message = f"{path} holds {matrix.shape}; the dictionary is {shape}, (n, units), of finite numbers"
            raise InputError(Fault(message, "dictionary"))
        return torch.from_numpy(matrix.astype(np.float32))

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

    def decode(self, code: Code) -> Tensor:
        """As ``forward``; a code of few entries by gathering their columns."""
        kept, entries = code.kept, code.entries
        if kept is None or entries is None or GATHERED * kept.shape[1] > self.dictionary.shape[1]:
            return super().decode(code)
        atoms = self.dictionary.T.contiguous()
        decoded = functional.embedding_bag(kept, atoms, per_sample_weights=entries, mode="sum")
        return decoded.reshape(len(kept), *self._input_shape)

    def structure(self) -> LinearMap:
        return LinearMap(matrix=self.dictionary)

    def select(self, units: Tensor) -> None:
        super().select(units)
        self.config = self.config.model_copy(update={"units": len(units)})


def _cosines(inputs: int, units: int) -> Tensor:
    """Products of a vertical and a horizontal cosine, evenly spaced from constant to fastest: (inputs, units), float64.

    The overcomplete cosine dictionary of Elad & Aharon 2006: all but the constant without mean along their axis.
    InputError where inputs are no square patches.
    """
    side = math.isqrt(inputs)
    if side * side != inputs:
        message = f"cosines need square patches, and {inputs} values are none; choose 'random' or 'data'"
        raise InputError(Fault(message, "initialise"))
    count = math.isqrt(units - 1) + 1
    line = torch.outer(torch.arange(side) + 0.5, torch.arange(count) * (math.pi / count)).double().cos()
    line[:, 1:] -= line[:, 1:].mean(0)
    line /= line.norm(dim=0)
    # the lowest frequencies of the square grid, where there are fewer units than products
    order = (torch.arange(count)[:, None].square() + torch.arange(count).square()).flatten().argsort(stable=True)
    return torch.kron(line, line)[:, order[:units]]
