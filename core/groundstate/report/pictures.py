"""Arrays as pictures: filters and samples on sheets of tiles, as PNG data that a page holds itself."""

from __future__ import annotations

import base64
import io
import math

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

Pixels = NDArray[np.uint8]

GAP, ZERO, SPAN = 0, 128, 127
"""Grey values: the space between tiles (transparent), the number 0, and the distance from it to ±1."""
TINT = (0x3B, 0x94, 0xD1)
"""The colour of what is drawn over the page's own."""
SHARP_WIDTH = 900
"""Pictures are enlarged in whole steps up to about this width, so that a browser only ever shrinks them."""


def as_pictures(rows: Tensor, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Flat rows (m, n) as (m, height, width), or (m, height, width, 3) for three channels.

    shape: (height, width) or (channels, height, width); other numbers of channels are averaged.
    """
    pictures = rows.detach().cpu().float().reshape(-1, *shape).numpy()
    if pictures.ndim == 4:
        return np.moveaxis(pictures, 1, -1) if pictures.shape[1] == 3 else pictures.mean(1)
    return pictures


def signed_tiles(pictures: NDArray[np.float32], scale: NDArray[np.float32] | float | None = None) -> Pixels:
    """Grey is 0, white +scale, black −scale; scale is each picture's largest absolute value by default."""
    if scale is None:
        axes = tuple(range(1, pictures.ndim))
        scale = np.abs(pictures).max(axes, keepdims=True)
    unit = pictures / np.maximum(scale, np.finfo(np.float32).tiny)
    return np.clip(np.rint(ZERO + SPAN * unit), 1, 255).astype(np.uint8)


def positive_tiles(pictures: NDArray[np.float32], scale: NDArray[np.float32] | float) -> Pixels:
    """Black is 0, white scale; for what has no negative values."""
    unit = pictures / np.maximum(scale, np.finfo(np.float32).tiny)
    return np.clip(np.rint(1 + 254 * unit), 1, 255).astype(np.uint8)


def sheet(tiles: Pixels, columns: int, gap: int = 1) -> Pixels:
    """Tiles (m, height, width[, 3]) beside and below each other, ``columns`` in a row."""
    count, height, width = tiles.shape[:3]
    rows = math.ceil(count / columns)
    full = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, *tiles.shape[3:]), GAP, np.uint8)
    for number, tile in enumerate(tiles):
        top, left = number // columns * (height + gap), number % columns * (width + gap)
        full[top : top + height, left : left + width] = tile
    return full


def columns_for(count: int, height: int, width: int) -> int:
    """How many columns make a sheet of these tiles about square; the root where count is a square number."""
    root = math.isqrt(count)
    if root * root == count:
        return root
    return max(1, min(count, round(math.sqrt(count * height / width))))


def picture(pixels: Pixels, alt: str, *, css: str = "sheet", sharp_width: int = SHARP_WIDTH) -> Markup:
    """An <img> that holds its own PNG; ``alt`` says what is seen. pixels: (height, width) or (height, width, 3)."""
    factor = max(1, round(sharp_width / pixels.shape[1]))
    if factor > 1:
        pixels = pixels.repeat(factor, 0).repeat(factor, 1)
    return _embedded(Image.fromarray(pixels), alt, css, (GAP,) * 3 if pixels.ndim == 3 else GAP)


def _embedded(image: Image.Image, alt: str, css: str, transparency: int | tuple[int, ...] | bytes) -> Markup:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=7, transparency=transparency)
    data = base64.b64encode(buffer.getvalue()).decode()
    return Markup('<img class="{}" src="data:image/png;base64,{}" width="{}" height="{}" alt="{}">').format(
        css, data, image.width, image.height, alt
    )


def tinted(shares: Pixels, alt: str) -> Markup:
    """A picture of shares (0 to 255) as one colour over the page's own: readable on light and on dark."""
    factor = max(1, round(SHARP_WIDTH / shares.shape[1]))
    image = Image.fromarray(shares.repeat(factor, 0).repeat(factor, 1))
    image.putpalette(TINT * 256)
    return _embedded(image, alt, "sheet framed", bytes(range(256)))
