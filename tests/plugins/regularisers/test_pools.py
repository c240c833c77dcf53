"""How pools are described: which units stand together, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from groundstate.errors import InputError
from groundstate_plugins.regularisers.pools import PoolFields, Pools
from groundstate_plugins.regularisers.tilings import colour


def members(pools: Pools) -> list[list[int]]:
    return [sorted(pool) for pool in pools.lists()[0]]


def test_pools_of_a_size_are_consecutive() -> None:
    pools = PoolFields(size=3).on((6,))
    assert members(pools) == [[0, 1, 2], [3, 4, 5]]
    assert pools.disjoint
    assert PoolFields(size=4).on((2, 2, 2)).index.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_windows_of_a_torus_go_on_at_the_opposite_edge() -> None:
    pools = PoolFields(sheet=(3, 4), window=(2, 2)).on((12,))
    assert len(pools.index) == 12
    assert not pools.disjoint
    assert members(pools)[0] == [0, 1, 4, 5]
    assert members(pools)[-1] == [0, 3, 8, 11]  # the window at row 2, column 3


def test_windows_of_a_flat_sheet_are_cut_at_its_edge() -> None:
    pools = PoolFields(sheet=(3, 5), window=(2, 2), stride=2, wrap=False).on((15,))
    assert members(pools) == [[0, 1, 5, 6], [2, 3, 7, 8], [4, 9], [10, 11], [12, 13], [14]]
    assert pools.disjoint
    assert pools.index[2].tolist() == [4, 9, -1, -1]


def test_pools_over_maps_and_positions() -> None:
    number = torch.arange(4 * 3 * 3).view(4, 3, 3)
    pools = members(PoolFields(maps=2, positions=2).on((4, 3, 3)))
    assert pools[0] == sorted(number[:2, :2, :2].flatten().tolist())
    assert sorted(number[2:, 2:, 2:].flatten().tolist()) in pools
    assert len(pools) == 2 * 2 * 2
    overlapping = PoolFields(maps=3, maps_stride=1, positions=(1, 2), positions_stride=1).on((4, 3, 3))
    assert sorted(number[1:4, 2, 1:3].flatten().tolist()) in members(overlapping)
    assert not overlapping.disjoint
    assert members(PoolFields(maps=4).on((4, 1, 1))) == [[0, 1, 2, 3]]


def test_pools_over_positions_go_on_at_the_opposite_edge_of_a_torus() -> None:
    number = torch.arange(2 * 3 * 4).view(2, 3, 4)
    pools = members(PoolFields(maps=2, positions=2, positions_stride=1, positions_wrap=True).on((2, 3, 4)))
    assert len(pools) == 3 * 4
    assert sorted(number[:, [2, 0]][:, :, [3, 0]].flatten().tolist()) in pools
    with pytest.raises(InputError, match="stride: 3 does not divide the torus' side of 4"):
        PoolFields(positions=2, positions_stride=(1, 3), positions_wrap=True).on((2, 3, 4))


def test_gaussian_weights_fall_from_the_middle() -> None:
    pools = PoolFields(sheet=(5, 5), window=(3, 3), window_weights="gaussian").on((25,))
    assert pools.scale is not None
    side, corner = torch.exp(torch.tensor([-0.5, -1.0], dtype=torch.float64)).tolist()
    expected = [corner, side, corner, side, 1.0, side, corner, side, corner]
    assert pools.scale[0].tolist() == pytest.approx(expected)


def test_the_pools_of_the_units_that_stay() -> None:
    pools = Pools.of([[0, 1, 2], [2, 3], [4, 5]], [[1.0, 2.0, 3.0], [4.0, 5.0], [6.0, 7.0]], 6)
    kept = pools.select(torch.tensor([3, 2, 0]))
    assert kept.lists() == ([[2, 1], [1, 0]], [[1.0, 3.0], [4.0, 5.0]])
    assert kept.units == 3


@pytest.mark.parametrize(("sides", "window"), [((6, 9), (3, 3)), ((5, 7), (3, 3)), ((4, 4), (2, 3))])
def test_tilings_share_no_unit_and_hold_every_pool(sides: tuple[int, int], window: tuple[int, int]) -> None:
    units = sides[0] * sides[1]
    index = PoolFields(sheet=sides, window=window).on((units,)).index
    tilings = colour(index, units)
    assert torch.cat(tilings).sort().values.tolist() == list(range(len(index)))
    for tiling in tilings:
        inside = index[tiling].flatten()
        assert len(inside.unique()) == len(inside)
    if sides == (6, 9):
        assert len(tilings) == 9  # the exact tilings


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "exactly one of size, sheet, maps or positions, pools; found none"),
        ({"size": 2, "sheet": (2, 2), "window": (1, 1)}, "found size and sheet"),
        ({"sheet": (2, 2)}, "sheet and window belong together"),
        ({"size": 2, "window": (2, 2)}, "sheet and window belong together"),
        ({"size": 2, "pool_weights": [[1.0]]}, "pool_weights belongs to pools"),
        ({"pools": [[0, 1]], "window_weights": "gaussian"}, "window_weights needs windows"),
        ({"pools": [[0, 1]], "pool_weights": [[1.0]]}, "one weight for each entry"),
        ({"pools": [[0, 0]]}, "pool 0 names a unit twice"),
        ({"pools": [[-1]]}, "greater than or equal to 0"),
        ({"size": 0}, "greater than 0"),
    ],
)
def test_descriptions_that_contradict_themselves_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PoolFields(**fields)


@pytest.mark.parametrize(
    ("fields", "shape", "message"),
    [
        ({"sheet": (4, 4), "window": (5, 2)}, (16,), "a side of 5 is longer than the code's 4"),
        ({"sheet": (4, 4), "window": (2, 2), "stride": 3}, (16,), "3 does not divide the torus' side of 4"),
        ({"sheet": (4, 4), "window": (1, 1), "stride": 2}, (16,), "12 of the code's 16 units stand in no pool"),
        ({"maps": 3}, (4, 2, 2), "pools of 3 every 3 do not divide the code's 4 maps"),
        ({"positions": 2}, (4, 1, 1), "a side of 2 is longer than the code's 1"),
    ],
)
def test_pools_that_do_not_fit_are_refused_with_numbers(
    fields: dict[str, Any], shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        PoolFields(**fields).on(shape)
