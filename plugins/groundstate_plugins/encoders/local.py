"""A locally connected encoder: every unit with a filter of its own, on whole images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from groundstate.components import Code, Context, Encoder
from groundstate.errors import InputError
from groundstate_plugins.encoders.rectified import Activation, activate, first_filters
from groundstate_plugins.local import SheetFields, filters_by_position, on_sheet, patches_of, sheet_shape
from groundstate_plugins.windows import Windows


class LocalEncoder(Encoder):
    """z_u = g_u · f(⟨E_u, x around u⟩ + b_u) for each unit u of a sheet; nothing is shared (Gregor & LeCun 2010).

    Parameters: ``filters`` E (maps, rows, columns, channels, size, size), ``bias`` b and ``gain`` g of the sheet's
    shape.
    """

    examples: ClassVar[Sequence[Mapping[str, Any]]] = (
        {"maps": 4, "size": 3},
        {"maps": 4, "size": 4, "stride": 2, "block": 2, "activation": "identity"},
    )
    filters: Tensor
    bias: Tensor
    gain: Tensor

    class Config(SheetFields, Encoder.Config):
        activation: Activation = Field("relu", description="what follows the filters")
        gain: float = Field(1.0, gt=0, allow_inf_nan=False, description="each unit's first gain, which learns")

    def code_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return sheet_shape(self.config, Windows.on(self.config, input_shape))

    def build(self, context: Context) -> None:
        """Make E, b and g; E from the decoder's filters where they have its shape, else random of norm 1."""
        self._windows = windows = Windows.on(self.config, context.input_shape)
        shape = sheet_shape(self.config, windows)
        if shape != context.code_shape:
            raise InputError(
                f"the encoder makes codes of shape {shape}, the decoder takes {context.code_shape}; "
                "give both the same size, stride, padding, maps and block"
            )
        filters = first_filters(context, (*shape, windows.channels, windows.size, windows.size))
        self.declare("filters", filters, unit_dims=(0,))
        self.declare("bias", torch.zeros(shape), unit_dims=(0,))
        self.declare("gain", torch.full(shape, self.config.gain), unit_dims=(0,))

    def forward(self, x: Tensor) -> Code:
        """x: (batch, channels, height, width). Shares what comes before the nonlinearity."""
        config = self.config
        filters = filters_by_position(self.filters, config.block)
        units = torch.bmm(filters, patches_of(x, self._windows))
        rows, columns = self.bias.shape[1:]
        before = on_sheet(units, (config.maps, rows, columns), config.block) + self.bias
        return Code(activate(before, config.activation) * self.gain, pre_activation=before)

    def select(self, units: Tensor) -> None:
        super().select(units)
        self.config = self.config.model_copy(update={"maps": len(units)})
