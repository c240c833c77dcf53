"""Filters that see a part of the input: those that all places share, and those of a sheet of units."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup
from torch import Tensor

from groundstate.report.material import Material, render
from groundstate.report.pictures import Pixels, as_pictures, columns_for, picture, sheet, signed_tiles
from groundstate.report.words import count

MOST_CHANNELS = 32
"""Channels of a filter, where there are more than three, that are shown beside each other;"""
MOST_MAPS = 64
"""of at most so many maps."""
WIDEST_SHEET = 40
"""Units along each side of the middle of a sheet that is larger."""


@dataclass(frozen=True)
class Layout:
    """Tiles as they stand in a row, and what they are in words."""

    tiles: Tensor
    columns: int
    words: str


def shared_and_local(material: Material) -> Markup | None:
    """The decoder's filters, and the encoder's of the same units; None where the decoder has no such filters."""
    decoder, encoder = material.model.decoder, material.model.encoder
    atoms = decoder.atoms() if decoder is not None else None
    if atoms is None or atoms.dim() not in (4, 6):
        return None
    named = [("The decoder’s filters", atoms)]
    if encoder is not None:
        same = [value for value in encoder.parameters() if value.shape == atoms.shape]
        named += [("The encoder’s filters of the same units", value) for value in same[:1]]
    pictures = []
    for title, values in named:
        shown = _shared(values) if values.dim() == 4 else _sheet(values)
        pictures.append((f"{title}, {shown.words}", picture(_pixels(shown), f"{title}, {shown.words}.")))
    return render("filters", pictures=pictures, shown=1, total=1, angles=None)


def _pixels(shown: Layout) -> Pixels:
    tiles = signed_tiles(as_pictures(shown.tiles, tuple(shown.tiles.shape[1:])))
    return sheet(tiles, shown.columns)


def _shared(filters: Tensor) -> Layout:
    """(maps, channels, height, width): a tile for each map; of many channels, a row of tiles for each map."""
    maps, channels, height, width = filters.shape
    size = f"{height}×{width} pixels"
    if channels in (1, 3):
        return Layout(filters, columns_for(maps, height, width), f"one for each of {count(maps, 'map')}, {size}")
    part = filters[:MOST_MAPS, :MOST_CHANNELS]
    of = f" (the first {len(part)} of {maps})" if len(part) < maps else ""
    seen = f" (the first {part.shape[1]} of {channels})" if part.shape[1] < channels else ""
    words = f"a row for each map{of}, a column for each map of the layer below{seen}, {size}"
    return Layout(part.flatten(0, 1)[:, None], part.shape[1], words)


def _sheet(filters: Tensor) -> Layout:
    """(maps, rows, columns, channels, height, width): the first map's units where they stand."""
    rows, columns = filters.shape[1:3]
    top, left = (max(0, (side - WIDEST_SHEET) // 2) for side in (rows, columns))
    part = filters[0, top : top + WIDEST_SHEET, left : left + WIDEST_SHEET]
    whole = tuple(part.shape[:2]) == (rows, columns)
    words = f"{'' if whole else 'the middle of '}a sheet of {rows}×{columns} units, each where it stands"
    return Layout(part.flatten(0, 1), part.shape[1], words)
