"""Group sparsity: a sum of L2 norms over pools of units, disjoint or overlapping."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn.functional import pad

from groundstate.components import Context, Memory, Regulariser
from groundstate.problem import Step
from groundstate.structure import L1, Groups, Pooled, SmoothedGroups, Structure

from . import disjoint, overlapping
from .pools import PoolFields, Pools, flat_units, one_step_per_sample
from .tilings import Tilings

DENSE = 1 << 22
"""Largest units × pools at which sums over overlapping pools are one matrix product."""


@dataclass(frozen=True)
class Layout:
    """Pools as tensors of one device and dtype: Ω(z) = Σ_P radius_P ‖b_P∘z_P‖, the largest b of each pool 1.

    index: (pools, size), the padding being the number of units, at which b is 1 and every code 0.
    inverse: (units,) where each unit of disjoint pools stands among the parts. axes: of ``Pools``, b² in the place of
    a², where pools overlap. members: (units, pools) b², where they overlap in another way.
    """

    index: Tensor
    radius: Tensor
    entries: Tensor | None
    inverse: Tensor | None
    tilings: Tilings | None
    axes: tuple[Tensor, ...] | None
    members: Tensor | None

    @classmethod
    def of(cls, pools: Pools, like: Tensor) -> Layout:
        padding = pools.index < 0
        radius, entries = torch.ones(len(pools.index), dtype=torch.float64), None
        if pools.scale is not None:
            radius = pools.scale.amax(1)
            entries = torch.where(padding, 1.0, pools.scale / radius[:, None])
            if bool((entries == 1).all()):
                entries = None
        index = torch.where(padding, pools.units, pools.index)
        inverse, tilings, axes, members = None, None, None, None
        if pools.disjoint:
            inverse = torch.empty(pools.units + 1, dtype=torch.int64)
            inverse[index.flatten()] = torch.arange(index.numel())
            inverse = inverse[:-1].to(like.device)
        else:
            device = [x if x is None else x.to(like) for x in (radius, entries)]
            assert device[0] is not None
            tilings = Tilings.of(pools.index.to(like.device), device[0], device[1], pools.units)
            if pools.axes is not None:
                # the largest a of a window is the product of the largest along each axis
                axes = tuple((axis / axis.amax(0)).to(like) for axis in pools.axes)
            elif pools.units * len(index) <= DENSE:
                square = torch.ones_like(index, dtype=torch.float64) if entries is None else entries.square()
                full = torch.zeros(pools.units + 1, len(index), dtype=torch.float64)
                full.index_put_((index, torch.arange(len(index))[:, None].expand_as(index)), square)
                members = full[:-1].to(like)
        return cls(
            index.to(like.device),
            radius.to(like),
            None if entries is None else entries.to(like),
            inverse,
            tilings,
            axes,
            members,
        )

    def parts(self, flat: Tensor) -> Tensor:
        """The pools' entries, (batch, pools, size), of a flat code (batch, units)."""
        pools, size = self.index.shape
        return pad(flat, (0, 1)).index_select(1, self.index.flatten()).view(len(flat), pools, size)

    def whole(self, parts: Tensor) -> Tensor:
        """The flat code of the parts of disjoint pools."""
        assert self.inverse is not None
        return parts.flatten(1).index_select(1, self.inverse)

    def squares(self, flat: Tensor) -> Tensor:
        """‖b_P∘z_P‖², (batch, pools)."""
        if self.axes is not None:
            return _along(flat.square(), self.axes)
        if self.members is not None:
            return flat.square() @ self.members
        parts = self.parts(flat)
        return (parts if self.entries is None else parts * self.entries).square().sum(2)

    def spread(self, values: Tensor) -> Tensor:
        """Σ_P b_P²·value_P over the pools that each unit stands in, (batch, pools) → (batch, units)."""
        if self.axes is not None:
            return _along(values, [axis.T for axis in self.axes])
        if self.members is not None:
            return values @ self.members.T
        parts = values[:, :, None].expand(-1, *self.index.shape)
        if self.entries is not None:
            parts = parts * self.entries.square()
        if self.inverse is not None:
            return self.whole(parts)
        units = values.new_zeros(len(values), int(self.index.max()) + 1)
        return units.index_add(1, self.index.flatten(), parts.flatten(1))


def _along(values: Tensor, axes: Sequence[Tensor]) -> Tensor:
    """Sums over windows of a grid, one axis after another: (batch, units) → (batch, pools).

    axes: (side, windows) each.
    """
    values = values.view(-1, *(len(axis) for axis in axes))
    for dim, axis in enumerate(axes, 1):
        values = (values.transpose(dim, -1) @ axis).transpose(dim, -1)
    return values.flatten(1)


class Group(Regulariser):
    """Σ_j ‖a_j∘z_{P_j}‖₂ over pools P_j of units; the pools are fixed, never trained.

    Disjoint pools have a closed prox; overlapping ones are solved on the dual, with the multipliers kept between
    calls; smoothed norms are majorised by a quadratic at the current code. With z ≥ 0 the prox is that of max(v, 0):
    a norm of absolute values never changes a sign.
    """

    norm = True
    examples: ClassVar[Sequence[Mapping[str, Any]]] = (
        {"size": 3, "window_weights": "gaussian", "non_negative": True},
        {"sheet": (6, 6), "window": (3, 3)},
        {"maps": 2, "positions": 2},
        {"size": 6, "smoothing": 0.1},
    )

    class Config(PoolFields, Regulariser.Config):
        non_negative: bool = Field(False, description="restrict codes to z ≥ 0")
        smoothing: float = Field(
            0,
            ge=0,
            allow_inf_nan=False,
            description="ε of Σ_j √(‖z_j‖² + ε), as the field also writes it. It changes the energy: no unit is "
            "exactly 0 any more; in return its prox is cheap, whatever the pools. 0: the norm itself",
        )

        @model_validator(mode="after")
        def _smooth_has_no_domain(self) -> Self:
            if self.smoothing and self.non_negative:
                raise ValueError(
                    "smoothing > 0 makes the term smooth, and a smooth term cannot restrict codes to z ≥ 0; "
                    "leave one out, or restrict codes by a non-negative l1 term"
                )
            return self

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        self.non_negative = self.config.non_negative
        if self.config.smoothing:
            self.norm = False
            self.prox = self._majorised_prox
            self.dual_norm = None
        self._layout: Layout | None = None

    def build(self, context: Context) -> None:
        """Lay the pools out on the code; InputError where they do not fit."""
        self.pools: Pools = self.config.on(context.code_shape)
        self.code_shape = context.code_shape
        self._layout = None

    def select(self, units: Tensor) -> None:
        """Keep only these units (of the code's first axis); from then on the config lists the pools."""
        super().select(units)
        self.pools = self.pools.select(flat_units(units, self.code_shape))
        self.code_shape = (len(units), *self.code_shape[1:])
        self._layout = None
        described = {name: field.default for name, field in PoolFields.model_fields.items()}
        pools, weights = self.pools.lists()
        self.config = self.config.model_copy(update=described | {"pools": pools, "pool_weights": weights})

    def layout(self, like: Tensor) -> Layout:
        """The pools where ``like`` is, in its dtype."""
        held = self._layout
        if held is None or held.radius.device != like.device or held.radius.dtype != like.dtype:
            held = self._layout = Layout.of(self.pools, like)
        return held

    def energy(self, z: Tensor) -> Tensor:
        """z: (batch, *code_shape). Returns (batch,). At a pool of zeros the gradient is the subgradient 0."""
        layout = self.layout(z)
        square = layout.squares(z.flatten(1))
        if self.config.smoothing:
            # radius is outside the root: √(‖a∘z‖² + ε) = radius·√(‖b∘z‖² + ε/radius²)
            return (layout.radius * (square + self.config.smoothing / layout.radius.square()).sqrt()).sum(1)
        active = square > 0
        norm = torch.where(active, torch.where(active, square, 1.0).sqrt(), 0.0)
        return norm @ layout.radius

    def prox(self, v: Tensor, step: Step, memory: Memory | None = None, tolerance: float = 1e-9) -> Tensor:
        """argmin_u step·Ω(u) + ½‖u − v‖²; overlapping pools to a duality gap of tolerance·½‖v‖².

        v: (batch, *code_shape); step: > 0, one number or one per sample. memory keeps the dual multipliers.
        """
        layout = self.layout(v)
        flat = v.flatten(1)
        if self.non_negative:
            flat = flat.clamp_min(0)
        level = one_step_per_sample(step, flat)
        if layout.tilings is not None:
            return overlapping.prox(layout.tilings, flat, level, tolerance, memory).view_as(v)
        parts = disjoint.prox(layout.parts(flat), level[:, None] * layout.radius, layout.entries)
        return layout.whole(parts).view_as(v)

    def _majorised_prox(self, v: Tensor, step: Step, z: Tensor) -> Tensor:
        """The prox of the smoothed term majorised at z, where √(s + ε) ≤ √(s_z + ε) + (s − s_z)/(2√(s_z + ε))."""
        layout = self.layout(z)
        square = layout.squares(z.flatten(1))
        slope = layout.radius / (square + self.config.smoothing / layout.radius.square()).sqrt()
        return v / (1 + step * layout.spread(slope).view_as(z))

    def dual_norm(
        self, c: Tensor, z: Tensor | None = None, memory: Memory | None = None, tolerance: float = 1e-6
    ) -> Tensor:
        """sup ⟨c, u⟩ over Ω(u) ≤ 1, (batch,): exact for disjoint pools, else a bound, tight to tolerance.

        z: the code that is certified; memory: the prox's (see ``overlapping.dual_norm``).
        """
        layout = self.layout(c)
        flat = c.flatten(1)
        if self.non_negative:
            flat = flat.clamp_min(0)
        if layout.tilings is None:
            return disjoint.dual_norm(layout.parts(flat), layout.radius, layout.entries)
        at = None if z is None else z.flatten(1)
        return overlapping.dual_norm(layout.tilings, flat, at, memory, tolerance)

    def prox_after(self, earlier: Sequence[Structure | None]) -> bool:
        """Exact after a soft threshold, overlapping or not.

        This prox shrinks entries without changing a sign, so a subgradient of the L1 part at its input is one at
        its output (Yuan, Liu & Ye 2011, theorem 1; Yu 2013).
        """
        return all(isinstance(form, L1) for form in earlier)

    def structure(self) -> Pooled:
        pools, sheet = self.pools, self.config.sheet
        weight = torch.ones(len(pools.index), dtype=torch.float64)
        shared: dict[str, Any] = {"weight": weight, "index": pools.index, "scale": pools.scale, "sheet": sheet}
        if self.config.smoothing:
            return SmoothedGroups(disjoint=pools.disjoint, smoothing=self.config.smoothing, **shared)
        return Groups(disjoint=pools.disjoint, non_negative=self.non_negative, **shared)

    def formula(self) -> str:
        entry = "z_P" if self.config.window_weights == "flat" and not self.config.pool_weights else "a∘z_P"
        if self.config.smoothing:
            return f"Σ_P √(‖{entry}‖₂² + {self.config.smoothing:g})"
        return f"Σ_P ‖{entry}‖₂" + (", z ≥ 0" if self.non_negative else "")
