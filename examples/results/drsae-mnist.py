"""DrSAE on MNIST (Rolfe & LeCun 2013): 400 units, T = 11.

The error of three seeds, and what its units become: the angle between a unit's encoder row and decoder column tells
part-units, which draw strokes, from categorical-units, which draw whole digits.
"""

from __future__ import annotations

import numpy as np
from angles import CATEGORICAL, PART, SHOWN, angle_of, every_angle, sheet, used, valley
from lab import Lab, Trained
from matplotlib.figure import Figure
from numpy.typing import NDArray


def measure(lab: Lab) -> None:
    runs = lab.train("drsae-mnist", {"data.path": str(lab.data("mnist"))}, label="400 units, T = 11")
    lab.row(
        "test error, %",
        [100 * run.metrics["test/classification/error"] for run in runs],
        must="≤ 1.12",
        goal="≤ 0.92",
        reference="1.08 (Rolfe & LeCun 2013), 0.92 the best without convolution in its table",
        note="at the epoch of the lowest validation error; 50,000 images to train, 10,000 for validation",
    )
    lab.row(
        "minutes of training, one thread",
        [run.metrics["seconds"] / 60 for run in runs],
        must="≤ 30",
        note="by the clock: longer where other work shares the cores",
    )
    angles = [angle_of(run) for run in runs]
    lab.row("part-units (angle < 0.5), % of those in use", [100 * (one < PART).mean() for one in angles])
    lab.row("categorical-units (angle > 0.7), %", [100 * (one > CATEGORICAL).mean() for one in angles])
    lab.row(
        "valley between the two modes, over the lower mode",
        [valley(one) for one in angles],
        must="≤ 0.9",
        note="counts of units per 0.05 rad: the fewest between 0.5 and 0.7 over the lower of the two peaks beside it; "
        "1 where one of them is not there",
    )
    lab.picture(
        draw(runs[0], np.concatenate(angles)),
        "Left: the angle between a unit's encoder row and its decoder column, all seeds, with the paper's bounds of "
        "part-units and categorical-units (red): one mode and a tail. Middle: the classifier weighs units of all "
        "angles alike. Right: dictionary columns of the units with the narrowest (above) and the widest (below) "
        "angles, seed 0.",
    )


def draw(run: Trained, angles: NDArray[np.float64]) -> Figure:
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1, 1.25))
    left.hist(angles, np.arange(0, np.pi / 2, 0.04), color="0.45")
    for bound in (PART, CATEGORICAL):
        left.axvline(bound, color="C3", lw=1)
    left.set(xlabel="angle, radians", ylabel="units")
    own, active = every_angle(run), used(run)
    weight = run.model.terms["classification"].weight.detach().norm(dim=0).numpy()
    middle.scatter(own[active], weight[active], s=5, color="0.3")
    middle.set(xlabel="angle, radians", ylabel="norm of the unit's classifier column")
    columns = run.model.decoder.structure().matrix.detach().T.numpy()
    parts = [unit for unit in np.argsort(own) if active[unit]][:SHOWN]
    wholes = [unit for unit in np.argsort(-own) if active[unit]][:SHOWN]
    rows = [columns[group].reshape(-1, 28, 28) for group in (parts, wholes)]
    right.imshow(np.concatenate([sheet(tiles) for tiles in rows]), cmap="gray", vmin=-1, vmax=1)
    right.axhline(2 * 29 - 0.5, color="C3", lw=1)
    right.set_axis_off()
    return figure
