"""Lateral inhibition: S as a sorted matrix, its strongest pairs as a graph, and trees drawn as trees."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from markupsafe import Markup
from torch import Tensor

from groundstate.report import trees
from groundstate.report.charts import ORANGE, drawing, svg, thumbnail
from groundstate.report.filters import Dictionary, dictionary
from groundstate.report.material import Material, render
from groundstate.report.pictures import as_pictures, picture, sheet, signed_tiles, tinted
from groundstate.report.words import count, number, percent
from groundstate.structure import Inhibition

LARGEST_MATRIX = 512
PAIRS = 12
EDGES = 40
"""Pairs in the graph of the strongest inhibition."""
WIDTH, TILE = 400, 20
"""Pixels of the graph and of a filter in it."""


def inhibition(material: Material) -> Markup | None:
    """Each term that is lateral inhibition: its matrix S, sorted where it is learned."""
    found = []
    for place, (name, term) in enumerate(material.model.energy.terms.items()):
        form = term.structure()
        if isinstance(form, Inhibition):
            learned = any(spec.direction == "ascend" for _, _, spec in term.declared())
            found.append(_part(material, f"inhibition{place}", name, form, learned))
    return Markup().join(found) if found else None


def _part(material: Material, key: str, name: str, form: Inhibition, learned: bool) -> Markup:
    matrix = form.matrix.detach().cpu().double()
    free = learned and form.parent is None
    order = seriation(matrix) if free else torch.arange(len(matrix))
    ordered = matrix[order][:, order]
    step = -(-len(ordered) // LARGEST_MATRIX)
    if step > 1:
        ordered = torch.nn.functional.max_pool2d(ordered[None, None], step, ceil_mode=True)[0, 0]
    largest = float(matrix.max())
    share = float((matrix > 0).double().sum()) / max(1, len(matrix) * (len(matrix) - 1))
    pixels = np.rint(255 * (ordered / max(largest, 1e-30)).clamp(0, 1).sqrt().numpy()).astype(np.uint8)
    alt = (
        f"Matrix of inhibition between {count(len(matrix), 'unit')}: {percent(share)} of the pairs inhibit each "
        f"other, the strongest by {number(largest, 3)}."
    )
    shown = dictionary(material)
    if shown is not None and len(shown.columns) != len(matrix):
        shown = None
    parent = None if form.parent is None else form.parent.cpu()
    return render(
        "inhibition",
        name=name,
        picture=tinted(pixels, alt),
        learned=learned,
        sorted=free,
        largest=largest,
        share=share,
        row_sum=float(matrix.sum(1).max()),
        pooled=step,
        pairs=None if parent is not None else _strongest(shown, matrix),
        graph=None if parent is not None else _graph(key, shown, matrix),
        edges=EDGES,
        tree=None if parent is None else trees.forest(material, key, parent, shown),
    )


def seriation(matrix: Tensor) -> Tensor:
    """An order of units in which each next one is inhibited most by one that came before (Prim's).

    Where several could be next, the one with the largest sum of its row.
    """
    strength = matrix.sum(1)
    ties = 1e-6 * matrix.max() * strength / strength.max().clamp_min(1e-30)
    nearness = torch.zeros_like(strength)
    order: list[int] = []
    for _ in range(len(matrix)):
        score = nearness + ties
        score[order] = -torch.inf
        order.append(int(score.argmax()))
        nearness = torch.maximum(nearness, matrix[order[-1]])
    return torch.tensor(order)


def _top(matrix: Tensor, amount: int) -> tuple[Tensor, Tensor, Tensor]:
    """The pairs with the largest entries, strongest first: units, units, entries."""
    above = matrix.triu(1)
    values, flat = above.flatten().topk(min(amount, int((above > 0).sum())))
    return flat // len(matrix), flat % len(matrix), values


def _strongest(shown: Dictionary | None, matrix: Tensor) -> Markup | None:
    """The filters of the pairs that inhibit each other most, one above the other."""
    first, second, _ = _top(matrix, PAIRS)
    if shown is None or not len(first):
        return None
    tiles = signed_tiles(as_pictures(shown.columns[torch.cat([first, second])], shown.shape))
    return picture(
        sheet(tiles, len(first)),
        f"The decoder filters of the {len(first)} pairs of units that inhibit each other most, one above the other.",
        css="strip",
    )


def _graph(key: str, shown: Dictionary | None, matrix: Tensor) -> Markup | None:
    """The strongest pairs as a graph with the filters at its nodes; None where no pair stands out."""
    import networkx

    first, second, values = _top(matrix, EDGES + 1)
    if shown is None or len(values) < 2 or float(values[-1]) > 0.99 * float(values[0]):
        return None
    links = list(zip(first.tolist(), second.tolist(), values.tolist(), strict=True))[:EDGES]
    graph = networkx.Graph()
    graph.add_weighted_edges_from(links)
    parts = sorted(networkx.connected_components(graph), key=lambda part: (-len(part), min(part)))
    places, height = packed([graph.subgraph(part) for part in parts])
    tiles = signed_tiles(as_pictures(shown.columns, shown.shape))
    with drawing(WIDTH, height, "the strongest inhibition") as (figure, axes):
        for one, two, value in links:
            (x, y), (x2, y2) = places[one], places[two]
            axes.plot((x, x2), (y, y2), color=ORANGE, linewidth=0.8 + 2.2 * value / links[0][2], zorder=1)
        for unit, (x, y) in places.items():
            thumbnail(axes, tiles[unit], x, y, TILE)
        alt = (
            f"Graph of the {len(links)} strongest entries of S between {graph.number_of_nodes()} units, drawn by their "
            f"filters: {count(len(parts), 'set')} of units hang together, of {len(parts[0])} units at most."
        )
        return svg(figure, f"{key}-graph", alt)


def packed(parts: list[Any]) -> tuple[dict[int, tuple[float, float]], float]:
    """Places of all nodes, and the height they take: parts side by side, each in a box that fits its nodes."""
    import networkx

    places: dict[int, tuple[float, float]] = {}
    x, y, row = 0.0, 20.0, 0.0
    for part in parts:
        side = min(WIDTH, TILE * (1 + 1.7 * len(part) ** 0.5))
        if x and x + side > WIDTH:
            x, y, row = 0.0, y + row, 0.0
        layout = networkx.kamada_kawai_layout(part, weight=None, scale=(side - TILE) / 2)
        top = min(float(dy) for _, dy in layout.values())
        tall = max(float(dy) for _, dy in layout.values()) - top + TILE
        for node, (dx, dy) in layout.items():
            places[node] = (x + side / 2 + float(dx), y + 2 + TILE / 2 + float(dy) - top)
        x, row = x + side + TILE, max(row, tall + 8)
    return places, y + row
