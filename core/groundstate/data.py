"""Batches and sources: how data reaches a model, without a file format."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from groundstate.errors import InputError


@dataclass(frozen=True)
class Batch:
    """Some samples: named tensors with the samples as first axis; ``x`` is the input, ``y`` the label."""

    fields: Mapping[str, Tensor]

    @property
    def x(self) -> Tensor:
        return self.fields["x"]

    def __len__(self) -> int:
        return len(self.fields["x"])

    def to(self, device: torch.device, dtype: torch.dtype) -> Batch:
        """Move to a device; floating-point fields take dtype, labels and indices keep theirs."""
        return Batch(
            {
                name: value.to(device=device, dtype=dtype if value.is_floating_point() else None)
                for name, value in self.fields.items()
            }
        )

    def select(self, rows: Tensor) -> Batch:
        return Batch({name: value[rows] for name, value in self.fields.items()})


@dataclass(frozen=True)
class DataInfo:
    """What is known of a data set without reading it all.

    fields: names of the batch's tensors. classes: number of labels or None. samples: by split.
    """

    input_shape: tuple[int, ...]
    fields: tuple[str, ...]
    samples: Mapping[str, int]
    classes: int | None = None


class Source(ABC):
    """Samples that can be read by number, in any order; may be larger than memory.

    slow: reading a batch takes time that a training step can hide; False for what is only looked up in memory.
    """

    slow: bool = True

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, rows: Tensor) -> Batch:
        """The samples of these numbers, (m,) int64, in that order."""

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """The fields of a batch."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return tuple(self.read(torch.zeros(1, dtype=torch.int64)).x.shape[1:])

    def order(self, generator: torch.Generator) -> Tensor:
        """A random order of all sample numbers for one epoch, (samples,) int64; any, where the source says none."""
        return torch.randperm(len(self), generator=generator)

    def batches(self, size: int, *, order: Tensor | None = None, start: int = 0) -> Iterator[Batch]:
        """All samples in batches of ``size`` (the last may be smaller), from batch number ``start``.

        order: a permutation of the sample numbers, or None for their own order.
        """
        rows = torch.arange(len(self)) if order is None else order
        for first in range(start * size, len(rows), size):
            yield self.read(rows[first : first + size])


class TensorSource(Source):
    """Samples held in memory."""

    slow = False

    def __init__(self, **fields: Tensor) -> None:
        if "x" not in fields:
            raise InputError("a data source needs a field x, the inputs")
        lengths = {name: len(value) for name, value in fields.items()}
        if len(set(lengths.values())) != 1:
            raise InputError(f"fields of different lengths: {lengths}")
        self.fields = fields

    def __len__(self) -> int:
        return len(self.fields["x"])

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.fields)

    def read(self, rows: Tensor) -> Batch:
        return Batch({name: value.index_select(0, rows) for name, value in self.fields.items()})


@dataclass(frozen=True)
class Splits:
    """A data set's parts. validation chooses hyperparameters and the best epoch; test is only reported.

    fingerprint: a digest of the content, the same wherever the same data is read.
    picture_shape: how a person looks at one input, (height, width) or (channels, height, width), or None.
    """

    train: Source
    validation: Source | None
    test: Source | None
    fingerprint: str
    classes: int | None = None
    picture_shape: tuple[int, ...] | None = None

    def parts(self) -> dict[str, Source]:
        named = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: source for name, source in named.items() if source is not None}


def fingerprint(*tensors: Tensor) -> str:
    """SHA-256 over shapes, dtypes and bytes."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def require_usable(x: Tensor, where: str) -> None:
    """Refuse empty, non-finite or constant inputs, naming the file and the first bad row.

    x: (samples, …). where: the file or data set, for the message.
    """
    if x.numel() == 0:
        raise InputError(f"{where} holds no samples; at least one is needed")
    require_finite(x, where)
    if x.shape[0] > 1 and bool(x.min() == x.max()):
        raise InputError(f"{where}: every value is {float(x.flatten()[0]):g}; constant data has nothing to learn")


def require_finite(x: Tensor, where: str, first: int = 0) -> None:
    """Refuse NaN and infinity, naming the file and the row; ``first`` is the number of x's first row there."""
    if not x.is_floating_point():
        return
    bad = ~torch.isfinite(x.flatten(1)).all(1)
    if bad.any():
        raise InputError(f"{where}, row {first + int(bad.nonzero()[0])}: NaN or infinity; every value must be finite")


def split_rows(count: int, sizes: Mapping[str, int], seed: int) -> dict[str, Tensor]:
    """Disjoint random row numbers for each named part, the rest under ``train``; the same for the same seed."""
    wanted = sum(sizes.values())
    if wanted >= count:
        raise InputError(f"the data has {count} samples, too few for {dict(sizes)} and at least one for training")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    parts, first = {}, 0
    for name, size in sizes.items():
        parts[name] = order[first : first + size].sort().values
        first += size
    parts["train"] = order[first:].sort().values
    return parts
