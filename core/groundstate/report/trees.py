"""Units on trees: the trees with their filters, and how use falls from root to leaf."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from markupsafe import Markup
from torch import Tensor

from groundstate.report.charts import BLUE, MUTED, drawing, svg, thumbnail
from groundstate.report.filters import Dictionary, dictionary
from groundstate.report.material import Material, render
from groundstate.report.pictures import as_pictures, signed_tiles
from groundstate.report.words import count, percent
from groundstate.structure import Tree

TREES, LEAVES = 8, 24
"""Trees that are drawn, the most used first, and leaves of each."""
WIDTH, LEVEL = 400, 46
"""Pixels of a drawn tree, and between two of its levels."""


class Branches(NamedTuple):
    """related: (units, units) bool, above or below each other. depth: (units,) from 0 at a root."""

    related: Tensor
    depth: Tensor


def branches(parent: Tensor) -> Branches:
    units = len(parent)
    above = torch.zeros(units, units, dtype=torch.bool)
    depth = torch.zeros(units, dtype=torch.int64)
    for unit in range(units):
        node = int(parent[unit])
        while node >= 0:
            above[unit, node] = True
            depth[unit] += 1
            node = int(parent[node])
    return Branches(above | above.T, depth)


def together(active: Tensor, related: Tensor) -> tuple[float, float]:
    """Of pairs of units that are active in one code: the share on one branch; and of all pairs. active: bool."""
    size = active.double()
    pairs = (size.T @ size).fill_diagonal_(0)
    off = len(related) * (len(related) - 1)
    return float(pairs[related].sum() / pairs.sum().clamp_min(1e-30)), float(related.sum()) / max(off, 1)


def sections(material: Material) -> Markup | None:
    """A part for each term of nested groups."""
    found = []
    for place, (name, term) in enumerate(material.model.energy.terms.items()):
        form = term.structure()
        if isinstance(form, Tree):
            shown = dictionary(material)
            lead = Markup("<p><strong>{}</strong> sums the norms of nested groups: each unit with all below it.</p>")
            found.append(lead.format(name) + forest(material, f"tree{place}", form.parent.cpu(), shown))
    return Markup().join(found) if found else None


def forest(material: Material, key: str, parent: Tensor, shown: Dictionary | None) -> Markup:
    """The trees with the filters at their nodes, and the figures that tell whether codes follow branches."""
    frequency = material.observed.frequency
    related, depth = branches(parent)
    active = material.observed.code.flatten(1) != 0
    if len(frequency) != len(parent):  # a code with positions
        frequency = active.double().mean(0)
    tiles = None
    if shown is not None and len(shown.columns) == len(parent):
        tiles = signed_tiles(as_pictures(shown.columns, shown.shape))
    roots = (parent < 0).nonzero().flatten()
    use = torch.stack([frequency[related[root]].sum() + frequency[root] for root in roots])
    chosen = roots[torch.argsort(use, descending=True, stable=True)[:TREES]].tolist()
    drawn = [_tree(f"{key}-{number_}", parent, root, frequency, tiles) for number_, root in enumerate(chosen)]
    on_branch, chance = together(active, related)
    levels = [
        (level, int((depth == level).sum()), float(frequency[depth == level].mean()))
        for level in range(int(depth.max()) + 1)
    ]
    return render(
        "forest", pictures=drawn, trees=len(roots), levels=levels, on_branch=on_branch, chance=chance, leaves=LEAVES
    )


def _children(parent: Tensor) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for unit, above in enumerate(parent.tolist()):
        found.setdefault(above, []).append(unit)
    return found


def _tree(key: str, parent: Tensor, root: int, frequency: Tensor, tiles: Any) -> Markup:
    """One tree, of its most used leaves; nodes that no shown leaf hangs from are left out."""
    children = _children(parent)
    below, stack = [], [root]
    while stack:
        below.append(stack.pop())
        stack += children.get(below[-1], [])
    leaves = [unit for unit in below if unit not in children]
    kept_leaves = set(sorted(leaves, key=lambda unit: -float(frequency[unit]))[:LEAVES])
    kept = set()
    for leaf in kept_leaves:
        while leaf >= 0 and leaf not in kept:
            kept.add(leaf)
            leaf = int(parent[leaf])
    places = _places(root, children, kept)
    deepest = max(level for _, level in places.values())
    tile = min(30.0, WIDTH / max(1, len(kept_leaves)) - 2)
    height = 24 + LEVEL * deepest + 34
    with drawing(WIDTH, height, f"the tree of unit {root}") as (figure, axes):
        spot = {unit: (WIDTH * across, 24 + tile / 2 + LEVEL * level) for unit, (across, level) in places.items()}
        for unit, (x, y) in spot.items():
            if unit != root:
                x2, y2 = spot[int(parent[unit])]
                axes.plot((x, x2), (y, y2), color=MUTED, linewidth=0.8, zorder=1)
        for unit, (x, y) in spot.items():
            if tiles is not None:
                thumbnail(axes, tiles[unit], x, y, tile)
            else:
                axes.plot(x, y, "o", color=BLUE, markersize=2 + 12 * float(frequency[unit]) ** 0.5)
        alt = (
            f"Tree of {count(len(below), 'unit')} on {deepest + 1} levels, drawn by their filters; the root, unit "
            f"{root}, is active in {percent(float(frequency[root]))} of the samples."
        )
        return svg(figure, key, alt)


def _places(root: int, children: dict[int, list[int]], kept: set[int]) -> dict[int, tuple[float, int]]:
    """Across (0 to 1) and level of each kept unit: leaves evenly, each other unit over the middle of its children."""
    places: dict[int, tuple[float, int]] = {}
    leaves = 0
    total = sum(1 for unit in kept if not any(child in kept for child in children.get(unit, [])))
    stack: list[tuple[int, int, bool]] = [(root, 0, False)]
    while stack:
        unit, level, seen = stack.pop()
        inner = [child for child in children.get(unit, []) if child in kept]
        if not inner:
            places[unit] = ((leaves + 0.5) / total, level)
            leaves += 1
        elif seen:
            places[unit] = (float(np.mean([places[child][0] for child in inner])), level)
        else:
            stack.append((unit, level, True))
            stack += [(child, level + 1, False) for child in reversed(inner)]
    return places
