"""Small versions of the systems whose units lie on a sheet or inhibit each other: their order shows in seconds."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from groundstate.orientation import OrientationMap, tuning, turn
from groundstate.run import Run

FEW = {"data.validation": 100, "data.test": 100, "data.size": 8, "model.decoder.units": 64}


def filters(run: Run) -> Tensor:
    """(units, height, width)."""
    assert run.model.decoder is not None
    rows = run.model.decoder.structure().matrix.detach().T
    return rows.reshape(len(rows), math.isqrt(rows.shape[1]), -1)


def ratio(run: Run, *sides: int) -> float:
    found = filters(run)
    return OrientationMap.of(found.view(*sides, *found.shape[1:])).orientation_ratio()


def test_pools_on_a_torus_bring_like_filters_together(small: Any) -> None:
    few = {**FEW, "data.train": 6000, "energy.sparsity.sheet": [8, 8], "energy.sparsity.window": [3, 3]}
    ordered, chance = (
        ratio(small("topographic-map-patches", **few, **{"energy.sparsity.weight": weight}), 8, 8)
        for weight in (0.8, 1e-3)
    )
    assert ordered < 0.85 * chance


def test_local_filters_on_a_sheet_form_one_map(small: Any) -> None:
    few = {"data.size": 20, "data.train": 2000, "data.validation": 20, "data.test": 20}
    run = small("local-sheet-photos", **few, **{"energy.sparsity.sheet": [24, 24]})
    found = OrientationMap.of(run.model.decoder.atoms().detach()[0, :, :, 0], wrap=False)
    chance = found.shuffled(torch.Generator().manual_seed(0))
    assert found.orientation_ratio() < 0.8
    assert int(found.pinwheels().abs().sum()) < 0.6 * int(chance.pinwheels().abs().sum())


def test_inhibition_between_distant_units_makes_neighbours_alike(small: Any) -> None:
    few = {**FEW, "data.train": 20000, "backend.type": "cpu-native"}
    assert ratio(small("inhibition-by-distance-patches", **few), 1, 64) < 0.8


def test_learned_inhibition_is_strongest_between_like_filters(small: Any) -> None:
    few = {**FEW, "data.train": 10000, "phases.learn.epochs": 4, "backend.type": "cpu-native"}
    run = small("lateral-inhibition-patches", **few)
    s = run.model.energy.terms["sparsity"].structure().matrix.detach()
    assert float(s.sum(1).max()) <= 5 * (1 + 1e-6)
    first, second = torch.triu_indices(64, 64, 1)
    strongest = s[first, second].topk(20).indices
    angle, unit = tuning(filters(run)).orientation, torch.nn.functional.normalize(filters(run).flatten(1), dim=1)
    apart = torch.rad2deg(turn(angle[first], angle[second]).abs())
    assert float(apart[strongest].mean()) < 30
    alike = (unit[first] * unit[second]).sum(1).abs()
    assert float(alike[strongest].mean()) > 1.2 * float(alike.mean())
