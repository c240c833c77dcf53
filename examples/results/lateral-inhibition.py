"""Lateral inhibition that is learned: S ascends |z|ᵀS|z|, so that units that fired together come apart.

A dictionary of 256 units is learned without inhibition first. From there on S ascends, with rows' sums of 5 at most,
while the dictionary goes on to descend. Two controls go on from the same dictionary: with the same sum of inhibition
spread evenly over all pairs, and with S left at 0, where descent holds it: ∂E/∂S = |z||z|ᵀ is never negative.
"""

from __future__ import annotations

import math

import networkx
import numpy as np
import torch
from lab import Lab, Trained
from matplotlib.figure import Figure
from torch import Tensor

from groundstate.files import replacing
from groundstate.orientation import tuning, turn
from groundstate.report.inhibition import TILE, WIDTH, packed
from groundstate.report.pictures import signed_tiles

UNITS, ROW_SUM, SAMPLES = 256, 5.0, 2000
SHARE = 0.01
"""Of the pairs, those with the largest S, or those that fired together most."""
EDGES = 40
"""Pairs in the graph."""
GREYS = 6


def measure(lab: Lab) -> None:
    shared = {"data.path": str(lab.data("photos")), "model.decoder.units": UNITS, "energy.sparsity.row_sum": ROW_SUM}
    shared |= {"backend.type": "cpu-native", "backend.threads": 1}
    still = {"phases.learn.freeze": ["terms.sparsity"]}
    even = {"energy.sparsity.rule": "constant", "energy.sparsity.strength": ROW_SUM / (UNITS - 1)}
    before = lab.train("lateral-inhibition-patches", {**shared, **still}, label="before")
    after: dict[str, list[Trained]] = {"ascent": [], "constant S": [], "descent": []}
    for run in before:
        given = {**shared, "model.decoder.dictionary": str(saved(run))}
        for label, own in (("ascent", {}), ("constant S", {**even, **still}), ("descent", still)):
            config = "lateral-inhibition-patches"
            after[label] += lab.train(config, {**given, **own}, label=label, seeds=[run.record["seed"]])
    strongest = [largest(inhibition(run)) for run in after["ascent"]]
    apart = [orientation_difference(run) for run in after["ascent"]]
    lab.row(
        "orientation difference of the pairs with the largest 1 % of S, degrees",
        [float(difference[pairs].mean()) for difference, pairs in zip(apart, strongest, strict=True)],
        must="≤ 20",
        note=f"all pairs: {np.mean([float(d.mean()) for d in apart]):.1f}",
    )
    alike = [cosine(run) for run in after["ascent"]]
    lab.row(
        "|cos| of their filters, times that of all pairs",
        [float(value[pairs].mean() / value.mean()) for value, pairs in zip(alike, strongest, strict=True)],
        must="≥ 2",
        note=f"of S's pairs {np.mean([float(v[p].mean()) for v, p in zip(alike, strongest, strict=True)]):.2f}, "
        f"all pairs {np.mean([float(v.mean()) for v in alike]):.2f}",
    )
    # the pairs are chosen on validation data and measured on test data, or their number would fall by chance alone
    chosen = [largest(together(run, "validation")) for run in before]
    first = [float(together(run, "test")[pairs].mean()) for run, pairs in zip(before, chosen, strict=True)]
    for label, runs in after.items():
        last = [float(together(run, "test")[pairs].mean()) for run, pairs in zip(runs, chosen, strict=True)]
        lab.row(
            f"co-activation of the 1 % of pairs that fired together most, share of what it was: {label}",
            [now / then for now, then in zip(last, first, strict=True)],
            must="≤ 0.333" if label == "ascent" else "–",
            note=f"samples with both active, of those with either: {np.mean(first):.3f} before, {np.mean(last):.3f} "
            f"after; active {100 * np.mean([run.metrics['test/code/density'] for run in runs]):.1f} % of a code",
        )
    run = after["ascent"][0]
    lab.picture(
        draw(run),
        "Left: S after the ascent, units sorted by their filters' orientation: the band along the diagonal is "
        f"inhibition between units of like orientation. Right: its {EDGES} strongest pairs as a graph, each unit drawn "
        "by its filter: what inhibits each other looks alike.",
    )


def saved(run: Trained) -> str:
    """The dictionary of a run as a file beside it."""
    file = run.folder / "dictionary.npy"
    with replacing(file) as temporary, temporary.open("wb") as stream:
        np.save(stream, filters(run).T.numpy())
    return str(file)


def filters(run: Trained) -> Tensor:
    """(units, pixels)."""
    assert run.model.decoder is not None
    return run.model.decoder.structure().matrix.detach().T


def inhibition(run: Trained) -> Tensor:
    matrix: Tensor = run.model.energy.terms["sparsity"].structure().matrix
    return of_pairs(matrix.detach())


def of_pairs(matrix: Tensor) -> Tensor:
    """The entries above the diagonal, (pairs,)."""
    first, second = torch.triu_indices(len(matrix), len(matrix), 1)
    return matrix[first, second]


def largest(values: Tensor) -> Tensor:
    """The numbers of the pairs with the largest values."""
    return values.topk(round(SHARE * len(values))).indices


def orientation(run: Trained) -> Tensor:
    side = math.isqrt(filters(run).shape[1])
    return tuning(filters(run).view(-1, side, side)).orientation


def orientation_difference(run: Trained) -> Tensor:
    """(pairs,), degrees."""
    angle = orientation(run)
    return of_pairs(torch.rad2deg(turn(angle[:, None], angle[None, :]).abs()))


def cosine(run: Trained) -> Tensor:
    unit = torch.nn.functional.normalize(filters(run).double(), dim=1)
    return of_pairs((unit @ unit.T).abs())


def together(run: Trained, split: str) -> Tensor:
    """By pair: the samples in which both units are active, of those in which either is."""
    source = run.opened().splits.parts()[split]
    active = (run.model.infer(source.read(torch.arange(SAMPLES)).x).code > 0).double()
    both, alone = active.T @ active, active.sum(0)
    return of_pairs(both / (alone[:, None] + alone[None, :] - both).clamp_min(1))


def draw(run: Trained) -> Figure:
    matrix = run.model.energy.terms["sparsity"].structure().matrix.detach()
    order = orientation(run).argsort()
    side = math.isqrt(filters(run).shape[1])
    tiles = signed_tiles(filters(run).view(-1, side, side).numpy())
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    # few greys and a pixel for two units: noise makes large pictures
    pooled = torch.nn.functional.max_pool2d(matrix[order][:, order][None], 2)[0]
    shade = (GREYS * (pooled / pooled.max()).sqrt()).round()
    left.imshow(shade, cmap="Greys", interpolation="none", extent=(0, UNITS, UNITS, 0))
    degrees = torch.rad2deg(orientation(run)[order])
    places = [int((degrees < angle).sum()) for angle in (0, 45, 90, 135)]
    for axis in (left.xaxis, left.yaxis):
        axis.set_ticks(places, ["0°", "45°", "90°", "135°"])
    left.set_title("√S, units sorted by orientation")
    pairs = of_pairs(matrix).topk(EDGES).indices
    first, second = torch.triu_indices(len(matrix), len(matrix), 1)[:, pairs]
    graph = networkx.Graph()
    graph.add_edges_from(zip(first.tolist(), second.tolist(), strict=True))
    parts = sorted(networkx.connected_components(graph), key=len, reverse=True)
    position, height = packed([graph.subgraph(part) for part in parts])
    for one, two in graph.edges:
        right.plot(*zip(position[one], position[two], strict=True), color="C1", zorder=1)
    half = TILE / 2
    for unit, (x, y) in position.items():
        right.imshow(tiles[unit], cmap="gray", extent=(x - half, x + half, y + half, y - half), zorder=2)
    right.set(xlim=(0, WIDTH), ylim=(height, 0), title=f"the {EDGES} strongest pairs")
    right.axis("off")
    return figure
