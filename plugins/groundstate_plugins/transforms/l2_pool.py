"""L2 pooling: how much energy a neighbourhood of units holds, whichever of them are active."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any, ClassVar

import torch
from pydantic import Field, PositiveInt
from torch import Tensor
from torch.nn import functional

from groundstate.components import Transform
from groundstate.errors import InputError

Sides = tuple[int, int, int]


class L2Pool(Transform):
    """√(Σ z²) over windows of neighbouring maps and positions (Kavukcuoglu et al. 2009).

    Windows on maps divide them evenly; those on positions are cut at the far edges, so that every unit stands in
    one. Of flat codes, ``maps`` counts consecutive units.
    """

    examples: ClassVar[Sequence[Mapping[str, Any]]] = ({"maps": 2}, {"positions": 3, "positions_stride": 2})

    class Config(Transform.Config):
        maps: PositiveInt = Field(1, description="neighbouring maps in a pool (units, where codes are flat)")
        maps_stride: PositiveInt | None = Field(None, description="maps between two pools; as many as maps by default")
        positions: PositiveInt | tuple[PositiveInt, PositiveInt] = Field(
            1, description="side (or height and width) of a pool within a map"
        )
        positions_stride: PositiveInt | tuple[PositiveInt, PositiveInt] | None = Field(
            None, description="positions between two pools; as many as positions by default"
        )

    def _windows(self) -> tuple[Sides, Sides]:
        """Sides of a window, and the steps between two, along maps, rows and columns."""
        config = self.config
        window = (config.maps, *_pair(config.positions))
        return window, (config.maps_stride or config.maps, *_pair(config.positions_stride or config.positions))

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        window, stride = self._windows()
        if len(shape) not in (1, 3):
            raise InputError(f"pools need codes (units,) or (maps, height, width), not of shape {shape}")
        if len(shape) == 1 and window[1:] != (1, 1):
            raise InputError(f"positions: these codes are flat, of shape {shape}; give maps alone")
        sides = (*shape, 1, 1)[:3]
        for side, width, name in zip(sides, window, ("maps", "positions", "positions"), strict=True):
            if width > side:
                raise InputError(f"{name}: a pool of {width} is longer than the code's {side}")
        if (sides[0] - window[0]) % stride[0]:
            raise InputError(f"maps: pools of {window[0]} every {stride[0]} do not divide the code's {sides[0]}")
        steps = zip(sides, window, stride, strict=True)
        # a last window that would begin beyond the edge is none
        pooled = tuple(min(ceil((side - width) / step) + 1, ceil(side / step)) for side, width, step in steps)
        return pooled[: len(shape)]

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, maps, height, width) or (batch, units). At a pool of zeros the gradient is the subgradient 0."""
        window, stride = self._windows()
        volume = x.square().reshape(len(x), 1, *(*x.shape[1:], 1, 1)[:3])
        total = functional.avg_pool3d(volume, window, stride, ceil_mode=True, divisor_override=1)
        active = total > 0
        norm = torch.where(active, torch.where(active, total, 1.0).sqrt(), 0.0)
        return norm.view(len(x), *self.output_shape(tuple(x.shape[1:])))


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value
