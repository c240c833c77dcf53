"""One matrix and a nonlinearity."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from groundstate.components import Code, Context, Encoder
from groundstate.parameters import Constraint, NonNegative, NormBound
from groundstate.problem import soft_threshold


class LinearEncoder(Encoder):
    """f(z) with z = E x + b; f: relu, identity, tanh, or a soft threshold at b (then without adding b).

    With ``gain``, one factor per unit: G·f(E x + b). Predictive sparse decomposition (Kavukcuoglu, Ranzato
    & LeCun 2008) takes tanh and a gain. Parameters: ``feedforward`` E (units, n), ``bias`` b, ``gain`` G (units,).
    """

    feedforward: Tensor
    bias: Tensor
    gain: Tensor

    class Config(Encoder.Config):
        units: int | None = Field(None, ge=1, description="units of the code; by default those of the decoder")
        activation: Literal["relu", "identity", "soft-threshold", "tanh"] = Field(
            "relu", description="what follows the matrix"
        )
        gain: bool = Field(False, description="one learned factor per unit after the activation")
        initialise: Literal["decoder", "random"] = Field(
            "decoder", description="first E: the transposed dictionary (random where there is none), or random rows"
        )
        bound_rows: float | None = Field(None, gt=0, description="largest norm of a row of E; none by default")

    def code_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...] | None:
        return None if self.config.units is None else (self.config.units,)

    def build(self, context: Context) -> None:
        """Make E, b and G; E from the decoder where it is linear."""
        units = context.flat_units(self.config.units)
        rows = context.randn(units, context.inputs) / context.inputs**0.5
        if self.config.initialise == "decoder" and context.decoder is not None:
            rows = context.decoder.matrix.detach().T.clone()
        bound = self.config.bound_rows
        rows_in: Constraint | None = None if bound is None else NormBound((1,), bound)
        self.declare("feedforward", rows, constraint=rows_in, unit_dims=(0,))
        threshold = self.config.activation == "soft-threshold"
        self.declare("bias", torch.zeros(units), constraint=NonNegative() if threshold else None, unit_dims=(0,))
        if self.config.gain:
            self.declare("gain", torch.ones(units), unit_dims=(0,))

    def forward(self, x: Tensor) -> Code:
        """x: (batch, *input_shape). Shares the pre-activation E x + b (E x for a soft threshold)."""
        x = x.flatten(1)
        if self.config.activation == "soft-threshold":
            before = functional.linear(x, self.feedforward)
            value = soft_threshold(before, self.bias)
        else:
            before = functional.linear(x, self.feedforward, self.bias)
            match self.config.activation:
                case "relu":
                    value = torch.relu(before)
                case "tanh":
                    value = torch.tanh(before)
                case _:
                    value = before
        return Code(value * self.gain if self.config.gain else value, pre_activation=before)

    def select(self, units: Tensor) -> None:
        super().select(units)
        if self.config.units is not None:
            self.config = self.config.model_copy(update={"units": len(units)})
