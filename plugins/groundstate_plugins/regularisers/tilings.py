"""Overlapping pools sorted into disjoint tilings, with samples as columns: every gather copies whole rows."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tilings:
    """Pools sorted into disjoint tilings.

    tiles: per tiling, (size · pools of it,) unit numbers, the entries of its pools one after another; the
    number ``units`` stands for the padding, a unit that is always 0. radius: (pools, 1), w_P in tiling order.
    entries: (size · pools, 1) b in the rows' order, largest of each pool 1, None for ones.
    """

    units: int
    size: int
    tiles: tuple[Tensor, ...]
    radius: Tensor
    entries: Tensor | None
    cover: Tensor

    @classmethod
    def of(cls, index: Tensor, radius: Tensor, scale: Tensor | None, units: int) -> Tilings:
        """index: (pools, size), padded with −1; radius: (pools,); scale: (pools, size) or None."""
        tilings = colour(index, units)
        padded = torch.where(index < 0, units, index)
        tiles = tuple(padded[tiling].T.flatten() for tiling in tilings)
        order = torch.cat(tilings)
        entries = None if scale is None else torch.cat([scale[tiling].T.flatten() for tiling in tilings])[:, None]
        rows = torch.cat(tiles)
        weight = torch.ones_like(rows, dtype=radius.dtype) if entries is None else entries[:, 0].square()
        cover = weight.new_zeros(units + 1).index_add_(0, rows, weight)[:, None]
        cover[units] = 1.0
        return cls(units, index.shape[1], tiles, radius[order][:, None], entries, cover)

    @property
    def rows(self) -> int:
        """Rows of the multipliers."""
        return self.size * len(self.radius)

    def blocks(self) -> list[tuple[Tensor, slice, slice]]:
        """Per tiling: its units, its rows among the multipliers, its pools."""
        blocks, row, pool = [], 0, 0
        for tile in self.tiles:
            pools = len(tile) // self.size
            blocks.append((tile, slice(row, row + len(tile)), slice(pool, pool + pools)))
            row, pool = row + len(tile), pool + pools
        return blocks

    def double(self) -> Tilings:
        """The same in float64."""
        entries = None if self.entries is None else self.entries.double()
        return replace(self, radius=self.radius.double(), entries=entries, cover=self.cover.double())

    def by_pool(self, rows: Tensor) -> Tensor:
        """(rows, samples) as (samples, pools, size)."""
        parts = [rows[place].view(self.size, -1, rows.shape[1]) for _, place, _ in self.blocks()]
        return torch.cat(parts, 1).permute(2, 1, 0)

    def by_row(self, parts: Tensor) -> Tensor:
        """(samples, pools, size) as (rows, samples)."""
        return torch.cat([parts[:, pools].permute(2, 1, 0).flatten(0, 1) for _, _, pools in self.blocks()])

    def norms(self, u: Tensor) -> Tensor:
        """‖b_P∘u_P‖, (pools, samples), of columns u: (units + 1, samples)."""
        norms = []
        for tile, rows, pools in self.blocks():
            part = u.index_select(0, tile)
            if self.entries is not None:
                part *= self.entries[rows]
            norms.append(norms_of(part, pools.stop - pools.start))
        return torch.cat(norms)

    def value(self, u: Tensor) -> Tensor:
        """Σ_P w_P‖b_P∘u_P‖, (samples,)."""
        return (self.radius * self.norms(u)).sum(0)

    def directions(self, u: Tensor) -> Tensor:
        """b_P∘u_P/‖b_P∘u_P‖, (rows, samples), 0 for pools that are: what the multipliers are at an optimum u."""
        parts = torch.cat([u.index_select(0, tile) for tile in self.tiles])
        if self.entries is not None:
            parts *= self.entries
        norms = self.norms(u)
        for _, rows, pools in self.blocks():
            part = parts[rows].view(self.size, *norms[pools].shape)
            part.div_(norms[pools].clamp_min(torch.finfo(u.dtype).tiny))
        return parts

    def masked(self, u: Tensor, keep: Tensor) -> Tensor:
        """u with 0 at every unit that stands in a pool whose ``keep``, (pools, samples), is 0."""
        u = u.clone()
        for tile, _, pools in self.blocks():
            part = u.index_select(0, tile)
            part.view(self.size, *keep[pools].shape).mul_(keep[pools])
            u.index_copy_(0, tile, part)
        return u


def colour(index: Tensor, units: int) -> list[Tensor]:
    """Pools, by number, in groups that share no unit: each pool goes into the first group it fits.

    Windows on a torus whose sides they divide come out as the exact tilings, nine of them for 3 × 3.
    """
    used = [0] * (units + 1)  # by unit, a bit for each colour; the last one is the padding's
    groups: list[list[int]] = []
    for number, pool in enumerate(index.tolist()):
        members = [unit for unit in pool if unit >= 0]
        taken = 0
        for unit in members:
            taken |= used[unit]
        free = (~taken & (taken + 1)).bit_length() - 1
        for unit in members:
            used[unit] |= 1 << free
        if free == len(groups):
            groups.append([])
        groups[free].append(number)
    return [torch.tensor(group, device=index.device) for group in groups]


def norms_of(part: Tensor, pools: int) -> Tensor:
    """‖·‖₂ of each of the pools, whose entries come one after another: (size · pools, samples) to (pools, samples)."""
    # a sum of squares: torch's vector_norm over the first axis is some forty times slower
    return part.square().view(-1, pools, part.shape[1]).sum(0).sqrt_()
