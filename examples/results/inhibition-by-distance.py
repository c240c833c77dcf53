"""Lateral inhibition by hand: 64 units on a ring, S between all that are more than four places apart.

The mean orientation difference between neighbours is divided by that between all pairs of units; a control is trained
the same way without inhibition. Reach, strength and forgetting were chosen with seeds 100 to 102.
"""

from __future__ import annotations

import torch
from draw import tiles_of
from lab import Lab, Trained
from matplotlib.figure import Figure
from torch import Tensor

from groundstate.orientation import OrientationMap

STRENGTHS = {"with S": 3.0, "control, S = 0": 0.0}


def measure(lab: Lab) -> None:
    shared = {"data.path": str(lab.data("photos")), "backend.type": "cpu-native", "backend.threads": 1}
    runs = {
        label: lab.train(
            "inhibition-by-distance-patches", {**shared, "energy.sparsity.strength": strength}, label=label
        )
        for label, strength in STRENGTHS.items()
    }
    for label, found in runs.items():
        maps = [OrientationMap.of(filters(run)) for run in found]
        lab.row(
            f"orientation, neighbours on the ring / all pairs: {label}",
            [one.orientation_ratio() for one in maps],
            must="≤ 0.5" if STRENGTHS[label] else "–",
            note=f"frequency {', '.join(f'{one.frequency_ratio():.2f}' for one in maps)}",
        )
    lab.picture(
        draw(runs),
        "The 64 filters of the ring in their order, row by row, each row above the next: with S (left) neighbours have "
        "like orientations, in runs with jumps between them; without (right) nothing makes them learn. Below, the "
        "orientation of each unit along the ring.",
    )


def filters(run: Trained) -> Tensor:
    """(1, units, height, width)."""
    assert run.model.decoder is not None
    return run.model.decoder.structure().matrix.detach().T.reshape(1, -1, 12, 12)


def draw(runs: dict[str, list[Trained]]) -> Figure:
    figure = Figure(figsize=(8, 5.4), layout="constrained")
    above, below = figure.subplots(2, len(runs), gridspec_kw={"height_ratios": [2.2, 1]})
    for top, bottom, (label, found) in zip(above, below, runs.items(), strict=True):
        whole = filters(found[0])
        top.imshow(tiles_of(whole[0].unflatten(0, (8, 8))), cmap="gray", interpolation="none")
        top.set_title(label)
        top.axis("off")
        bottom.plot(torch.rad2deg(OrientationMap.of(whole).orientation[0]), "o", markersize=3)
        bottom.set(xlabel="place on the ring", ylabel="orientation", ylim=(0, 180), yticks=[0, 45, 90, 135, 180])
    return figure
