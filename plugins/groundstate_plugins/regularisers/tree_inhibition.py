"""Lateral inhibition in tree form: a unit inhibits all others but those above and below it."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from groundstate.structure import Inhibition
from groundstate_plugins.regularisers.lateral_inhibition import InhibitionTerm
from groundstate_plugins.regularisers.pools import flat_units
from groundstate_plugins.regularisers.trees import TreeFields


class TreeInhibition(InhibitionTerm):
    """α‖z‖₁ + |z|ᵀS|z| with S_ij = 0 where i is j, its ancestor or its descendant, positive elsewhere.

    So only units on one branch fire together (the tree form of LeCun's lateral inhibition). S is ``strength``
    between the others, or learned from there.
    """

    examples = ({"branching": [4, 2, 3]}, {"branching": [4, 2, 3], "learn": True, "row_sum": 5.0})

    class Config(TreeFields, InhibitionTerm.Config):
        pass

    def allowed(self, units: int) -> Tensor:
        related = self.config.on(units).ancestors()
        return ~(related | related.T | torch.eye(units, dtype=torch.bool))

    def start(self, allowed: Tensor) -> Tensor:
        return self.config.strength * allowed.float()

    def structure(self) -> Inhibition:
        return replace(super().structure(), parent=self.config.forest().parent)

    def select(self, units: Tensor) -> None:
        """Keep these units (of the code's first axis); one whose parent goes hangs from the nearest kept ancestor."""
        forest = self.config.forest().select(flat_units(units, self.code_shape))
        super().select(units)
        self.config = self.config.model_copy(update={"branching": None, "parents": forest.parent.tolist()})
