"""Convolution, a nonlinearity, and a scaling layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from groundstate.components import Code, Context, Encoder
from groundstate.errors import InputError
from groundstate_plugins.encoders.rectified import Activation, activate, first_filters
from groundstate_plugins.windows import WindowFields, Windows


class ConvolutionalEncoder(Encoder):
    """z_m = g_m · f(x ∗ E_m + b_m): convolution, nonlinearity f, and a learned gain for each map.

    Parameters: ``filters`` E (maps, channels, size, size), ``bias`` b (maps,), ``gain`` g (maps,), the scaling layer.
    """

    examples: ClassVar[Sequence[Mapping[str, Any]]] = (
        {"maps": 4, "size": 3},
        {"maps": 4, "size": 4, "stride": 3, "padding": 1, "activation": "tanh"},
    )
    filters: Tensor
    bias: Tensor
    gain: Tensor

    class Config(WindowFields, Encoder.Config):
        maps: int | None = Field(None, ge=1, description="maps of the code; by default those of the decoder")
        activation: Activation = Field("relu", description="what follows the convolution")
        gain: float = Field(1.0, gt=0, allow_inf_nan=False, description="each map's first gain, which learns")

    def code_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...] | None:
        if self.config.maps is None:
            return None
        windows = Windows.on(self.config, input_shape)
        return (self.config.maps, windows.rows, windows.columns)

    def build(self, context: Context) -> None:
        """Make E, b and g; E from the decoder's filters where they have its shape, else random of norm 1."""
        windows = Windows.on(self.config, context.input_shape)
        maps = self.config.maps or context.code_shape[0]
        shape = (maps, windows.rows, windows.columns)
        if shape != context.code_shape:
            raise InputError(
                f"the encoder makes codes of shape {shape}, the decoder takes {context.code_shape}; "
                "give both the same size, stride, padding and maps"
            )
        filters = first_filters(context, (maps, windows.channels, windows.size, windows.size))
        self.declare("filters", filters, unit_dims=(0,))
        self.declare("bias", torch.zeros(maps), unit_dims=(0,))
        self.declare("gain", torch.full((maps,), self.config.gain), unit_dims=(0,))

    def forward(self, x: Tensor) -> Code:
        """x: (batch, channels, height, width). Shares the pre-activation x ∗ E + b."""
        before = functional.conv2d(x, self.filters, self.bias, self.config.stride, self.config.padding)
        value = activate(before, self.config.activation) * self.gain[:, None, None]
        return Code(value, pre_activation=before)

    def select(self, units: Tensor) -> None:
        super().select(units)
        if self.config.maps is not None:
            self.config = self.config.model_copy(update={"maps": len(units)})
