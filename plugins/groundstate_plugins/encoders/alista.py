"""Unrolled thresholding whose matrix is computed, not learned."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from groundstate.components import Context, Encoder
from groundstate.errors import InputError
from groundstate.parameters import NonNegative
from groundstate.problem import soft_threshold


class Alista(Encoder):
    """z^{t+1} = η(zᵗ − γₜ Wᵀ(D zᵗ − x), θₜ) with z⁰ = 0 (ALISTA; Liu, Chen, Wang & Yin 2019, eq. 15).

    W is analytic: of all matrices with wᵢᵀdᵢ = 1 the one of least ‖WᵀD‖_F, their eq. 16; only the step sizes γ and
    the thresholds θ, one of each per step, are learned. η is a soft threshold that lets the largest entries of a code
    pass unshrunk (support selection: their share grows by ``selection`` with each step, up to ``selection_most``).
    D is the decoder's dictionary as it is when the model is built: freeze the decoder. Parameters: ``step_size`` γ
    (T,), ``threshold`` θ (T,).
    """

    step_size: Tensor
    threshold: Tensor
    dictionary: Tensor
    weights: Tensor

    class Config(Encoder.Config):
        steps: int = Field(16, ge=1, description="T, how often the threshold is applied")
        selection: float = Field(
            0.012, ge=0, le=1, description="share of the units that passes unshrunk, times the number of the step"
        )
        selection_most: float = Field(0.13, ge=0, le=1, description="largest such share")
        first: float = Field(0.5, gt=0, description="θ of the first step before learning")
        last: float = Field(0.05, gt=0, description="θ of the last step; those between fall geometrically")

    def build(self, context: Context) -> None:
        """Compute W from the decoder's dictionary; InputError without one."""
        context.flat_units()
        if context.decoder is None:
            raise InputError("analytic weights belong to a dictionary; choose [model.decoder] type = 'linear'")
        d = context.decoder.matrix.detach().clone()
        self.register_buffer("dictionary", d)
        self.register_buffer("weights", analytic_weights(d))
        steps, first, last = self.config.steps, self.config.first, self.config.last
        self.declare("step_size", torch.ones(steps), constraint=NonNegative())
        fall = torch.linspace(0, 1, steps)
        self.declare("threshold", first * (last / first) ** fall, constraint=NonNegative())

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, *input_shape). Returns the code after T steps, (batch, units)."""
        *_, z = self.iterates(x)
        return z

    def iterates(self, x: Tensor) -> Iterator[Tensor]:
        """The codes z¹ … z^T, each (batch, units)."""
        x = x.flatten(1)
        units = self.dictionary.shape[1]
        z = x.new_zeros(len(x), units)
        for t in range(self.config.steps):
            residual = functional.linear(z, self.dictionary) - x
            v = z - self.step_size[t] * (residual @ self.weights)
            share = min((t + 1) * self.config.selection, self.config.selection_most)
            z = select_support(v, self.threshold[t], round(share * units))
            yield z

    def select(self, units: Tensor) -> None:
        """Keep only these units; W stays the one that was computed for all of them."""
        super().select(units)
        for name in ("dictionary", "weights"):
            self.register_buffer(name, self.get_buffer(name).index_select(1, units))


def analytic_weights(dictionary: Tensor) -> Tensor:
    """argmin ‖WᵀD‖_F over wᵢᵀdᵢ = 1, (n, units): wᵢ = (DDᵀ)⁻¹dᵢ / dᵢᵀ(DDᵀ)⁻¹dᵢ, in float64.

    Each column is a least-norm problem of its own, so that the minimum is in closed form where the paper descends.
    Where D has no full row rank, the pseudo-inverse stands for the inverse; a column of zeros keeps zeros.
    """
    d = dictionary.double()
    white = torch.linalg.pinv(d @ d.T, hermitian=True) @ d
    scale = (d * white).sum(0)
    return (white / scale.clamp_min(torch.finfo(d.dtype).tiny)).to(dictionary)


def select_support(v: Tensor, threshold: Tensor, count: int) -> Tensor:
    """Soft threshold, but of each row the ``count`` largest entries pass as they are where they exceed it.

    v: (batch, units); threshold: a scalar ≥ 0.
    """
    shrunk = soft_threshold(v, threshold)
    if count == 0:
        return shrunk
    size = v.detach().abs()
    least = size.topk(min(count, v.shape[1]), dim=1).values[:, -1:]
    return torch.where((size >= least) & (size > threshold), v, shrunk)
