"""A locally connected decoder: every unit with a filter of its own, on whole images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from groundstate.components import Context, Decoder
from groundstate.parameters import NormBound
from groundstate_plugins.local import SheetFields, by_position, filters_by_position, images_of, sheet_shape
from groundstate_plugins.windows import Windows


class LocalDecoder(Decoder):
    """Units on a sheet, each adding its own filter to its own part of the image; nothing is shared.

    The parameter ``filters``: (maps, rows, columns, channels, size, size), rows and columns of the sheet.
    """

    linear = True
    examples: ClassVar[Sequence[Mapping[str, Any]]] = (
        {"maps": 4, "size": 3},
        {"maps": 4, "size": 4, "stride": 2, "block": 2, "constraint": "sphere"},
    )
    filters: Tensor

    class Config(SheetFields, Decoder.Config):
        constraint: Literal["ball", "sphere", "none"] = Field(
            "ball", description="each filter's norm: at most 1 (ball), exactly 1 (sphere) or free"
        )

    def code_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return sheet_shape(self.config, Windows.on(self.config, input_shape))

    def build(self, context: Context) -> None:
        """Make the filters, random of norm 1."""
        self._windows = windows = Windows.on(self.config, context.input_shape)
        self._sides = context.input_shape[1], context.input_shape[2]
        shape = (*sheet_shape(self.config, windows), windows.channels, windows.size, windows.size)
        filters = context.randn(*shape)
        filters /= filters.flatten(3).norm(dim=3)[..., None, None, None]
        constraint = NormBound((3, 4, 5), sphere=self.config.constraint == "sphere")
        self.declare(
            "filters", filters, constraint=None if self.config.constraint == "none" else constraint, unit_dims=(0,)
        )

    def forward(self, z: Tensor) -> Tensor:
        """z: (batch, maps, rows, columns). Returns (batch, channels, height, width)."""
        filters = filters_by_position(self.filters, self.config.block)
        # one small product per position
        patches = torch.bmm(filters.transpose(1, 2), by_position(z, self.config.block))
        return images_of(patches, self._windows, self._sides)

    def atoms(self) -> Tensor:
        return self.filters

    def select(self, units: Tensor) -> None:
        super().select(units)
        self.config = self.config.model_copy(update={"maps": len(units)})
