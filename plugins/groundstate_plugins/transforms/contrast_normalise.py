"""Local contrast normalisation of images and maps."""

from __future__ import annotations

import torch
from pydantic import Field, field_validator
from torch import Tensor
from torch.nn import functional

from groundstate.components import Context, Transform
from groundstate.errors import InputError


class ContrastNormalise(Transform):
    """Subtract the local mean over all maps, divide by the local standard deviation where it is large.

    v = x − w∗x̄ and y = v / max(σ, mean σ) with σ² = w∗mean(v²), means over maps, w a Gaussian window that is
    renormalised at the borders (Jarrett, Kavukcuoglu, Ranzato & LeCun 2009, section 2.1).
    """

    window: Tensor

    class Config(Transform.Config):
        size: int = Field(9, ge=3, description="height and width of the window, odd; its deviation is a quarter of it")

        @field_validator("size")
        @classmethod
        def _odd(cls, size: int) -> int:
            if size % 2 == 0:
                raise ValueError(f"a window needs a middle: {size - 1} or {size + 1}, not {size}")
            return size

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        size = self.config.size
        if len(shape) != 3:
            raise InputError(f"local contrast needs images (channels, height, width), not inputs of shape {shape}")
        if min(shape[1:]) <= size // 2:
            raise InputError(f"size: a window of {size}×{size} is too large for images of {shape[1]}×{shape[2]}")
        return shape

    def build(self, context: Context) -> None:
        size = self.config.size
        place = torch.arange(size) - size // 2
        side = torch.exp(-0.5 * (4 * place / size).square())
        self.register_buffer("window", side / side.sum())
        self.output_shape(context.input_shape)

    def _smooth(self, x: Tensor) -> Tensor:
        """w∗x of one map each, (batch, 1, height, width); the window's two sides one after the other."""
        middle = self.config.size // 2
        rows = functional.conv2d(x, self.window.view(1, 1, -1, 1), padding=(middle, 0))
        return functional.conv2d(rows, self.window.view(1, 1, 1, -1), padding=(0, middle))

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, channels, height, width). Returns the same shape; an image without contrast gives zeros."""
        inside = self._smooth(x.new_ones(1, 1, *x.shape[2:]))
        v = x - self._smooth(x.mean(1, keepdim=True)) / inside
        tiny = torch.finfo(x.dtype).eps
        deviation = (self._smooth(v.square().mean(1, keepdim=True)) / inside).clamp_min(tiny**2).sqrt()
        return v / torch.maximum(deviation, deviation.mean((2, 3), keepdim=True))
