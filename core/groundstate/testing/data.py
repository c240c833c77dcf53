"""Checks of data sources: what they describe is what they give, every time."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from groundstate.components import Data
from groundstate.data import Source, Splits
from groundstate.testing.results import Broken, NotApplicable, check
from groundstate.testing.subject import Subject, generator, make

MOST = 500
"""Samples of a split that are looked at."""


class DataCase:
    """A data source, loaded twice with one seed."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject

    def __str__(self) -> str:
        return str(self.subject)

    @cached_property
    def data(self) -> Data:
        data: Data = make(self.subject)
        return data

    @cached_property
    def splits(self) -> Splits:
        return self.data.load(0)


def rows_of(source: Source) -> Tensor:
    """Some of a split's sample numbers, in no order."""
    return torch.randperm(len(source), generator=generator(1))[:MOST]


@check("data", says="describe tells the shapes, fields, sizes and classes that load gives")
def describe_matches_load(case: DataCase) -> None:
    info, splits = case.data.describe(), case.splits
    found = {
        "input_shape": (tuple(info.input_shape), tuple(splits.train.input_shape)),
        "fields": (tuple(sorted(info.fields)), tuple(sorted(splits.train.names))),
        "samples": (dict(info.samples), {name: len(source) for name, source in splits.parts().items()}),
        "classes": (info.classes, splits.classes),
    }
    for name, (described, loaded) in found.items():
        if described != loaded:
            raise Broken(
                f"describe says {name} = {described}, load gives {loaded}",
                shown=str(case),
                advice="check reads describe before a run, so both must say the same",
            )


@check("data", says="every field is finite, one row per sample, in the order that was asked for")
def samples_are_usable(case: DataCase) -> None:
    for name, source in case.splits.parts().items():
        rows = rows_of(source)
        batch = source.read(rows)
        if set(batch.fields) != set(source.names):
            raise Broken(f"{name}: a batch has {sorted(batch.fields)}, names says {sorted(source.names)}")
        for key, value in batch.fields.items():
            if len(value) != len(rows):
                raise Broken(f"{name}.{key}: {len(value)} rows for {len(rows)} numbers", shown=f"{name} split")
            if value.is_floating_point() and not torch.isfinite(value).all():
                raise Broken(
                    f"{name}.{key} holds NaN or infinity",
                    shown=f"row {int((~torch.isfinite(value.flatten(1))).any(1).nonzero()[0])} of those read",
                    advice="refuse bad input in load: groundstate.data.require_usable names the row",
                )
        again = source.read(rows.flip(0)).x.flip(0)
        if not torch.equal(again, batch.x):
            raise Broken(
                "read gives other samples when the numbers come in another order",
                shown=f"{name} split",
                advice="read(rows) is a function of each number alone",
            )
        if not batch.x.is_floating_point():
            raise Broken(f"x is {batch.x.dtype}", advice="give floating-point inputs")


@check("data", says="labels are whole numbers from 0 to classes − 1")
def labels_are_in_range(case: DataCase) -> None:
    splits = case.splits
    if splits.classes is None or "y" not in splits.train.names:
        raise NotApplicable("it has no labels")
    for name, source in splits.parts().items():
        y = source.read(rows_of(source)).fields["y"]
        if y.is_floating_point() or int(y.min()) < 0 or int(y.max()) >= splits.classes:
            raise Broken(
                f"{name}.y is {y.dtype} from {float(y.min()):g} to {float(y.max()):g}, classes = {splits.classes}",
                advice="labels are int64, 0 to classes − 1",
            )


@check("data", says="the same seed gives the same data and fingerprint")
def loading_is_deterministic(case: DataCase) -> None:
    first, second = case.splits, make(case.subject)
    torch.manual_seed(12345)
    second = second.load(0)
    if first.fingerprint != second.fingerprint or not first.fingerprint:
        raise Broken(
            "two loads with one seed have different fingerprints",
            shown=f"{first.fingerprint[:12]}… and {second.fingerprint[:12]}…",
            advice="draw from a generator seeded with load's seed; make the fingerprint of the content alone",
        )
    for (name, one), other in zip(first.parts().items(), second.parts().values(), strict=True):
        rows = rows_of(one)
        if not torch.equal(one.read(rows).x, other.read(rows).x):
            raise Broken(
                f"two loads with one seed differ in the {name} split",
                shown=str(case),
                advice="draw from a generator seeded with load's seed",
            )


@check("data", says="no sample stands in two splits")
def splits_are_disjoint(case: DataCase) -> None:
    parts = case.splits.parts()
    if len(parts) == 1:
        raise NotApplicable("it has one split")
    seen: dict[bytes, str] = {}
    for name, source in parts.items():
        x = source.read(torch.arange(min(len(source), 20 * MOST))).x.contiguous()
        digests = {row.numpy().tobytes() for row in x}
        shared = [digest for digest in digests if seen.get(digest, name) != name]
        # a few repeated samples are in the nature of some data; a split that overlaps is not
        if len(shared) > 0.05 * len(digests):
            raise Broken(
                f"{len(shared)} of {len(digests)} samples of {name} are in {seen[shared[0]]} too",
                shown=str(case),
                advice="split the row numbers once: groundstate.data.split_rows",
            )
        seen |= dict.fromkeys(digests, name)
