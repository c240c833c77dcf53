"""A convolutional dictionary: the same filters at every place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional

from groundstate.components import Context, Decoder
from groundstate.parameters import NormBound
from groundstate_plugins.windows import WindowFields, Windows


class ConvolutionalDecoder(Decoder):
    """decoded = Σ_m z_m ∗ D_m: each map of the code with a filter of its own, shared by all places.

    The parameter ``filters`` is D: (maps, channels, size, size).
    """

    linear = True
    examples: ClassVar[Sequence[Mapping[str, Any]]] = (
        {"maps": 4, "size": 3},
        {"maps": 4, "size": 4, "stride": 3, "padding": 1, "constraint": "sphere"},
    )
    filters: Tensor

    class Config(WindowFields, Decoder.Config):
        maps: int = Field(ge=1, description="maps of the code, one filter each")
        constraint: Literal["ball", "sphere", "none"] = Field(
            "ball", description="each filter's norm: at most 1 (ball), exactly 1 (sphere) or free"
        )

    def code_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        windows = Windows.on(self.config, input_shape)
        return (self.config.maps, windows.rows, windows.columns)

    def build(self, context: Context) -> None:
        """Make D with random filters of norm 1."""
        self._windows = windows = Windows.on(self.config, context.input_shape)
        filters = context.randn(self.config.maps, windows.channels, windows.size, windows.size)
        filters /= filters.flatten(1).norm(dim=1)[:, None, None, None]
        constraint = NormBound((1, 2, 3), sphere=self.config.constraint == "sphere")
        self.declare(
            "filters", filters, constraint=None if self.config.constraint == "none" else constraint, unit_dims=(0,)
        )

    def forward(self, z: Tensor) -> Tensor:
        """z: (batch, maps, rows, columns). Returns (batch, channels, height, width)."""
        windows = self._windows
        decoded: Tensor = functional.conv_transpose2d(
            z, self.filters, stride=windows.stride, padding=windows.padding, output_padding=windows.left
        )
        return decoded

    def atoms(self) -> Tensor:
        return self.filters

    def select(self, units: Tensor) -> None:
        super().select(units)
        self.config = self.config.model_copy(update={"maps": len(units)})
