"""What several protocols draw: filters on their sheet, and the maps of what they are tuned to."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from groundstate.orientation import OrientationMap
from groundstate.report.pictures import Pixels, sheet, signed_tiles

GREY = 32
"""Grey values that are drawn as one."""

Part = tuple[slice, slice]


def tiles_of(filters: Tensor) -> Pixels:
    """One picture of filters (rows, columns, height, width), each where it stands; in few greys, for its size."""
    tiles = signed_tiles(filters.flatten(0, 1).numpy())
    return sheet((tiles // GREY * GREY + GREY // 2).astype(np.uint8), filters.shape[1])


def draw_map(axes: list[Axes], filters: Tensor, *, wrap: bool = True, shown: Part = (slice(None), slice(None))) -> None:
    """The filters, their orientation with pinwheels and, on a third pair of axes, their spatial frequency.

    filters: (rows, columns, height, width). shown: the units whose filters are drawn.
    """
    found = OrientationMap.of(filters, wrap=wrap)
    axes[0].imshow(tiles_of(filters[shown]), cmap="gray", interpolation="none")
    axes[0].axis("off")
    degrees = np.rad2deg(found.orientation.numpy())
    drawn = axes[1].imshow(degrees, cmap="hsv", vmin=0, vmax=180, interpolation="none")
    bar = axes[1].figure.colorbar(drawn, ax=axes[1], ticks=[0, 45, 90, 135, 180], shrink=0.8, pad=0.02)
    bar.ax.set_yticklabels(["0°", "45°", "90°", "135°", "180°"])
    number = found.pinwheels().numpy()
    size = max(4.0, 90 / math.sqrt(number.size) + 1)
    for sign, colour in ((1, "white"), (-1, "black")):
        row, column = np.nonzero(number == sign)
        edge = {"markeredgecolor": "0.35", "markeredgewidth": 0.6}
        axes[1].plot(column + 0.5, row + 0.5, "o", color=colour, markersize=size, clip_on=False, **edge)
    if len(axes) > 2:
        drawn = axes[2].imshow(found.frequency.numpy(), cmap="viridis", interpolation="none")
        axes[2].figure.colorbar(drawn, ax=axes[2], shrink=0.8, pad=0.02)
    for one in axes[1:]:
        one.set_axis_off()
