"""Group sparsity: the sheet that pools lie on, how pools are used, and whether a pool's filters are alike."""

from __future__ import annotations

import math
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import torch
from markupsafe import Markup
from torch import Tensor

from groundstate.orientation import OrientationMap
from groundstate.report.charts import histogram
from groundstate.report.filters import Dictionary, dictionary
from groundstate.report.material import Material, render
from groundstate.report.pictures import as_pictures, picture, sheet, signed_tiles, tinted
from groundstate.report.words import count, number, percent
from groundstate.structure import Pooled, SmoothedGroups

POOLS = 48
"""Pools whose filters are shown at most, the most used first,"""
MEMBERS = 16
"""and filters of each."""
PAIRS = 20_000
"""Pairs of units that filters are compared over at most."""


class Use(NamedTuple):
    """pools: (pools,), the share of codes in which a pool is active. members: its active units where it is."""

    pools: Tensor
    members: Tensor


def pools(material: Material) -> Markup | None:
    """A part for each term over pools of units."""
    found = []
    for number_, (name, term) in enumerate(material.model.energy.terms.items()):
        form = term.structure()
        if isinstance(form, Pooled):
            found.append(_part(material, f"pools{number_}", name, form))
    return Markup().join(found) if found else None


def use(active: Tensor, form: Pooled) -> Use:
    """How pools are used in codes; active: (samples, units) bool."""
    padded = torch.nn.functional.pad(active.float(), (0, 1))
    index = torch.where(form.index < 0, active.shape[1], form.index).cpu()
    members = torch.zeros(len(index))
    share = torch.zeros(len(index))
    for pool, units in enumerate(index):
        inside = padded[:, units].sum(1)
        on = inside > 0
        share[pool] = on.float().mean()
        members[pool] = inside[on].mean() if bool(on.any()) else 0.0
    return Use(share, members)


def _part(material: Material, key: str, name: str, form: Pooled) -> Markup:
    # a smoothed norm leaves no entry at 0; below √ε it is hardly one
    least = math.sqrt(form.smoothing) if isinstance(form, SmoothedGroups) else 0.0
    active = material.observed.code.flatten(1).abs() > least
    used = use(active, form)
    shown = dictionary(material)
    if shown is not None and len(shown.columns) != active.shape[1]:
        shown = None
    size = int((form.index >= 0).sum(1).max())
    largest = max(float(used.pools.max()), 1e-3)
    chart = histogram(
        key,
        "how often a pool is active",
        used.pools.numpy(),
        across="share of samples in which it is active",
        up="pools",
        edges=np.linspace(0, 1.0001 * largest, 31),
        alt=f"Histogram of the share of samples in which a pool is active: median "
        f"{percent(float(used.pools.median()))}, from {percent(float(used.pools.min()))} to {percent(largest)}.",
    )
    pictures = []
    if form.sheet is not None and len(form.index):
        pictures.append(_map(active, form.sheet, name))
        if shown is not None and shown.sheet is not None and len(shown.shape) == 2:
            pictures.append(_orientation(shown.columns.view(*shown.sheet, *shown.shape)))
    elif shown is not None and form.disjoint:
        pictures.append(_by_pool(shown, form, used))
    return render(
        "pools",
        name=name,
        pictures=pictures,
        chart=chart,
        pools=len(form.index),
        size=size,
        least=least,
        sheet=form.sheet,
        disjoint=form.disjoint,
        dead=int((used.pools == 0).sum()),
        members=float(used.members[used.pools > 0].mean()) if bool((used.pools > 0).any()) else 0.0,
        alike=None if shown is None else alike(shown.columns, form),
        whole=len(active),
    )


def _map(active: Tensor, sides: tuple[int, int], name: str) -> tuple[str, Markup]:
    share = active.double().mean(0).view(sides)
    low, high = float(share.min()), float(share.max())
    pixels = np.rint(255 * ((share - low) / max(high - low, 1e-30)).numpy()).astype(np.uint8)
    alt = f"Map of the {sides[0]}×{sides[1]} units of {name}: the more colour, the more often a unit is active."
    said = (
        f"How often each unit is active, at its place on the {sides[0]}×{sides[1]} sheet (the filters above stand in "
        f"the same places): from no colour, {percent(low)} of the samples, to full colour, {percent(high)}."
    )
    return said, tinted(pixels, alt)


def _orientation(filters: Tensor) -> tuple[str, Markup]:
    """The orientation map of filters (rows, columns, height, width) on their sheet."""
    found = OrientationMap.of(filters, wrap=False)
    colours = mpl.colormaps["hsv"](found.orientation.numpy() / math.pi)[:, :, :3]
    alt = f"Map of the {len(filters)}×{filters.shape[1]} filters, orientation as hue."
    said = (
        "The orientation of each unit’s filter as hue, at the same places, red where stripes are vertical. Neighbours "
        f"differ by {number(math.degrees(found.orientation_difference()), 2)}° on average, "
        f"{number(found.orientation_ratio(), 2)} of what any two units do; there are "
        f"{count(int(found.pinwheels().abs().sum()), 'pinwheel')}, points around which all orientations follow each "
        "other."
    )
    return said, picture(np.rint(255 * colours).clip(1, 255).astype(np.uint8), alt)


def _by_pool(shown: Dictionary, form: Pooled, used: Use) -> tuple[str, Markup]:
    order = torch.argsort(used.pools, descending=True, stable=True)[:POOLS]
    index = form.index.cpu()[order][:, :MEMBERS]
    rows = torch.where((index >= 0)[:, :, None], shown.columns[index.clamp_min(0)], 0.0)
    tiles = signed_tiles(as_pictures(rows.flatten(0, 1), shown.shape))
    side_by_side = max(1, round((len(index) / index.shape[1]) ** 0.5))
    blocks = -(-len(index) // side_by_side)
    strips = [
        sheet(tiles[first : first + blocks * index.shape[1]], index.shape[1])
        for first in range(0, len(tiles), blocks * index.shape[1])
    ]
    height = max(len(strip) for strip in strips)
    gap = max(2, shown.shape[-1] // 3)
    parts = []
    for strip in strips:
        filled = np.zeros((height, strip.shape[1] + gap, *strip.shape[2:]), np.uint8)
        filled[: len(strip), : strip.shape[1]] = strip
        parts.append(filled)
    full = np.concatenate(parts, 1)[:, :-gap]
    what = f"The decoder filters of {count(len(index), 'pool')}, a pool in each row, the most used pools first."
    return what, picture(full, what)


def alike(columns: Tensor, form: Pooled) -> tuple[float, float] | None:
    """Mean |cos| between filters of one pool, and between any two; None where no pool has two units."""
    unit = torch.nn.functional.normalize(columns.double(), dim=1)
    index = form.index.cpu()
    first, second = torch.triu_indices(index.shape[1], index.shape[1], 1)
    one, two = index[:, first].flatten(), index[:, second].flatten()
    there = (one >= 0) & (two >= 0)
    one, two = one[there], two[there]
    if not len(one):
        return None
    step = -(-len(one) // PAIRS)
    near = (unit[one[::step]] * unit[two[::step]]).sum(1).abs().mean()
    draw = torch.randint(len(unit), (2, PAIRS), generator=torch.Generator().manual_seed(0))
    draw = draw[:, draw[0] != draw[1]]
    far = (unit[draw[0]] * unit[draw[1]]).sum(1).abs().mean()
    return float(near), float(far)
