"""Trees of units: numbering, ancestors, pruning, and descriptions that are none."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from groundstate.errors import InputError
from groundstate_plugins.regularisers.trees import Forest, TreeFields


def chain(forest: Forest, unit: int) -> list[int]:
    """The ancestors of a unit, by walking up."""
    found = []
    while (unit := int(forest.parent[unit])) >= 0:
        found.append(unit)
    return found


def test_branching_numbers_tree_after_tree_and_level_by_level() -> None:
    forest = TreeFields(branching=[2, 2, 1]).forest()
    assert forest.parent.tolist() == [-1, 0, 0, 1, 2, -1, 5, 5, 6, 7]
    assert forest.depth().tolist() == [0, 1, 1, 2, 2, 0, 1, 1, 2, 2]
    assert [level.tolist() for level in forest.levels()] == [[0, 5], [1, 2, 6, 7], [3, 4, 8, 9]]


@pytest.mark.parametrize(("branching", "units"), [([16, 3, 4], 256), ([1, 10, 2, 2], 71), ([[1, 3, 4], [1, 1]], 18)])
def test_several_trees(branching: Any, units: int) -> None:
    assert len(TreeFields(branching=branching).on(units)) == units


@given(data=st.data(), units=st.integers(1, 12))
def test_ancestors_depth_and_pruning_against_walking_up(data: st.DataObject, units: int) -> None:
    order = data.draw(st.permutations(range(units)))
    parent = [-1] * units
    for place, unit in enumerate(order):  # parents anywhere in the numbering
        above = data.draw(st.integers(-1, place - 1))
        parent[unit] = order[above] if above >= 0 else -1
    forest = TreeFields(parents=parent).forest()
    for unit in range(units):
        assert forest.ancestors()[unit].nonzero().flatten().tolist() == sorted(chain(forest, unit))
        assert int(forest.depth()[unit]) == len(chain(forest, unit))
    kept = data.draw(st.lists(st.sampled_from(range(units)), min_size=1, unique=True))
    pruned = forest.select(torch.tensor(kept))
    for place, unit in enumerate(kept):
        assert [kept[above] for above in chain(pruned, place)] == [a for a in chain(forest, unit) if a in kept]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "either branching"),
        ({"branching": [2], "parents": [-1]}, "either branching"),
        ({"parents": [-1, 2]}, "unit 1 names the parent 2, but units are numbered 0 … 1"),
        ({"parents": [-1, -2]}, "names the parent -2"),
        ({"parents": [-1, 1]}, "run in a circle: 1 → 1"),
        ({"parents": [-1, 3, 1, 2]}, "run in a circle: (1 → 3 → 2 → 1|2 → 1 → 3 → 2|3 → 2 → 1 → 3)"),
        ({"branching": [2, 0]}, "greater than 0"),
        ({"branching": [[2], []]}, "empty list"),
    ],
)
def test_what_is_no_forest_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TreeFields(**fields)


def test_trees_of_another_size_than_the_code_are_refused_with_numbers() -> None:
    with pytest.raises(InputError, match="branching: the trees have 256 units, but the code has 255"):
        TreeFields(branching=[16, 3, 4]).on(255)
    with pytest.raises(InputError, match="parents: the trees have 2 units, but the code has 3"):
        TreeFields(parents=[-1, 0]).on(3)
