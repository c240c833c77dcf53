"""How pools of units are described in a config, and what they are on a code of a given shape."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor

from groundstate.components import Plugin
from groundstate.errors import InputError, PluginError
from groundstate.problem import Step

Pair = tuple[PositiveInt, PositiveInt]
UnitNumber = Annotated[int, Field(ge=0)]


@dataclass(frozen=True)
class Pools:
    """Pools P_j of a flattened code, and how much each entry counts in its pool's norm.

    index: (pools, size) int64 unit numbers, padded with −1 where pools differ in size.
    scale: (pools, size) entries' weights a ≥ 0 (0 at the padding), None where all are 1.
    axes: where pools are all windows of a grid of units, how much each place along an axis counts in each window's
    square, a², (side, windows) for each axis; None elsewhere.
    """

    index: Tensor
    scale: Tensor | None
    units: int
    axes: tuple[Tensor, ...] | None = None

    @property
    def disjoint(self) -> bool:
        """No unit stands in two pools."""
        members = self.index[self.index >= 0]
        return len(members) == len(members.unique())

    def __post_init__(self) -> None:
        alone = torch.ones(self.units, dtype=torch.bool)
        alone[self.index[self.index >= 0]] = False
        missing = alone.nonzero().flatten().tolist()
        if missing:
            some = ", ".join(map(str, missing[:5])) + (" …" if len(missing) > 5 else "")
            raise InputError(
                f"pools: {len(missing)} of the code's {self.units} units stand in no pool ({some}); "
                "every unit needs one, or it goes unpenalised"
            )

    @classmethod
    def of(cls, members: list[list[int]], weights: list[list[float]] | None, units: int) -> Self:
        """From lists of unit numbers. InputError where a number does not exist or a unit is in no pool."""
        size = max(len(pool) for pool in members)
        index = torch.full((len(members), size), -1, dtype=torch.int64)
        scale = None if weights is None else torch.zeros(len(members), size, dtype=torch.float64)
        for row, pool in enumerate(members):
            if max(pool) >= units:
                raise InputError(
                    f"pools: pool {row} names unit {max(pool)}, but the code has {units} units (0 … {units - 1})"
                )
            index[row, : len(pool)] = torch.tensor(pool)
            if scale is not None and weights is not None:
                scale[row, : len(pool)] = torch.tensor(weights[row], dtype=torch.float64)
        return cls(index, scale, units)

    def select(self, flat: Tensor) -> Pools:
        """The pools that are left where only these units of the flat code are kept, (m,) int64, renumbered."""
        number = torch.full((self.units,), -1, dtype=torch.int64)
        number[flat] = torch.arange(len(flat))
        members, weights = [], []
        for row, pool in enumerate(self.index.tolist()):
            kept = [(int(number[unit]), place) for place, unit in enumerate(pool) if unit >= 0 and number[unit] >= 0]
            if kept:
                members.append([unit for unit, _ in kept])
                if self.scale is not None:
                    weights.append([float(self.scale[row, place]) for _, place in kept])
        return Pools.of(members, weights if self.scale is not None else None, len(flat))

    def lists(self) -> tuple[list[list[int]], list[list[float]] | None]:
        """Unit numbers and entries' weights (None for ones) by pool, as a config names them."""
        members = [[unit for unit in pool if unit >= 0] for pool in self.index.tolist()]
        if self.scale is None:
            return members, None
        return members, [row[: len(pool)] for row, pool in zip(self.scale.tolist(), members, strict=True)]


class PoolFields(Plugin.Config):
    """The fields of a config that describe pools; exactly one of size, sheet, maps/positions and pools."""

    size: PositiveInt | None = Field(None, description="disjoint pools of this many consecutive units")
    sheet: Pair | None = Field(None, description="height and width of a sheet of units; pools are its windows")
    window: Pair | None = Field(None, description="height and width of a window on the sheet")
    stride: PositiveInt | Pair = Field(1, description="units between two windows of the sheet; one number or two")
    wrap: bool = Field(True, description="the sheet is a torus: windows go on at the opposite edge")
    maps: PositiveInt | None = Field(
        None, description="codes with maps: neighbouring maps in a pool; 1 where only positions is given"
    )
    maps_stride: PositiveInt | None = Field(None, description="maps between two pools; as many as maps by default")
    positions: PositiveInt | Pair | None = Field(
        None, description="codes with maps: side (or height and width) of a pool within a map; 1 by default"
    )
    positions_stride: PositiveInt | Pair | None = Field(
        None, description="positions between two pools; as many as positions by default"
    )
    positions_wrap: bool = Field(False, description="a map is a torus: pools of positions go on at the opposite edge")
    pools: list[Annotated[list[UnitNumber], Field(min_length=1)]] | None = Field(
        None, min_length=1, description="each pool's unit numbers in the flattened code, from 0"
    )
    pool_weights: list[list[Annotated[float, Field(gt=0, allow_inf_nan=False)]]] | None = Field(
        None, description="with pools: the weight of each entry in its pool's norm; > 0, 1 by default"
    )
    window_weights: Literal["flat", "gaussian"] = Field(
        "flat",
        description="entries' weights in a pool's norm: flat (1) or gaussian, exp(−½(d/σ)²) around the middle "
        "with σ a third of the side",
    )

    @model_validator(mode="after")
    def _one_description(self) -> Self:
        ways = {
            "size": self.size,
            "sheet": self.sheet,
            "maps or positions": self.maps or self.positions,
            "pools": self.pools,
        }
        given = [name for name, value in ways.items() if value is not None]
        if len(given) != 1:
            found = f"found {' and '.join(given)}" if given else "found none"
            raise ValueError(f"pools are described by exactly one of {', '.join(ways)}; {found}")
        if (self.sheet is None) != (self.window is None):
            raise ValueError("sheet and window belong together: sheet = [16, 16], window = [3, 3]")
        if self.pools is None:
            if self.pool_weights is not None:
                raise ValueError("pool_weights belongs to pools; for windows there is window_weights = 'gaussian'")
            return self
        if self.window_weights != "flat":
            raise ValueError("window_weights needs windows; for listed pools give pool_weights")
        for row, pool in enumerate(self.pools):
            if len(set(pool)) < len(pool):
                raise ValueError(f"pool {row} names a unit twice")
        if self.pool_weights is not None:
            sizes = [len(pool) for pool in self.pools]
            if [len(row) for row in self.pool_weights] != sizes:
                raise ValueError("pool_weights needs one weight for each entry of pools")
        return self

    def on(self, code_shape: tuple[int, ...]) -> Pools:
        """The pools on codes of this shape, without the batch axis; InputError where they do not fit."""
        units = prod(code_shape)
        if self.pools is not None:
            return Pools.of(self.pools, self.pool_weights, units)
        if self.size is not None:
            if units % self.size:
                raise InputError(
                    f"size: pools of {self.size} do not divide the code's {units} units; "
                    f"{units % self.size} would be left over"
                )
            sides, axes, wraps = (units,), [_starts(units, self.size, self.size, False)], [False]
            window: tuple[int, ...] = (self.size,)
        elif self.sheet is not None:
            assert self.window is not None
            sides, window = self.sheet, self.window
            if prod(sides) != units:
                raise InputError(f"sheet: {sides[0]} × {sides[1]} = {prod(sides)} units, but the code has {units}")
            strides, wraps = _pair(self.stride), [self.wrap] * 2
            axes = [_axis(*axis, self.wrap, "window") for axis in zip(sides, window, strides, strict=True)]
        else:
            sides, window, axes = self._maps_and_positions(code_shape)
            wraps = [False, self.positions_wrap, self.positions_wrap]
        return self._windows(sides, window, axes, wraps)

    def _maps_and_positions(
        self, code_shape: tuple[int, ...]
    ) -> tuple[tuple[int, ...], tuple[int, ...], list[list[int]]]:
        if len(code_shape) != 3:
            raise InputError(
                f"maps and positions need a code of shape (maps, height, width), but it is {code_shape}; "
                "give size, sheet or pools"
            )
        maps, positions = self.maps or 1, _pair(self.positions or 1)
        window = (maps, *positions)
        strides = (self.maps_stride or maps, *_pair(self.positions_stride or positions))
        if code_shape[0] > maps and (code_shape[0] - maps) % strides[0]:
            raise InputError(f"maps: pools of {maps} every {strides[0]} do not divide the code's {code_shape[0]} maps")
        names = ("maps", "positions", "positions")
        axes = [
            _axis(side, width, stride, name == "positions" and self.positions_wrap, name)
            for side, width, stride, name in zip(code_shape, window, strides, names, strict=True)
        ]
        return code_shape, window, axes

    def _windows(
        self, sides: tuple[int, ...], window: tuple[int, ...], axes: list[list[int]], wraps: list[bool]
    ) -> Pools:
        units = prod(sides)
        starts = torch.cartesian_prod(*(torch.tensor(axis) for axis in axes)).view(-1, len(axes))
        offsets = torch.cartesian_prod(*(torch.arange(width) for width in window)).view(-1, len(axes))
        side = torch.tensor(sides)
        place = starts[:, None] + offsets  # (pools, entries, axes)
        inside = ((place < side) | torch.tensor(wraps)).all(2)
        place = place % side
        strides = torch.tensor([prod(sides[axis + 1 :]) for axis in range(len(sides))])
        index = torch.where(inside, (place * strides).sum(2), -1)
        order = (index < 0).to(torch.int8).argsort(dim=1, stable=True)  # what is cut at an edge goes last
        index = index.gather(1, order)
        grid = tuple(map(_shares, sides, axes, (self._weights(width).square() for width in window), wraps))
        if self.window_weights == "flat":
            return Pools(index, None, units, grid)
        weights = self._weights(window[0])
        for width in window[1:]:
            weights = torch.outer(weights, self._weights(width)).flatten()
        weights = weights.expand(index.shape).gather(1, order)
        return Pools(index, torch.where(index >= 0, weights, 0.0), units, grid)

    def _weights(self, width: int) -> Tensor:
        """Of a window's places along one axis; those of an entry are their product."""
        if self.window_weights == "flat":
            return torch.ones(width, dtype=torch.float64)
        distance = (torch.arange(width, dtype=torch.float64) - (width - 1) / 2) / (width / 3)
        return torch.exp(-0.5 * distance.square())


def flat_units(units: Tensor, code_shape: tuple[int, ...]) -> Tensor:
    """Numbers in the flattened code of these units of its first axis."""
    return torch.arange(prod(code_shape)).view(code_shape)[units.cpu()].flatten()


def one_step_per_sample(step: Step, flat: Tensor) -> Tensor:
    """A prox's step as one number per sample, (batch,)."""
    if not isinstance(step, Tensor):
        return flat.new_full((len(flat),), step)
    if step.numel() not in (1, len(flat)):
        raise PluginError(f"a prox over pools takes one step per sample, not shape {tuple(step.shape)}")
    return step.reshape(-1).expand(len(flat))


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def _axis(side: int, window: int, stride: int, wrap: bool, name: str) -> list[int]:
    """Where windows start along one axis; InputError where they do not fit."""
    if window > side:
        raise InputError(f"{name}: a side of {window} is longer than the code's {side}")
    if wrap and side % stride:
        raise InputError(f"stride: {stride} does not divide the torus' side of {side}")
    return _starts(side, window, stride, wrap)


def _shares(side: int, starts: list[int], weights: Tensor, wrap: bool) -> Tensor:
    """(side, windows): the weight of each place along one axis in each window, 0 outside."""
    place = torch.tensor(starts) + torch.arange(len(weights))[:, None]
    inside = (place < side) | wrap
    shares = torch.zeros(side, len(starts), dtype=torch.float64)
    windows = torch.arange(len(starts)).expand_as(place)
    shares.index_put_((place % side, windows), weights[:, None] * inside, accumulate=True)
    return shares


def _starts(side: int, window: int, stride: int, wrap: bool) -> list[int]:
    if wrap:
        return list(range(0, side, stride))
    # the last window may be cut at the edge, so that every unit stands in one
    return [start for k in range(ceil((side - window) / stride) + 1) if (start := stride * k) < side]
