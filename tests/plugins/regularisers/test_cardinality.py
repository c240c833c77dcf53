"""The limit on the number of entries: its projection, by trying every support."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from pydantic import ValidationError

from groundstate_plugins.regularisers.cardinality import Cardinality


@pytest.mark.parametrize("keep", [1, 2, 5, 9])
def test_its_prox_is_the_nearest_code_of_so_few_entries(keep: int) -> None:
    v = torch.randn(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = Cardinality(keep=keep).prox(v, 0.3)
    for row, point in zip(found, v, strict=True):
        supports = combinations(range(5), min(keep, 5))
        masks = [torch.zeros(5, dtype=v.dtype).index_fill(0, torch.tensor(one), 1.0) for one in supports]
        assert torch.equal(row, min((mask * point for mask in masks), key=lambda u: float((u - point).norm())))


def test_it_costs_nothing_and_tells_what_it_contains() -> None:
    term, z = Cardinality(keep=2), torch.tensor([[1.0, 0.0, 2.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    assert term.energy(z).tolist() == [0, 0, 0]
    assert term.contains(z).tolist() == [True, False, True]
    assert term.contains(z.view(3, 3, 1, 1)).tolist() == [True, False, True]
    assert term.formula() == "‖z‖₀ ≤ 2"


def test_it_keeps_one_entry_at_least() -> None:
    with pytest.raises(ValidationError):
        Cardinality(keep=0)
