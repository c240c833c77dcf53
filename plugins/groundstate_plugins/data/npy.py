"""Arrays on disk: .npy, memory-mapped so that it may be larger than RAM, or .npz."""

from __future__ import annotations

import hashlib
import math
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveInt
from torch import Tensor

from groundstate.components import ConfigPath, Data
from groundstate.data import Batch, DataInfo, Source, Splits, fingerprint, require_finite, split_rows
from groundstate.errors import Fault, InputError, nearest, relative
from groundstate_plugins.data.rows import (
    SPLIT_SEED,
    Share,
    Standardise,
    as_bytes,
    part_sizes,
    unit_norm_,
)

Array = NDArray[Any]
WINDOW = 64  # blocks that are mixed with each other
CHUNK_BYTES = 1 << 24  # of the array, looked at together while it is checked


class ArraySource(Source):
    """Rows of an array, read when they are asked for; the array may be a memory map larger than RAM.

    array: (all samples, …) numbers. rows: (m,) int64, the sample numbers of this source. scale: applied in
    place to a batch's x. others: further fields of all samples, held in memory. x is float64 where the
    array is, else float32.
    """

    def __init__(
        self,
        array: Array,
        rows: Tensor,
        scale: Callable[[Tensor], Tensor] | None,
        others: Mapping[str, Tensor],
        block: int = 1,
    ) -> None:
        self._array, self._rows, self._scale, self._block = array, rows, scale, block
        self._dtype = _floats(array.dtype)
        self._others = {name: value[rows] for name, value in others.items()}

    def __len__(self) -> int:
        return len(self._rows)

    def order(self, generator: torch.Generator) -> Tensor:
        return shuffled(len(self), self._block, generator)

    @property
    def names(self) -> tuple[str, ...]:
        return ("x", *self._others)

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self._array.shape[1:]

    def read(self, rows: Tensor) -> Batch:
        # Indexing with an array copies, so that scaling in place leaves the file's pages alone.
        x = torch.from_numpy(np.asarray(self._array[self._rows[rows].numpy()], dtype=self._dtype))
        if self._scale is not None:
            x = self._scale(x)
        return Batch({"x": x, **{name: value[rows] for name, value in self._others.items()}})


def shuffled(count: int, block: int, generator: torch.Generator) -> Tensor:
    """A random order of ``count`` numbers, (count,) int64: of all of them alike, or of blocks of neighbours.

    Blocks come in a random order, and the numbers of WINDOW of them at a time are mixed: a batch then reads from a few
    places only, and its samples are still from all over.
    """
    if block == 1:
        return torch.randperm(count, generator=generator)
    starts = torch.randperm(-(-count // block), generator=generator) * block
    order = torch.cat([torch.arange(int(start), min(int(start) + block, count)) for start in starts])
    windows = order.split(WINDOW * block)
    return torch.cat([window[torch.randperm(len(window), generator=generator)] for window in windows])


@dataclass(frozen=True)
class Layout:
    """Where the fields are: keys of the arrays in the file, and the shape and dtype of x.

    y: the key of the labels in the same file. others: keys of further fields, by their own names.
    """

    x: str
    y: str | None
    others: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class Npy(Data):
    """Samples from a .npy or .npz file, labels from the same .npz or a second .npy file.

    x: (samples, …) of any further shape. Arrays of an .npz that are as long as x, other than the labels, become
    fields of the batch under their own names (mask, weight, …); shorter or longer ones are left alone.
    """

    class Config(Data.Config):
        path: ConfigPath = Field(description=".npy or .npz file with one sample per row of its first axis")
        labels: ConfigPath | None = Field(None, description=".npy file with one whole number from 0 per sample")
        x_key: str | None = Field(None, description="name of the inputs in an .npz; 'x', or its only array, by default")
        y_key: str | None = Field(None, description="name of the labels in an .npz; 'y' by default where there is one")
        validation: Share = Field(0.1, description="held out for validation: a count, or a fraction below 1")
        test: Share = Field(0.1, description="held out for the test: a count, or a fraction below 1")
        split_seed: int = Field(0, ge=0, lt=2**32, description=SPLIT_SEED)
        shuffle_block: int = Field(
            1,
            ge=1,
            description="neighbouring rows that training reads together: more than 1, e.g. 1000, where the file is "
            "larger than memory and the disk is slow to read single rows",
        )
        scale: Literal["none", "unit-norm", "standard", "standard-columns"] = Field(
            "none",
            description="none: values as they are; unit-norm: each sample divided by its L2 norm; "
            "standard: minus the mean of all training values, divided by their standard deviation; "
            "standard-columns: the same with a mean and a deviation for each entry of a sample",
        )
        picture_shape: tuple[PositiveInt, ...] | None = Field(
            None,
            description="how a person looks at one input: [height, width] or [channels, height, width]; "
            "by default the input's own shape where it is one of these",
        )

    def describe(self) -> DataInfo:
        """Shapes from the headers; of the content only the labels are read."""
        layout = self._layout()
        self._picture_shape(layout.shape[1:])
        y = self._labels(layout)
        sizes = part_sizes(layout.shape[0], self.config.validation, self.config.test)
        fields = ("x", *(("y",) if y is not None else ()), *layout.others)
        samples = {"train": layout.shape[0] - sum(sizes.values()), **sizes}
        return DataInfo(layout.shape[1:], fields, samples, None if y is None else int(y.max()) + 1)

    def load(self, seed: int) -> Splits:
        """Check every row once, in chunks; ``split_seed`` alone draws the parts, the run's seed changes nothing."""
        path, scale = self.config.path, self.config.scale
        layout = self._layout()
        count = layout.shape[0]
        y = self._labels(layout)
        others = {} if y is None else {"y": y}
        others |= {key: _field(_read(path, key), f"{relative(path)}, array '{key}'") for key in layout.others}
        rows = split_rows(count, part_sizes(count, self.config.validation, self.config.test), self.config.split_seed)
        array = _read(path, layout.x)
        training = np.zeros(count, dtype=bool)
        training[rows["train"].numpy()] = True
        survey = Survey(array, training if scale.startswith("standard") else None, relative(path))
        sources = {
            name: ArraySource(
                array, part, survey.scaling(scale, _floats(array.dtype)), others, self.config.shuffle_block
            )
            for name, part in rows.items()
        }
        return Splits(
            train=sources["train"],
            validation=sources.get("validation"),
            test=sources.get("test"),
            fingerprint=fingerprint(
                as_bytes(survey.digest, scale, sorted(rows), list(others)),
                *(rows[name] for name in sorted(rows)),
                *others.values(),
            ),
            classes=None if y is None else int(y.max()) + 1,
            picture_shape=self._picture_shape(layout.shape[1:]),
        )

    def _layout(self) -> Layout:
        path = self.config.path
        headers, where = _headers(path), relative(path)
        x = self._key("x_key", headers, "x" if "x" in headers or len(headers) != 1 else next(iter(headers)))
        y = self.config.y_key
        if y is None and self.config.labels is None and "y" in headers and x != "y":
            y = "y"
        elif y is not None:
            y = self._key("y_key", headers, y)
            if self.config.labels is not None:
                raise InputError(Fault("names labels beside those of data.labels; keep one of the two", "data.y_key"))
        shape, dtype = headers[x]
        if dtype.kind not in "fiub":
            raise InputError(Fault(f"array of {dtype}; its values must be real numbers", where=where))
        if len(shape) < 2:
            raise InputError(Fault(f"array of shape {shape}; it must be (samples, …), two axes at least", where=where))
        if not math.prod(shape):
            raise InputError(Fault(f"is empty, of shape {shape}; at least one sample is needed", where=where))
        # 'x' and 'y' are the batch's own names: an unused array so called stays out.
        others = tuple(
            key
            for key, (other, kind) in headers.items()
            if key not in (x, y, "x", "y") and other[:1] == shape[:1] and kind.kind in "fiub"
        )
        return Layout(x, y, others, shape, dtype)

    def _key(self, option: str, headers: Mapping[str, Any], default: str) -> str:
        key = getattr(self.config, option) or default
        if key not in headers:
            message = f"{relative(self.config.path)} holds no array '{key}'; {nearest(key, headers)}"
            raise InputError(Fault(message, f"data.{option}"))
        return str(key)

    def _labels(self, layout: Layout) -> Tensor | None:
        path = self.config.labels
        if path is not None:
            where = relative(path)
            if path.suffix != ".npy":
                raise InputError(Fault("is no .npy file; labels within an .npz are named by data.y_key", where=where))
            values = _read(path, NPY_KEY)
        elif layout.y is not None:
            where = f"{relative(self.config.path)}, array '{layout.y}'"
            values = _read(self.config.path, layout.y)
        else:
            return None
        if values.shape != layout.shape[:1]:
            message = f"labels of shape {values.shape} for {layout.shape[0]} samples; it must be ({layout.shape[0]},)"
            raise InputError(Fault(message, where=where))
        if values.dtype.kind not in "fiub":
            raise InputError(Fault(f"labels of {values.dtype}; they must be whole numbers from 0", where=where))
        wrong = ~((values >= 0) & (np.floor(values) == values) & np.isfinite(values))
        if wrong.any():
            row = int(wrong.argmax())
            message = f"the label is {values[row]}; it must be a whole number from 0"
            raise InputError(Fault(message, where=f"{where}, row {row}"))
        return torch.from_numpy(values.astype(np.int64))

    def _picture_shape(self, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        wanted: tuple[int, ...] | None = self.config.picture_shape
        if wanted is None:
            return shape if len(shape) == 2 or (len(shape) == 3 and shape[0] in (1, 3)) else None
        if len(wanted) not in (2, 3) or math.prod(wanted) != math.prod(shape):
            message = (
                f"{list(wanted)} does not show an input of {math.prod(shape)} values; "
                "it must be [height, width] or [channels, height, width] of as many"
            )
            raise InputError(Fault(message, "data.picture_shape"))
        return wanted


class Survey:
    """One pass over an array, in chunks: every value finite, not all the same; its digest and its moments.

    training: (samples,) bool, the rows whose mean and variance are wanted, or None for neither.
    """

    def __init__(self, array: Array, training: NDArray[np.bool_] | None, where: str) -> None:
        self._where = where
        self._count, self._mean, self._squares = 0, np.zeros(array.shape[1:]), np.zeros(array.shape[1:])
        digest = hashlib.sha256(f"{array.shape}{array.dtype}".encode())
        step = max(1, CHUNK_BYTES // (array.itemsize * math.prod(array.shape[1:])))
        low = high = array.flat[0]
        for first in range(0, len(array), step):
            chunk = np.ascontiguousarray(array[first : first + step])
            _require_finite(chunk, first, where)
            digest.update(chunk.data)
            low, high = min(low, chunk.min()), max(high, chunk.max())
            if training is not None:
                self._add(chunk[training[first : first + step]].astype(np.float64))
        if len(array) > 1 and low == high:
            raise InputError(Fault(f"every value is {float(low):g}; constant data has nothing to learn", where=where))
        self.digest = digest.hexdigest()

    def scaling(self, scale: str, dtype: np.dtype[Any]) -> Callable[[Tensor], Tensor] | None:
        """What brings a batch to this scale, or None where nothing does."""
        if scale == "none":
            return None
        if scale == "unit-norm":
            return unit_norm_
        mean, variance = self._mean, self._squares / self._count
        if scale == "standard":
            variance = (variance + (mean - mean.mean()) ** 2).mean()
            mean = mean.mean()
            if variance == 0:
                message = f"every training value is {mean:g}; there is no deviation to divide by"
                raise InputError(Fault(message, where=self._where))
        # A column that never varies becomes 0, not NaN.
        deviation = np.where(variance > 0, np.sqrt(variance), 1.0)
        return Standardise(*(torch.from_numpy(np.asarray(value, dtype=dtype)) for value in (mean, deviation)))

    def _add(self, chunk: NDArray[np.float64]) -> None:
        """Merge a chunk's mean and sum of squares into those so far, without cancellation (Chan et al. 1983)."""
        if not len(chunk):
            return
        count, mean = self._count + len(chunk), chunk.mean(0)
        shift = mean - self._mean
        self._squares += ((chunk - mean) ** 2).sum(0) + shift**2 * (self._count * len(chunk) / count)
        self._mean += shift * (len(chunk) / count)
        self._count = count


NPY_KEY = "x"  # the name under which a .npy file's only array goes


def _headers(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Shape and dtype of each array in the file, by name, without reading the arrays."""
    try:
        if path.suffix == ".npy":
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            return {NPY_KEY: (array.shape, array.dtype)}
        if path.suffix == ".npz":
            with zipfile.ZipFile(path) as archive:
                return {name.removesuffix(".npy"): _header(archive, name) for name in archive.namelist()}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _unreadable(path, error) from error
    raise InputError(Fault("is neither an .npy nor an .npz file", where=relative(path)))


def _header(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    with archive.open(name) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    return shape, dtype


def _read(path: Path, key: str) -> Array:
    """One array of the file: a memory map of a .npy, in memory from an .npz."""
    try:
        if path.suffix == ".npy":
            return np.load(path, mmap_mode="r", allow_pickle=False)
        with np.load(path, allow_pickle=False) as archive:
            return archive[key]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> InputError:
    if isinstance(error, FileNotFoundError):
        return InputError(Fault("there is no such file", where=relative(path)))
    return InputError(Fault(f"cannot be read as an array ({error})", where=relative(path)))


def _floats(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(np.float64 if dtype.kind == "f" and dtype.itemsize >= 8 else np.float32)


def _require_finite(values: Array, first: int, where: str) -> None:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        require_finite(torch.from_numpy(values.astype(_floats(values.dtype)).reshape(len(values), -1)), where, first)


def _field(values: Array, where: str) -> Tensor:
    """A further field of the batch: whole numbers as int64, others (and masks of bool) floating point."""
    _require_finite(values, 0, where)
    return torch.from_numpy(values.astype(np.int64 if values.dtype.kind in "iu" else _floats(values.dtype)))
