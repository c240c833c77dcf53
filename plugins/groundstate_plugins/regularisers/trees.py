"""Trees over the units of a code: how a config describes them, and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from pydantic import BaseModel, Field, PositiveInt, model_validator
from torch import Tensor

from groundstate.errors import Fault, InputError


@dataclass(frozen=True)
class Forest:
    """One or several trees, a node for each unit. parent: (units,) int64, −1 at a root."""

    parent: Tensor

    @classmethod
    def of_levels(cls, levels: list[int], trees: int) -> Forest:
        """Trees with so many nodes on each level, the children of a level dealt evenly to its parents.

        Nodes are numbered tree by tree and level by level. InputError where a level is no multiple of the one above.
        """
        if levels[0] != 1:
            raise _fault("levels", f"begins with {levels[0]}; a tree has one root, so it must begin with 1")
        for above, below in zip(levels, levels[1:], strict=False):
            if below % above:
                raise _fault("levels", f"{below} nodes cannot be dealt evenly to the {above} above them")
        parent, first = [-1], 0
        for above, below in zip(levels, levels[1:], strict=False):
            parent += [first + node * above // below for node in range(below)]
            first += above
        one = torch.tensor(parent)
        shifted = [torch.where(one < 0, one, one + tree * len(one)) for tree in range(trees)]
        return cls(torch.cat(shifted))

    @classmethod
    def of_parents(cls, parents: list[int]) -> Forest:
        """From each node's parent, −1 at a root. InputError for an unknown parent or a cycle."""
        count = len(parents)
        for node, parent in enumerate(parents):
            if not -1 <= parent < count:
                raise _fault("parents", f"node {node} has the parent {parent}, which is none of 0 … {count - 1} or −1")
        for node in range(count):
            seen, at = {node}, parents[node]
            while at != -1:
                if at in seen:
                    raise _fault("parents", f"node {at} is its own ancestor; a tree has no cycle")
                seen.add(at)
                at = parents[at]
        return cls(torch.tensor(parents))

    def __len__(self) -> int:
        return len(self.parent)

    def require_units(self, units: int) -> None:
        """Refuse a code that has not one unit for each node."""
        if len(self) != units:
            raise InputError(f"the trees have {len(self)} nodes; the code has {units} units, and each needs one")

    def ancestors(self) -> Tensor:
        """(units, units) bool: column j is an ancestor of row i."""
        found = torch.zeros(len(self), len(self), dtype=torch.bool)
        for node in range(len(self)):
            above = int(self.parent[node])
            # parents may be numbered after their children, so each chain is walked to its root
            while above >= 0:
                found[node, above] = True
                above = int(self.parent[above])
        return found

    def depth(self) -> Tensor:
        """(units,) int64, 0 at a root."""
        return self.ancestors().sum(1)

    def select(self, units: Tensor) -> Forest:
        """The trees of these nodes; where a parent is gone, its nearest kept ancestor takes its place."""
        kept = units.tolist()
        number = {node: position for position, node in enumerate(kept)}
        parents = []
        for node in kept:
            above = int(self.parent[node])
            while above >= 0 and above not in number:
                above = int(self.parent[above])
            parents.append(number.get(above, -1))
        return Forest(torch.tensor(parents))


class TreeFields(BaseModel):
    """The fields of a config that describe trees."""

    levels: list[PositiveInt] | None = Field(
        None, min_length=1, description="nodes on each level of a tree from the root, e.g. [1, 10, 20, 40]"
    )
    trees: int = Field(1, ge=1, description="how many trees of these levels")
    parents: list[int] | None = Field(
        None, min_length=1, description="instead of levels: each unit's parent, −1 at a root"
    )

    @model_validator(mode="after")
    def _one_description(self) -> Self:
        if (self.levels is None) == (self.parents is None):
            raise ValueError("give either levels or parents")
        if self.parents is not None and self.trees != 1:
            raise ValueError("trees counts copies of levels; parents describes every tree itself")
        return self

    def forest(self) -> Forest:
        """The trees; InputError where the description is none."""
        if self.parents is not None:
            return Forest.of_parents(self.parents)
        assert self.levels is not None
        return Forest.of_levels(list(self.levels), self.trees)


def described(forest: Forest) -> dict[str, object]:
    """The values of ``TreeFields`` that describe this forest."""
    return {"levels": None, "trees": 1, "parents": forest.parent.tolist()}


def _fault(key: str, message: str) -> InputError:
    return InputError(Fault(message, key=key))
