"""Trees of units: how a config describes one or several, and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor

from groundstate.components import Plugin
from groundstate.errors import InputError


@dataclass(frozen=True)
class Forest:
    """One or several trees whose nodes are the units of a code.

    parent: (units,) int64, each unit's parent, −1 at a root. ValueError where a parent does not exist or where
    following the parents runs in a circle.
    """

    parent: Tensor

    def __post_init__(self) -> None:
        units = len(self.parent)
        for unit, parent in enumerate(self.parent.tolist()):
            if not -1 <= parent < units:
                raise ValueError(
                    f"unit {unit} names the parent {parent}, but units are numbered 0 … {units - 1} (−1: a root)"
                )
        above = self.parent
        for _ in range(units):
            if bool((above < 0).all()):
                return
            above = self._parent_of(above)
        circle = self._circle(int((above >= 0).nonzero()[0]))
        raise ValueError(
            "the parents run in a circle: " + " → ".join(map(str, circle)) + "; one of them must be a root (−1)"
        )

    def _circle(self, unit: int) -> list[int]:
        seen: list[int] = []
        while unit not in seen:
            seen.append(unit)
            unit = int(self.parent[unit])
        return [*seen[seen.index(unit) :], unit]

    def _parent_of(self, unit: Tensor) -> Tensor:
        """Parents of units, −1 of −1."""
        return torch.where(unit < 0, -1, self.parent[unit.clamp_min(0)])

    def __len__(self) -> int:
        return len(self.parent)

    @classmethod
    def branching(cls, factors: list[int]) -> Self:
        """Trees in which every node of a level has as many children: factors are roots, children, grandchildren …

        [16, 3, 4] is sixteen trees of 1 + 3 + 12 units, [1, 10, 2, 2] one of 1 + 10 + 20 + 40. Units are numbered
        tree after tree, each level by level, so that parents come first.
        """
        tree, level = [-1], [0]
        for count in factors[1:]:
            following = []
            for node in level:
                following += range(len(tree), len(tree) + count)
                tree += [node] * count
            level = following
        return cls._side_by_side([tree] * factors[0])

    @classmethod
    def join(cls, forests: list[Forest]) -> Self:
        """All trees of several forests, numbered one forest after the other."""
        return cls._side_by_side([forest.parent.tolist() for forest in forests])

    @classmethod
    def _side_by_side(cls, trees: list[list[int]]) -> Self:
        parents: list[int] = []
        for tree in trees:
            first = len(parents)
            parents += [parent if parent < 0 else parent + first for parent in tree]
        return cls(torch.tensor(parents, dtype=torch.int64))

    def depth(self) -> Tensor:
        """Steps from each unit up to its root, (units,) int64."""
        depth, above = torch.zeros(len(self), dtype=torch.int64), self.parent
        while bool((above >= 0).any()):
            depth += above >= 0
            above = self._parent_of(above)
        return depth

    def ancestors(self) -> Tensor:
        """(units, units) bool: whether column j is an ancestor of row i."""
        found = torch.zeros(len(self), len(self), dtype=torch.bool)
        rows, above = torch.arange(len(self)), self.parent
        while bool((above >= 0).any()):
            rows, above = rows[above >= 0], above[above >= 0]
            found[rows, above] = True
            above = self._parent_of(above)
        return found

    def levels(self) -> list[Tensor]:
        """The units of each depth, roots first."""
        depth = self.depth()
        return [(depth == level).nonzero().flatten() for level in range(int(depth.max()) + 1)]

    def select(self, units: Tensor) -> Forest:
        """The forest of these units alone, renumbered in their order.

        A unit whose parent goes hangs from the nearest ancestor that stays, or becomes a root.
        """
        number = torch.full((len(self),), -1, dtype=torch.int64)
        number[units] = torch.arange(len(units))
        above = self.parent[units]
        while bool((lost := (above >= 0) & (number[above.clamp_min(0)] < 0)).any()):
            above = torch.where(lost, self._parent_of(above), above)
        return Forest(torch.where(above < 0, -1, number[above.clamp_min(0)]))


class TreeFields(Plugin.Config):
    """The fields of a config that describe trees of units; exactly one of branching and parents."""

    branching: list[PositiveInt] | list[list[PositiveInt]] | None = Field(
        None,
        min_length=1,
        description="number of roots, children of each, children of each of those, …: [16, 3, 4] is 16 trees of "
        "1 + 3 + 12 units; or several such lists, one forest after the other",
    )
    parents: list[int] | None = Field(
        None, min_length=1, description="each unit's parent by number from 0, −1 for a root"
    )

    @model_validator(mode="after")
    def _one_description(self) -> Self:
        if (self.branching is None) == (self.parents is None):
            raise ValueError(
                "trees are described by either branching, e.g. [16, 3, 4], or parents, each unit's parent (−1: a root)"
            )
        self.forest()
        return self

    def forest(self) -> Forest:
        """The trees; ValueError where the description contradicts itself."""
        if self.parents is not None:
            return Forest(torch.tensor(self.parents, dtype=torch.int64))
        assert self.branching is not None
        lists = [row for row in self.branching if isinstance(row, list)] or [
            [count for count in self.branching if isinstance(count, int)]
        ]
        if not all(lists):
            raise ValueError("branching: an empty list describes no tree; give at least the number of roots")
        return Forest.join([Forest.branching(factors) for factors in lists])

    def on(self, units: int) -> Forest:
        """The trees on a code of so many units; InputError where their sizes differ."""
        forest = self.forest()
        if len(forest) != units:
            what = "branching" if self.parents is None else "parents"
            raise InputError(
                f"{what}: the trees have {len(forest)} units, but the code has {units}; "
                "every unit of the code is one node of a tree"
            )
        return forest
