"""Locally connected maps: a filter of its own for every unit, none shared."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

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
    """(batch, maps, rows, columns) of units → (positions, units of one, batch)."""
    maps, rows, columns = sheet.shape[1:]
    parts = sheet.reshape(-1, maps, rows // block, block, columns // block, block)
    return parts.permute(2, 4, 1, 3, 5, 0).reshape(rows * columns // block**2, maps * block**2, -1)


def on_sheet(units: Tensor, shape: tuple[int, int, int], block: int) -> Tensor:
    """(positions, units of one, batch) → (batch, maps, rows, columns)."""
    maps, rows, columns = shape
    parts = units.view(rows // block, columns // block, maps, block, block, -1)
    return parts.permute(5, 2, 0, 3, 1, 4).reshape(-1, maps, rows, columns)


def filters_by_position(filters: Tensor, block: int) -> Tensor:
    """(maps, rows, columns, channels, size, size) → (positions, units of one, pixels)."""
    maps, rows, columns = filters.shape[:3]
    parts = filters.view(maps, rows // block, block, columns // block, block, -1)
    return torch.permute(parts, (1, 3, 0, 2, 4, 5)).reshape(-1, maps * block**2, parts.shape[-1])


def patches_of(images: Tensor, windows: Windows) -> Tensor:
    """(batch, channels, height, width) → (positions, pixels, batch): what each position sees."""
    found: Tensor = _Cut.apply(images, windows)  # type: ignore[no-untyped-call]
    return found


def images_of(patches: Tensor, windows: Windows, sides: tuple[int, int]) -> Tensor:
    """(positions, pixels, batch) → (batch, channels, height, width): the patches added up where they stand."""
    found: Tensor = _Lay.apply(patches, windows, sides)  # type: ignore[no-untyped-call]
    return found


# Several times as fast as torch's fold and unfold, since the batch stands last: what is copied lies together.


class _Cut(torch.autograd.Function):
    """Images to patches; its adjoint lays them."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, windows: Windows) -> Tensor:
        ctx.windows, ctx.sides = windows, images.shape[2:]
        pad, size, stride = windows.padding, windows.size, windows.stride
        last = functional.pad(images, (pad, pad, pad, pad)).permute(1, 2, 3, 0).contiguous()
        channel, row, column, sample = last.stride()
        seen = last.as_strided(
            (windows.rows, windows.columns, windows.channels, size, size, last.shape[3]),
            (stride * row, stride * column, channel, row, column, sample),
        )
        return seen.reshape(windows.rows * windows.columns, windows.pixels, -1)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None]:
        return images_of(slopes[0], ctx.windows, ctx.sides), None


class _Lay(torch.autograd.Function):
    """Patches to images; its adjoint cuts them."""

    @staticmethod
    def forward(ctx: Any, patches: Tensor, windows: Windows, sides: tuple[int, int]) -> Tensor:
        ctx.windows = windows
        size, stride, pad = windows.size, windows.stride, windows.padding
        rows, columns, channels = windows.rows, windows.columns, windows.channels
        height, width = (side + 2 * pad for side in sides)
        parts = patches.reshape(rows, columns, channels, size, size, -1)
        wide = parts.new_zeros(rows, channels, size, width, parts.shape[-1])
        for offset in range(size):
            wide[:, :, :, offset : offset + stride * (columns - 1) + 1 : stride] += parts[:, :, :, :, offset].permute(
                0, 2, 3, 1, 4
            )
        whole = parts.new_zeros(channels, height, width, parts.shape[-1])
        for offset in range(size):
            whole[:, offset : offset + stride * (rows - 1) + 1 : stride] += wide[:, :, offset].transpose(0, 1)
        return whole[:, pad : height - pad, pad : width - pad].permute(3, 0, 1, 2).contiguous()

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None, None]:
        return patches_of(slopes[0], ctx.windows), None, None
