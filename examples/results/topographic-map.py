"""Topographic maps: 256 units on a 16×16 torus, group sparsity over its 3×3 or 5×5 windows.

Orientation and spatial frequency of a filter are the centroid of its Fourier power around the peak. The mean difference
between neighbours, beside and below each other, is divided by that between all pairs of units: 1 where places mean
nothing. Pinwheels are the squares of four units around which orientation turns by π.
"""

from __future__ import annotations

import torch
from draw import draw_map
from lab import Lab, Trained
from matplotlib.figure import Figure
from torch import Tensor

from groundstate.orientation import OrientationMap

SIDES = (16, 16)
WEIGHTS = {3: 1.0, 5: 0.8}
"""By side of the windows: a unit stands in 9 of them, or in 25. Chosen with seeds 100 and 101."""
SHUFFLES = 100


def measure(lab: Lab) -> None:
    runs: dict[int, list[Trained]] = {}
    for side, weight in WEIGHTS.items():
        own = {
            "data.path": str(lab.data("photos")),
            "energy.sparsity.window": [side, side],
            "energy.sparsity.weight": weight,
        }
        runs[side] = lab.train("topographic-map-patches", own, label=f"windows {side}×{side}")
    for side, found in runs.items():
        maps = [OrientationMap.of(filters(run)) for run in found]
        said = f"windows {side}×{side}"
        orientation = [one.orientation_ratio() for one in maps]
        goal = "≤ 0.20 (24×24, exact prox)"
        lab.row(f"{said}: orientation, neighbours / all pairs", orientation, must="≤ 0.35", goal=goal)
        lab.row(f"{said}: frequency, neighbours / all pairs", [one.frequency_ratio() for one in maps], must="≤ 0.55")
        counts = [one.pinwheels() for one in maps]
        chance = [shuffled(one) for one in maps]
        lab.row(
            f"{said}: pinwheels, share of a shuffled map's",
            [float(count.abs().sum()) / each for count, each in zip(counts, chance, strict=True)],
            must="≤ 0.333",
            note=f"pinwheels {', '.join(f'+{int((n > 0).sum())} −{int((n < 0).sum())}' for n in counts)}; shuffled "
            f"{', '.join(f'{each:.0f}' for each in chance)} (mean of {SHUFFLES})",
        )
    lab.picture(draw(runs), CAPTION)


CAPTION = (
    "Windows of 3×3 (above) and of 5×5 (below). Left: the filters where they stand on the torus: neighbours are alike. "
    "Middle: their orientation as colour, with pinwheels, around which all orientations follow each other, clockwise "
    "(white) and anticlockwise (black). Right: their spatial frequency, in cycles per pixel."
)


def filters(run: Trained) -> Tensor:
    """(rows, columns, height, width)."""
    assert run.model.decoder is not None
    return run.model.decoder.structure().matrix.detach().T.reshape(*SIDES, 12, 12)


def shuffled(found: OrientationMap) -> float:
    """Pinwheels of the same units in random places."""
    generator = torch.Generator().manual_seed(0)
    counts = [found.shuffled(generator).pinwheels().abs().sum() for _ in range(SHUFFLES)]
    return float(torch.stack(counts).double().mean())


def draw(runs: dict[int, list[Trained]]) -> Figure:
    figure = Figure(figsize=(10, 6.6), layout="constrained")
    rows = figure.subplots(len(runs), 3, gridspec_kw={"width_ratios": [1, 1.06, 1.06]})
    for axes, found in zip(rows, runs.values(), strict=True):
        draw_map(list(axes), filters(found[0]))
    return figure
