"""Locally connected maps: a filter of its own for every unit, none shared."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from groundstate_plugins.windows import WindowFields, Windows


class SheetFields(WindowFields):
    """Fields of a config for units on a sheet, each seeing its own part of the image."""

    maps: int = Field(1, ge=1, description="sheets of units")
    block: int = Field(
        1,
        ge=1,
        description="units side by side, in each direction, that see the same pixels: a position has block² of a sheet",
    )


def sheet_shape(config: SheetFields, windows: Windows) -> tuple[int, int, int]:
    """(maps, rows, columns) of the sheet of units."""
    return config.maps, windows.rows * config.block, windows.columns * config.block


def by_position(sheet: Tensor, block: int) -> Tensor:
    """(…, maps, rows, columns) of units → (positions, units of one, …); the axes before go last."""
    *before, maps, rows, columns = sheet.shape
    parts = sheet.reshape(*before, maps, rows // block, block, columns // block, block)
    lead = len(before)
    order = (lead + 1, lead + 3, lead, lead + 2, lead + 4, *range(lead))
    return parts.permute(order).reshape(rows * columns // block**2, maps * block**2, *before)


def on_sheet(units: Tensor, shape: tuple[int, int, int], block: int) -> Tensor:
    """(positions, batch, units of one) → (batch, maps, rows, columns)."""
    maps, rows, columns = shape
    parts = units.view(rows // block, columns // block, -1, maps, block, block)
    return parts.permute(2, 3, 0, 4, 1, 5).reshape(-1, maps, rows, columns)


def filters_by_position(filters: Tensor, block: int) -> Tensor:
    """(maps, rows, columns, channels, size, size) → (positions, units of one, pixels)."""
    maps, rows, columns = filters.shape[:3]
    parts = filters.view(maps, rows // block, block, columns // block, block, -1)
    return torch.permute(parts, (1, 3, 0, 2, 4, 5)).reshape(-1, maps * block**2, parts.shape[-1])
