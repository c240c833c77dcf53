"""Tree-structured group sparsity: a sum of norms over nested groups, each node with its descendants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from groundstate.components import Context, Regulariser
from groundstate.errors import InputError
from groundstate.problem import Step
from groundstate.structure import L1, Structure, Tree

from .pools import flat_units, one_step_per_sample
from .trees import TreeFields

BISECTIONS = 200
"""More than either precision has bits, from any two bounds."""


class TreeGroup(Regulariser):
    """Σ_g w_g‖z_g‖₂ over the groups g of a forest: each unit with all its descendants.

    A unit can only be active where all its ancestors' groups are. The prox is exact: one pass from the leaves to the
    roots (Jenatton, Mairal, Obozinski & Bach 2011).
    """

    norm = True
    examples: ClassVar[Sequence[Mapping[str, Any]]] = (
        {"branching": [4, 2, 3], "decay": 0.7},
        {"branching": [[3, 2], [3, 8]], "non_negative": True},
    )

    class Config(TreeFields, Regulariser.Config):
        decay: float = Field(
            1.0,
            gt=0,
            allow_inf_nan=False,
            description="a group's weight falls (or rises) by this per level: w = decay^depth, 1 at the roots; > 0",
        )
        non_negative: bool = Field(False, description="restrict codes to z ≥ 0")
        nodes: list[Annotated[int, Field(ge=0)]] | None = Field(
            None,
            min_length=1,
            description="the node of the trees that each unit of the code is; by default all nodes in order. "
            "Nodes that no unit is, as after pruning, count as 0",
        )

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        self.non_negative = self.config.non_negative

    def build(self, context: Context) -> None:
        """Lay the trees out on the code; InputError where their sizes differ."""
        self.code_shape = context.code_shape
        self.forest = self.config.forest()
        if self.config.nodes is None:
            self.forest = self.config.on(context.units)
            self.nodes = torch.arange(context.units)
        else:
            self.nodes = torch.tensor(self.config.nodes)
            self._check_nodes(context.units)
        self.levels = self.forest.levels()
        self.depth_weights = self.config.decay ** self.forest.depth().double()

    def _check_nodes(self, units: int) -> None:
        if len(self.nodes) != units or len(self.nodes.unique()) != units:
            raise InputError(f"nodes: {len(self.nodes.unique())} different nodes, but the code has {units} units")
        if int(self.nodes.max()) >= len(self.forest):
            raise InputError(
                f"nodes: there is no node {int(self.nodes.max())}; the trees have {len(self.forest)}, from 0"
            )

    def select(self, units: Tensor) -> None:
        """Keep only these units (of the code's first axis); the trees stay, with nodes that no unit is."""
        super().select(units)
        self.nodes = self.nodes[flat_units(units, self.code_shape)]
        self.code_shape = (len(units), *self.code_shape[1:])
        self.config = self.config.model_copy(update={"nodes": self.nodes.tolist()})

    def energy(self, z: Tensor) -> Tensor:
        """z: (batch, *code_shape), its flat units the trees' nodes. Returns (batch,)."""
        sums = self._on_nodes(z.flatten(1).square())
        for units, above in self._upwards(z.device):
            if above is not None:
                sums = sums.index_add(1, above, sums.index_select(1, units))
        active = sums > 0
        norms = torch.where(active, torch.where(active, sums, 1.0).sqrt(), 0.0)
        return norms @ self.depth_weights.to(z)

    def prox(self, v: Tensor, step: Step) -> Tensor:
        """argmin_u step·Ω(u) + ½‖u − v‖², exact; v: (batch, *code_shape), step: > 0, one number or one per sample."""
        flat = v.flatten(1)
        if self.non_negative:
            flat = flat.clamp_min(0)
        level = one_step_per_sample(step, flat)
        square = self._on_nodes(flat.square())
        shrinks = self._shrinks(square, level)
        scale = torch.ones_like(square)
        for (units, above), shrink in zip(reversed(self._upwards(v.device)), reversed(shrinks), strict=True):
            inherited = shrink if above is None else shrink * scale.index_select(1, above)
            scale = scale.index_copy(1, units, inherited)
        return (flat * scale.index_select(1, self.nodes.to(v.device))).view_as(v)

    def _shrinks(self, square: Tensor, level: Tensor) -> list[Tensor]:
        """By what each group shrinks once those below it have, per depth from the leaves; square: (batch, nodes)."""
        weights = self.depth_weights.to(square)
        shrinks = []
        for units, above in self._upwards(square.device):
            size = square.index_select(1, units)
            threshold = level[:, None] * weights[units]
            active = size > threshold.square()
            shrink = torch.where(active, 1 - threshold / torch.where(active, size, 1.0).sqrt(), 0.0)
            shrinks.append(shrink)
            if above is not None:
                square = square.index_add(1, above, shrink.square() * size)
        return shrinks

    def _upwards(self, device: torch.device) -> list[tuple[Tensor, Tensor | None]]:
        """The nodes of each depth with their parents, deepest first; None for the roots'."""
        steps: list[tuple[Tensor, Tensor | None]] = []
        for depth, units in reversed(list(enumerate(self.levels))):
            above = self.forest.parent[units].to(device) if depth else None
            steps.append((units.to(device), above))
        return steps

    def _on_nodes(self, values: Tensor) -> Tensor:
        """(batch, units) to (batch, nodes), 0 at nodes that no unit is."""
        if len(self.nodes) == len(self.forest) and self.config.nodes is None:
            return values
        return values.new_zeros(len(values), len(self.forest)).index_copy(1, self.nodes.to(values.device), values)

    def dual_norm(self, c: Tensor) -> Tensor:
        """sup ⟨c, u⟩ over Ω(u) ≤ 1, (batch,): the least level at which the prox of c is 0, by bisection."""
        flat = c.flatten(1)
        if self.non_negative:
            flat = flat.clamp_min(0)
        square = self._on_nodes(flat.square())
        weights = self.depth_weights.to(c)
        high = (square.sqrt() / weights).amax(1)  # each entry borne by its own group alone
        low = torch.zeros_like(high)
        for _ in range(BISECTIONS):
            middle = 0.5 * (low + high)
            if bool(((middle <= low) | (middle >= high)).all()):
                break
            left = self._shrinks(square, middle)[-1].amax(1) > 0
            low, high = torch.where(left, middle, low), torch.where(left, high, middle)
        return high

    def prox_after(self, earlier: Sequence[Structure | None]) -> bool:
        """Exact after a soft threshold: this prox changes no sign (Yu 2013)."""
        return all(isinstance(form, L1) for form in earlier)

    def structure(self) -> Tree | None:
        """The trees as a Tree structure; None where pruning has left a unit without its parent."""
        pruned = self.forest.select(self.nodes)
        above = self.forest.parent[self.nodes]
        if not bool(torch.isin(above[above >= 0], self.nodes).all()):
            return None
        return Tree(weight=self.depth_weights[self.nodes], parent=pruned.parent, non_negative=self.non_negative)

    def formula(self) -> str:
        weight = "" if self.config.decay == 1 else f"{self.config.decay:g}^depth · "
        return f"Σ_g {weight}‖z_g‖₂, g: a unit with its descendants" + (", z ≥ 0" if self.non_negative else "")
