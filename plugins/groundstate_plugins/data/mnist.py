"""MNIST, and any data set in its four idx files (Fashion-MNIST, KMNIST, EMNIST)."""

from __future__ import annotations

import gzip
import math
import struct
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from groundstate.components import ConfigPath, Data
from groundstate.data import DataInfo, Splits, split_rows
from groundstate.errors import Fault, InputError, relative
from groundstate_plugins.data.rows import SCALE, SPLIT_SEED, Scale, part_sizes, picture_splits

IMAGES, LABELS = 3, 1  # axes of the arrays in the files
FILES = {
    ("train", IMAGES): "train-images-idx3-ubyte",
    ("train", LABELS): "train-labels-idx1-ubyte",
    ("test", IMAGES): "t10k-images-idx3-ubyte",
    ("test", LABELS): "t10k-labels-idx1-ubyte",
}
FOLDERS = (".", "raw", "MNIST/raw")  # torchvision keeps the files in the last
TRAIN, TEST, SIDE, CLASSES = 60_000, 10_000, 28, 10  # of MNIST itself


@dataclass(frozen=True)
class IdxFile:
    """One idx file of unsigned bytes, gzip or not (the format is described on LeCun's MNIST page).

    Its header is four bytes 0, 0, 8 (unsigned byte) and the number of axes, then each axis' length as a
    big-endian 32-bit integer.
    """

    path: Path
    axes: int

    def shape(self) -> tuple[int, ...]:
        """The lengths in the header; reads nothing more."""
        size = 4 + 4 * self.axes
        return self._header(self._bytes(size))

    def read(self) -> Tensor:
        """The whole array, uint8."""
        content = self._bytes()
        shape = self._header(content)
        offset, wanted = 4 + 4 * self.axes, math.prod(shape)
        if len(content) - offset != wanted:
            raise self._wrong(f"its header promises {wanted:,} bytes of data, it holds {len(content) - offset:,}")
        array = np.frombuffer(content, dtype=np.uint8, offset=offset).reshape(shape)
        return torch.from_numpy(array.copy())  # a copy, because torch wants memory that may be written

    def _bytes(self, size: int = -1) -> bytes:
        try:
            if self.path.suffix != ".gz":
                with self.path.open("rb") as file:
                    return file.read(size)
            if size < 0:
                return gzip.decompress(self.path.read_bytes())
            with gzip.open(self.path) as file:
                return file.read(size)
        except (OSError, EOFError, zlib.error) as error:
            raise self._wrong(f"it cannot be read ({error})") from error

    def _header(self, content: bytes) -> tuple[int, ...]:
        size = 4 + 4 * self.axes
        if len(content) < size:
            raise self._wrong(f"it ends after {len(content)} bytes, inside its header of {size}")
        magic, *lengths = struct.unpack(f">{1 + self.axes}I", content[:size])
        if magic != 0x0800 + self.axes:
            raise self._wrong(f"it starts with the number {magic:#010x}, not {0x0800 + self.axes:#010x}")
        return tuple(lengths)

    def _wrong(self, what: str) -> InputError:
        kind = "images" if self.axes == IMAGES else "labels"
        return InputError(Fault(f"not a whole idx file of {kind}: {what}", where=relative(self.path)))


class Mnist(Data):
    """Handwritten digits, 28×28 (LeCun, Cortes, Burges 1998): the four idx files in a folder, or OpenML.

    x: (784,) or (1, 28, 28), by ``flat``; y: the label. The test part is the data set's own; validation is
    drawn from its training images.
    """

    class Config(Data.Config):
        path: ConfigPath | None = Field(
            None,
            description="folder with the four idx files (.gz or not), or torchvision's folder above it; "
            "without it, MNIST comes from OpenML",
        )
        scale: Scale = Field("unit-norm", description=SCALE)
        validation: int = Field(10_000, ge=0, description="training images held out for validation")
        train_samples: int | None = Field(None, ge=1, description="train on only so many images; all by default")
        split_seed: int = Field(0, ge=0, lt=2**32, description=SPLIT_SEED)
        flat: bool = Field(True, description="inputs are (784,) instead of (1, 28, 28)")

    def describe(self) -> DataInfo:
        """Shapes from the files' headers, classes from the labels; of OpenML's copy, what is known of MNIST."""
        if self.config.path is None:
            count, tests, shape, classes = TRAIN, TEST, (SIDE, SIDE), CLASSES
        else:
            files = self._files(self.config.path)
            (count, height, width), (tests, *_) = (self._shape(files, part) for part in ("train", "test"))
            shape = (height, width)
            classes = _classes([files[part, LABELS].read() for part in ("train", "test")])
        sizes = part_sizes(count, self.config.validation)
        samples = {"train": self._train_samples(count - sum(sizes.values())), **sizes, "test": tests}
        return DataInfo((math.prod(shape),) if self.config.flat else (1, *shape), ("x", "y"), samples, classes)

    def load(self, seed: int) -> Splits:
        """The three parts; ``split_seed`` alone draws them, the run's seed changes nothing."""
        return self._splits(self.config.scale)

    def raw(self) -> Splits:
        """The same parts with pixels in [0, 1], whatever the scale: what a baseline on raw pixels sees."""
        return self._splits("none")

    def _splits(self, scale: Scale) -> Splits:
        path = self.config.path
        (pixels, labels), test = _from_openml() if path is None else self._from_files(path)
        rows = split_rows(len(pixels), part_sizes(len(pixels), self.config.validation), self.config.split_seed)
        if self.config.train_samples is not None:
            count = self._train_samples(len(rows["train"]))
            generator = torch.Generator().manual_seed(self.config.split_seed)
            chosen = torch.randperm(len(rows["train"]), generator=generator)[:count].sort().values
            rows["train"] = rows["train"][chosen]
        return picture_splits(
            {**{name: (pixels[part], labels[part]) for name, part in rows.items()}, "test": test},
            peak=255,
            scale=scale,
            flat=self.config.flat,
            classes=_classes([labels, test[1]]),
            where="MNIST from OpenML" if path is None else relative(path),
        )

    def _train_samples(self, left: int) -> int:
        wanted = self.config.train_samples
        if wanted is not None and wanted > left:
            message = f"{wanted} training images are wanted, {left} are there beside those held out for validation"
            raise InputError(Fault(message, "data.train_samples"))
        return left if wanted is None else wanted

    def _from_files(self, path: Path) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        files = self._files(path)
        for part in ("train", "test"):
            self._shape(files, part)
        train, test = ((files[part, IMAGES].read(), files[part, LABELS].read().long()) for part in ("train", "test"))
        if train[0].shape[1:] != test[0].shape[1:]:
            sizes = " and ".join(f"{height}×{width}" for height, width in (train[0].shape[1:], test[0].shape[1:]))
            raise InputError(Fault(f"training and test images differ in size: {sizes}", where=relative(path)))
        return train, test

    def _files(self, path: Path) -> dict[tuple[str, int], IdxFile]:
        found: dict[tuple[str, int], IdxFile] = {}
        for (part, axes), name in FILES.items():
            # Whole files before compressed ones: no time goes into unpacking.
            candidates = [path / folder / (name + end) for end in ("", ".gz") for folder in FOLDERS]
            file = next((file for file in candidates if file.is_file()), None)
            if file is not None:
                found[part, axes] = IdxFile(file, axes)
        missing = [name for key, name in FILES.items() if key not in found]
        if missing:
            what = f"has no {', '.join(missing)} (each with or without .gz)" if path.is_dir() else "is not a folder"
            message = f"{what}; it must hold the four files {', '.join(FILES.values())}"
            raise InputError(Fault(message, "data.path", relative(path)))
        return found

    def _shape(self, files: dict[tuple[str, int], IdxFile], part: str) -> tuple[int, ...]:
        images, labels = files[part, IMAGES], files[part, LABELS]
        shape, (count,) = images.shape(), labels.shape()
        if not math.prod(shape):
            raise InputError(Fault("holds no images; at least one is needed", where=relative(images.path)))
        if shape[0] != count:
            message = f"{count:,} labels for {shape[0]:,} images in {images.path.name}; there must be one for each"
            raise InputError(Fault(message, where=relative(labels.path)))
        return shape


def _classes(labels: Sequence[Tensor]) -> int:
    return 1 + max(int(part.max()) for part in labels)


def _from_openml() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """OpenML's copy of MNIST, whose 70,000 rows are the 60,000 training images and then the test images."""
    from sklearn.datasets import fetch_openml

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # scikit-learn's word on each retry; the last is ours
            bunch = fetch_openml("mnist_784", version=1, as_frame=False, n_retries=1)
    except (OSError, ValueError) as error:
        names = ", ".join(f"{name}.gz" for name in FILES.values())
        message = (
            f"MNIST could not be fetched from OpenML ({error}); put the four files {names} "
            "into a folder and name that folder here"
        )
        raise InputError(Fault(message, "data.path")) from error
    if bunch.data.shape != (TRAIN + TEST, SIDE * SIDE):
        shape = " × ".join(map(str, bunch.data.shape))
        raise InputError(Fault(f"OpenML's mnist_784 is {shape}, not {TRAIN + TEST} × {SIDE * SIDE}", "data.path"))
    pixels = torch.from_numpy(bunch.data.astype(np.uint8)).reshape(-1, SIDE, SIDE)
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    return (pixels[:TRAIN], labels[:TRAIN]), (pixels[TRAIN:], labels[TRAIN:])
