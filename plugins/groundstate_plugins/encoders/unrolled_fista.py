"""FISTA unrolled: its matrices, thresholds and momenta are learned, the dictionary is not."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from groundstate.components import Context, Encoder
from groundstate.errors import InputError
from groundstate.parameters import NonNegative
from groundstate.problem import soft_threshold
from groundstate_plugins.encoders.recurrent import penalties_of


class UnrolledFista(Encoder):
    """z^{t+1} = η(yᵗ + Wₜᵀ(x − D yᵗ), θₜ), yᵗ = zᵗ + βₜ(zᵗ − zᵗ⁻¹), z⁰ = 0, ``steps`` = T times.

    η is a soft threshold. Coupled weights: what x and the code so far do goes through the same matrix W (Chen, Liu,
    Wang & Yin 2018), here one for each step, with momentum (Beck & Teboulle 2009). It starts as T iterations of FISTA
    on the energy's data and L1 terms and so is never worse than these before learning. D is the decoder's dictionary
    as it is when the model is built: freeze the decoder. Parameters: ``weights`` W (T, n, units), ``threshold`` θ
    (T, units), ``momentum`` β (T − 1,).
    """

    weights: Tensor
    threshold: Tensor
    momentum: Tensor
    dictionary: Tensor

    class Config(Encoder.Config):
        steps: int = Field(7, ge=1, description="T, how often the threshold is applied")
        momentum_rate: float = Field(10.0, gt=0, description="factor on the learning rate of the momenta β")

    def build(self, context: Context) -> None:
        """Make W, θ and β from the decoder's dictionary; InputError without one."""
        units = context.flat_units()
        if context.decoder is None:
            raise InputError("FISTA is unrolled for a dictionary; choose [model.decoder] type = 'linear'")
        d = context.decoder.matrix.detach().clone()
        self.register_buffer("dictionary", d)
        steps = self.config.steps
        step = 1.0 / max(context.decoder.squared_norm(), torch.finfo(torch.float32).tiny)
        sparsity, _ = penalties_of(context.penalties)
        self.declare("weights", (step * d).expand(steps, *d.shape).clone(), unit_dims=(2,))
        threshold = torch.full((steps, units), step * sparsity, dtype=d.dtype, device=d.device)
        self.declare("threshold", threshold, constraint=NonNegative(), unit_dims=(1,))
        beta = torch.tensor(momenta(steps), dtype=d.dtype, device=d.device)
        self.declare("momentum", beta, rate=self.config.momentum_rate)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, *input_shape). Returns the code after T steps, (batch, units)."""
        *_, z = self.iterates(x)
        return z

    def iterates(self, x: Tensor) -> Iterator[Tensor]:
        """The codes z¹ … z^T, each (batch, units)."""
        x = x.flatten(1)
        z = soft_threshold(x @ self.weights[0], self.threshold[0])
        before = torch.zeros_like(z)
        yield z
        for t in range(1, self.config.steps):
            y = z + self.momentum[t - 1] * (z - before)
            residual = x - functional.linear(y, self.dictionary)
            before, z = z, soft_threshold(y + residual @ self.weights[t], self.threshold[t])
            yield z

    def select(self, units: Tensor) -> None:
        super().select(units)
        self.register_buffer("dictionary", self.dictionary.index_select(1, units))


def momenta(steps: int) -> list[float]:
    """β of FISTA before its iterations 2 … ``steps``: (t − 1)/t′ with t′ = (1 + √(1 + 4t²))/2, t = 1 at first."""
    found, t = [], 1.0
    for _ in range(steps - 1):
        following = 0.5 * (1 + math.sqrt(1 + 4 * t * t))
        found.append((t - 1) / following)
        t = following
    return found
