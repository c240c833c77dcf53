"""Runs a run again from its stored config, and says whether the same comes out."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from groundstate.compare import CONFIG, TIMINGS, Change, Difference, diff_runs, read_record
from groundstate.config import assemble, load_config
from groundstate.errors import InputError
from groundstate.model import WEIGHTS
from groundstate.run import MODEL, find_run, train


@dataclass(frozen=True)
class Reproduction:
    """What came out of running a run again.

    parameters: by name, the largest absolute difference of those that are not bit-identical (inf: another
    shape, or in one model only). figures: by name both values of those that differ. difference: of code, data and
    machine.
    """

    first: Path
    second: Path
    digests: tuple[str, str]
    parameters: Mapping[str, float]
    figures: Mapping[str, Change]
    difference: Difference

    @property
    def identical(self) -> bool:
        """Every parameter bit for bit, every figure but timings."""
        return not self.parameters and not self.figures

    @property
    def largest(self) -> float:
        """The largest relative difference of a figure; inf where only one run has it."""
        return max((_relative(*pair) for pair in self.figures.values()), default=0.0)

    def agrees(self, tolerance: float = 0.0) -> bool:
        """Whether no figure differs by more than ``tolerance``, relatively."""
        return self.identical or (tolerance > 0 and self.largest <= tolerance)

    def record(self) -> dict[str, Any]:
        return {
            "first": self.first.name,
            "second": self.second.name,
            "identical": self.identical,
            "digests": list(self.digests),
            "parameters": dict(self.parameters),
            "figures": {name: list(pair) for name, pair in self.figures.items()},
            "largest_relative_difference": self.largest,
            "difference": self.difference.record(),
        }


def reproduce(run: Path | str) -> Reproduction:
    """Train the stored config of a finished run again, beside it, and compare.

    run: its folder or id. Raises InputError before anything is trained where the run has not finished or its
    data are not the same any more.
    """
    first = find_run(run)
    record = read_record(first)
    if record.get("status") != "finished":
        raise InputError(
            f"{first.name} is {record.get('status')}, so there is nothing to compare with; --resume it first"
        )
    if record.get("pruned"):
        raise InputError(
            f"{first.name} is what pruning left of {record['pruned']['source']}; its config alone cannot repeat it"
        )
    if record.get("changed"):
        steps = ", ".join(str(change["step"]) for change in record["changed"])
        raise InputError(
            f"the config of {first.name} was changed on the way (step {steps}); one config cannot repeat it"
        )
    loaded = load_config(first / CONFIG)
    data = assemble(loaded).data.load(loaded.config.seed)
    if data.fingerprint != record["data"]["fingerprint"]:
        raise InputError(f"the data are not those that {first.name} was trained on (their fingerprint differs)")
    second = train(loaded).folder
    return compare(first, second)


def compare(first: Path, second: Path) -> Reproduction:
    """Two finished runs, by parameters and figures."""
    found = diff_runs(first, second)
    weights = [folder / MODEL / WEIGHTS for folder in (first, second)]
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in weights]
    return Reproduction(
        first,
        second,
        digests=(digests[0], digests[1]),
        parameters={} if digests[0] == digests[1] else _apart(*(load_file(file) for file in weights)),
        figures={name: pair for name, pair in found.figures.items() if name not in TIMINGS},
        difference=found,
    )


def _apart(one: Mapping[str, torch.Tensor], two: Mapping[str, torch.Tensor]) -> dict[str, float]:
    apart: dict[str, float] = {}
    for name in sorted(one.keys() | two.keys()):
        a, b = one.get(name), two.get(name)
        if a is None or b is None or a.shape != b.shape:
            apart[name] = math.inf
        elif not torch.equal(a, b):
            apart[name] = float((a.double() - b.double()).abs().max())
    return apart


def _relative(one: Any, two: Any) -> float:
    if one is None or two is None:
        return math.inf
    scale = max(abs(one), abs(two))
    return abs(one - two) / scale if scale else 0.0
