"""Photographs: found, read, made grey, whitened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from PIL import Image

from groundstate.errors import Fault, InputError, relative

SUFFIXES = {".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
LUMA = np.array([0.2126, 0.7152, 0.0722])  # ITU-R BT.709

Pixels = NDArray[Any]
Picture = NDArray[np.float64]


def find_photographs(path: Path) -> list[Path]:
    """The file itself, or the images directly in the folder, by name. Raises InputError where there is none."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(Fault("there is no such file or folder", "data.path", relative(path)))
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())
    if not files:
        endings = ", ".join(sorted(SUFFIXES))
        raise InputError(
            Fault(f"no images in this folder; it must hold files of {endings}", "data.path", relative(path))
        )
    return files


def picture_size(file: Path) -> tuple[int, int]:
    """Height and width, from the file's header."""
    with _open(file) as image:
        return image.height, image.width


def read_pixels(file: Path) -> Pixels:
    """The pixels as stored: (height, width) grey of any depth or (height, width, 3) RGB of 8 bits, opaque."""
    with _open(file) as image:
        try:
            if image.mode[0] in "IF":  # grey of 16 or 32 bits, integer or floating point
                pixels = np.array(image)
                return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
            return np.array(image.convert("L" if image.mode in ("1", "L", "LA", "La") else "RGB"))
        except (OSError, ValueError, SyntaxError) as error:
            raise _unreadable(file, error) from error


def intensity(pixels: Pixels, where: str) -> Picture:
    """Grey in [0, 1]: BT.709 luma of the stored (gamma-coded) values, not rounded to 8 bits.

    pixels: (height, width) or (height, width, 3). Integers are divided by what their depth can hold (16 bits
    where that is more than 8), floating point by its maximum. where: the file, for messages. Raises
    InputError on values that are not finite or negative, and where all are the same.
    """
    bad = ~np.isfinite(pixels) | (pixels < 0)
    if bad.any():
        row, column = np.argwhere(bad)[0][:2]
        message = f"NaN, infinity or a negative value in column {column}; intensities are finite and not negative"
        raise InputError(Fault(message, where=f"{where}, row {row}"))
    if (pixels == pixels[0, 0]).all():
        raise InputError(
            Fault(f"every pixel is {pixels[0, 0].tolist()}; a constant image has nothing to learn", where=where)
        )
    peak = pixels.max() if pixels.dtype.kind == "f" else 255 if pixels.dtype.itemsize == 1 else 65535
    grey = pixels.astype(np.float64) if pixels.ndim == 2 else pixels @ LUMA
    return grey / float(peak)


def whiten(grey: Picture, cutoff: float) -> Picture:
    """Olshausen–Field whitening of the log intensity, log(1 + 255·grey), to unit standard deviation.

    grey: (height, width) in [0, 1]. The spectrum is multiplied by f·exp(−(f/cutoff)⁴), f in cycles per pixel
    (Olshausen & Field 1997). The transform is the cosine transform: that of the image mirrored at its borders.
    A plain Fourier transform joins opposite borders instead, and the jump between them (sky against ground)
    rings far into the image.
    """
    height, width = grey.shape
    frequency = np.hypot(np.arange(height)[:, None] / (2 * height), np.arange(width) / (2 * width))
    spectrum = scipy.fft.dctn(np.log1p(255 * grey), overwrite_x=True)
    spectrum *= frequency * np.exp(-((frequency / cutoff) ** 4))
    white: Picture = scipy.fft.idctn(spectrum, overwrite_x=True)
    return white / white.std()


def _open(file: Path) -> Image.Image:
    try:
        return Image.open(file)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: Exception) -> InputError:
    return InputError(Fault(f"cannot be read as an image ({error})", where=relative(file)))
