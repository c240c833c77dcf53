"""Tree-structured group sparsity: a unit may be active only with its ancestors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from groundstate.components import Context, Regulariser
from groundstate.inference import Step
from groundstate.structure import L1, Structure, Tree
from groundstate_plugins.regularisers.trees import TreeFields, described


class TreeGroup(Regulariser):
    """Σ_g w_g‖z_g‖₂ over a group for each node: it and all its descendants (Jenatton et al. 2011).

    With z ≥ 0 the prox is that of max(v, 0): norms of absolute values never change a sign.
    """

    norm = True
    members: Tensor  # (units, units): row i is 1 at the members of the group rooted at i

    class Config(TreeFields, Regulariser.Config):
        decay: float = Field(1.0, gt=0, description="weight of a group: decay to the power of its root's depth")
        non_negative: bool = Field(False, description="restrict codes to z ≥ 0")

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        self.non_negative = self.config.non_negative

    def build(self, context: Context) -> None:
        """Lay the trees on the code; InputError where they do not fit."""
        forest = self.config.forest()
        forest.require_units(context.units)
        depth = forest.depth()
        self._levels = [(depth == level).nonzero().flatten() for level in range(int(depth.max()) + 1)]
        self._parent = forest.parent
        members = forest.ancestors().T | torch.eye(len(forest), dtype=torch.bool)
        self.register_buffer("members", members.to(torch.get_default_dtype()), persistent=False)
        weight = self.config.decay ** depth.to(torch.get_default_dtype())
        self.register_buffer("group_weight", weight, persistent=False)

    def energy(self, z: Tensor) -> Tensor:
        """z: (batch, *code_shape). Returns (batch,)."""
        squares = z.flatten(1).square() @ self.members.T
        # the gradient of a norm at 0 is taken as 0, as the subdifferential allows
        norms = torch.where(squares > 0, squares.clamp_min(torch.finfo(z.dtype).tiny).sqrt(), 0.0)
        return norms @ self.get_buffer("group_weight")

    def prox(self, v: Tensor, step: Step) -> Tensor:
        """One pass from the leaves to the roots, each group shrunk as a block; exact (Jenatton et al. 2011, § 3)."""
        u = v.flatten(1)
        u = u.clamp_min(0) if self.non_negative else u
        size = step.flatten(1) if isinstance(step, Tensor) and step.dim() > 0 else step
        weight = self.get_buffer("group_weight")
        for roots in reversed(self._levels):
            members = self.members[roots.to(u.device)]
            norms = (u.square() @ members.T).sqrt()
            kept = (1 - size * weight[roots] / norms.clamp_min(torch.finfo(u.dtype).tiny)).clamp_min(0)
            # groups of one level are disjoint; a unit in none of them keeps its value
            inside = members.sum(0)
            u = u * (kept @ members + (1 - inside))
        return u.view_as(v)

    def prox_after(self, earlier: Sequence[Structure | None]) -> bool:
        """True after L1: single units are the smallest groups of all."""
        return all(isinstance(form, L1) for form in earlier)

    def structure(self) -> Tree:
        return Tree(parent=self._parent, weight=self.get_buffer("group_weight"), non_negative=self.non_negative)

    def select(self, units: Tensor) -> None:
        super().select(units)
        forest = self.config.forest().select(units.cpu())
        self.config = self.config.model_copy(update=described(forest))
        shapes = Context((1,), (len(forest),), torch.Generator())
        like = self.members
        self.build(shapes)
        self.to(like)

    def formula(self) -> str:
        condition = ", z ≥ 0" if self.non_negative else ""
        return f"Σ_g w_g‖z_g‖₂{condition}"
