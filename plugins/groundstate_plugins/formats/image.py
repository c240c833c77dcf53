"""Images as inputs, one a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from pydantic import Field

from groundstate.components import Format
from groundstate.errors import Fault, InputError, relative
from groundstate.formats import Reader

LUMA = np.array([0.2126, 0.7152, 0.0722])  # ITU-R BT.709


class ImageReader(Reader):
    """One image; its size is known from the header."""

    def __init__(self, path: Path, grey: bool) -> None:
        self._path = path
        with self._opened() as image:
            self._plain = image.mode in ("1", "L", "LA", "I", "F") or image.mode.startswith("I;")
            self._grey = grey or self._plain
            size = (image.height, image.width)
        self.shape = size if self._grey else (3, *size)

    def __len__(self) -> int:
        return 1

    def read(self, first: int, last: int) -> NDArray[Any]:
        with self._opened() as image:
            try:
                pixels = np.array(image if image.mode[0] in "IF" else image.convert("L" if self._plain else "RGB"))
            except (OSError, ValueError, SyntaxError) as error:
                raise self._unreadable(error) from error
        values = pixels if pixels.dtype.kind == "f" else pixels / (255 if pixels.dtype.itemsize == 1 else 65535)
        if values.ndim == 3:
            values = values @ LUMA if self._grey else np.moveaxis(values, 2, 0)
        return values[None]

    def close(self) -> None:
        """No file is open between two reads."""

    def _opened(self) -> Pillow.Image:
        try:
            return Pillow.open(self._path)
        except (OSError, ValueError, SyntaxError, Pillow.DecompressionBombError) as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> InputError:
        return InputError(Fault(f"cannot be read as an image ({error})", where=relative(self._path)))


class Image(Format):
    """One input a file: (height, width) of a grey image, (3, height, width) of a coloured one, from 0 to 1.

    Values are the stored ones over what their depth can hold: no whitening, no centring. What a model was trained on
    beyond that has to be in the files.
    """

    suffixes = (".png", ".bmp", ".jpeg", ".jpg", ".pgm", ".ppm", ".tif", ".tiff", ".webp")

    class Config(Format.Config):
        grey: bool = Field(False, description="coloured images become grey (BT.709 luma)")

    def open(self, path: Path) -> ImageReader:
        return ImageReader(path, self.config.grey)
