"""A Gaussian over codes for each input: the encoder of a variational auto-encoder."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from groundstate.components import Code, Context, Encoder

START = 0.1
"""Scale of the log variance's first matrix: at the start σ hardly depends on the input."""


class GaussianEncoder(Encoder):
    """z = μ(x) + σ(x)·ε with ε ~ N(0, 1), two linear maps on top of rectified layers (Kingma & Welling 2014).

    With a ``generator`` (in training, and where a split is evaluated) the code is a draw, so that the energy that
    is measured is the one that is minimised; without one (``encode``, ``infer``) it is the mean μ.
    Parameters: ``hidden<i>`` and ``hidden<i>_bias`` of the rectified layers, ``mean``, ``mean_bias``,
    ``log_variance``, ``log_variance_bias``.
    """

    examples = ({}, {"hidden": [8]})

    class Config(Encoder.Config):
        units: int | None = Field(None, ge=1, description="units of the code; by default those of the decoder")
        hidden: list[Annotated[int, Field(ge=1)]] = Field(
            [], description="sizes of the rectified layers below, the first one first; none by default"
        )
        log_variance: float = Field(-2.0, description="log σ² at the start, of every unit")

    def code_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...] | None:
        return None if self.config.units is None else (self.config.units,)

    def build(self, context: Context) -> None:
        """Make the layers with weights of variance 2/inputs (He et al. 2015), those of the heads 1/inputs."""
        units, width = context.flat_units(self.config.units), context.inputs
        for number, size in enumerate(self.config.hidden):
            self.declare(f"hidden{number}", context.randn(size, width) * (2 / width) ** 0.5)
            self.declare(f"hidden{number}_bias", torch.zeros(size))
            width = size
        for name, scale, start in (("mean", 1.0, 0.0), ("log_variance", START, self.config.log_variance)):
            self.declare(name, scale * context.randn(units, width) / width**0.5, unit_dims=(0,))
            self.declare(f"{name}_bias", torch.full((units,), start), unit_dims=(0,))

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Code:
        """x: (batch, *input_shape). Shares the mean and log σ², (batch, units) each."""
        below = x.flatten(1)
        for number in range(len(self.config.hidden)):
            below = torch.relu(self._linear(f"hidden{number}", below))
        mean, log_variance = self._linear("mean", below), self._linear("log_variance", below)
        value = mean
        if generator is not None:
            noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
            value = mean + (0.5 * log_variance).exp() * noise
        return Code(value, mean=mean, log_variance=log_variance)

    def _linear(self, name: str, below: Tensor) -> Tensor:
        return functional.linear(below, self.get_parameter(name), self.get_parameter(f"{name}_bias"))

    def select(self, units: Tensor) -> None:
        super().select(units)
        if self.config.units is not None:
            self.config = self.config.model_copy(update={"units": len(units)})
