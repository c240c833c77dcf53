"""Synthetic sparse codes seen through a Gaussian dictionary: the standard test of learned thresholding."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor

from groundstate.components import Data
from groundstate.data import DataInfo, Splits, TensorSource, fingerprint
from groundstate.problem import per_sample
from groundstate_plugins.data.rows import as_bytes

PARTS = ("train", "validation", "test")


class GaussianSparse(Data):
    """x = D z* + noise: D with unit columns, z* standard normal at places drawn with ``density``, else 0.

    The setting of Chen, Liu, Wang & Yin 2018. x: (inputs,); target: z*, (units,). D is drawn from
    ``dictionary_seed`` as the decoder ``linear`` draws it from its option ``seed``: normal values (inputs, units),
    then columns of norm 1. The noise is Gaussian, as strong in every sample as ``snr`` says.
    """

    class Config(Data.Config):
        inputs: int = Field(250, ge=1, description="entries of x")
        units: int = Field(500, ge=1, description="entries of a code")
        density: float = Field(0.1, gt=0, le=1, description="chance of an entry of z* to be non-zero")
        snr: float = Field(40.0, allow_inf_nan=False, description="signal over noise of x, dB")
        train: int = Field(20_000, ge=1, description="samples for training")
        validation: int = Field(1_000, ge=1, description="samples for validation")
        test: int = Field(1_000, ge=1, description="samples for the test")
        dictionary_seed: int = Field(0, ge=0, lt=2**32, description="draws D")
        sample_seed: int = Field(0, ge=0, lt=2**32, description="draws codes and noise")

    def describe(self) -> DataInfo:
        samples = {name: getattr(self.config, name) for name in PARTS}
        return DataInfo((self.config.inputs,), ("x", "target"), samples)

    def load(self, seed: int) -> Splits:
        """The three parts; ``dictionary_seed`` and ``sample_seed`` alone draw them."""
        d = self.dictionary()
        generator = torch.Generator().manual_seed(self.config.sample_seed)
        # Held-out samples are drawn first: how many there are for training does not move them.
        drawn = {name: self._draw(d, getattr(self.config, name), generator) for name in reversed(PARTS)}
        sources = {name: TensorSource(**fields) for name, fields in drawn.items()}
        contents = [fields[key] for fields in drawn.values() for key in ("x", "target")]
        return Splits(**sources, fingerprint=fingerprint(as_bytes(self.config.model_dump()), *contents))

    def dictionary(self) -> Tensor:
        """D, (inputs, units), columns of norm 1."""
        generator = torch.Generator().manual_seed(self.config.dictionary_seed)
        columns = torch.randn(self.config.inputs, self.config.units, generator=generator)
        return columns / columns.norm(dim=0)

    def _draw(self, d: Tensor, count: int, generator: torch.Generator) -> Mapping[str, Tensor]:
        shape = (count, self.config.units)
        z = torch.randn(shape, generator=generator)
        z *= torch.rand(shape, generator=generator) < self.config.density
        clean = z @ d.T
        noise = torch.randn(clean.shape, generator=generator)
        power = clean.square().mean(1) * 10 ** (-self.config.snr / 10)
        return {"x": clean + noise * per_sample(power.sqrt(), noise), "target": z}
