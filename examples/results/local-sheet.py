"""A sheet of local filters over whole windows of photographs, untied: orientation map with pinwheels.

112×112 units see 64×64 pixels, 8×8 of them at each of 14×14 positions, every unit with a filter of its own; pools are
the 5×5 windows of the sheet, within a position and across positions. Weight and length were chosen with seed 100.
"""

from __future__ import annotations

import torch
from draw import draw_map
from lab import Lab, Trained
from matplotlib.figure import Figure
from torch import Tensor

from groundstate.orientation import OrientationMap, turn

SHOWN = 24
"""Units along each side of the part whose filters are drawn."""


def measure(lab: Lab) -> None:
    runs = lab.train("local-sheet-photos", {"data.path": str(lab.data("photos"))}, label="sheet of 112×112")
    maps = [OrientationMap.of(filters(run), wrap=False) for run in runs]
    lab.row(
        "orientation, neighbours on the sheet / all pairs",
        [one.orientation_ratio() for one in maps],
        must="≤ 0.5",
        goal="≤ 0.3",
    )
    lab.row(
        "orientation, neighbours at different positions / all pairs",
        [across(one, run) for one, run in zip(maps, runs, strict=True)],
        must="≤ 0.5",
        goal="≤ 0.3",
        note="units side by side that see windows 4 pixels apart",
    )
    lab.row("frequency, neighbours on the sheet / all pairs", [one.frequency_ratio() for one in maps])
    counts = [one.pinwheels() for one in maps]
    lab.row(
        "pinwheels on the sheet",
        [float(count.abs().sum()) for count in counts],
        must="≥ 5",
        note=", ".join(f"+{int((count > 0).sum())} −{int((count < 0).sum())}" for count in counts)
        + f"; shuffled about {shuffled(maps[0])}",
    )
    lab.picture(
        draw(runs[0]),
        f"Left: the filters of the sheet's middle, {SHOWN}×{SHOWN} of 112×112 units, each where it stands. Middle: the "
        "orientation of all units as colour, with pinwheels, clockwise (white) and anticlockwise (black). Right: their "
        "spatial frequency, in cycles per pixel.",
    )


def shuffled(found: OrientationMap) -> int:
    """Pinwheels of the same units in random places."""
    return int(found.shuffled(torch.Generator().manual_seed(0)).pinwheels().abs().sum())


def filters(run: Trained) -> Tensor:
    """(rows, columns, height, width)."""
    assert run.model.decoder is not None
    atoms = run.model.decoder.atoms()
    assert atoms is not None
    return atoms.detach()[0, :, :, 0]


def across(found: OrientationMap, run: Trained) -> float:
    """As ``orientation_ratio``, over the pairs of neighbours that stand at two positions."""
    assert run.model.decoder is not None
    block, angle = run.model.decoder.config.block, found.orientation
    down = turn(angle[block - 1 : -1 : block], angle[block::block]).abs()
    right = turn(angle[:, block - 1 : -1 : block], angle[:, block::block]).abs()
    mean = (down.sum() + right.sum()) / (down.numel() + right.numel())
    return found.orientation_ratio() * float(mean) / found.orientation_difference()


def draw(run: Trained) -> Figure:
    whole = filters(run)
    top, left = ((side - SHOWN) // 2 for side in whole.shape[:2])
    figure = Figure(figsize=(15, 6), layout="constrained")
    axes = figure.subplots(1, 3, gridspec_kw={"width_ratios": [1, 1.6, 1]})  # pinwheels are to be seen
    draw_map(list(axes), whole, shown=(slice(top, top + SHOWN), slice(left, left + SHOWN)), wrap=False)
    return figure
