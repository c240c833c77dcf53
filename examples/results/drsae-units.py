"""DrSAE's units (Rolfe & LeCun 2013): what the angle between encoder row and decoder column depends on.

200 units, T = 11, 10,000 images: small models that show where the angles come from, not the best error. After the phase
without labels; after the phase with labels, where Adam moves an entry of tiny gradient as fast as any other; and with
Adam's epsilon so large that such entries stay, as they do under the paper's plain gradient descent.
"""

from __future__ import annotations

import numpy as np
import torch
from angles import CATEGORICAL, PART, SHOWN, angle_of, every_angle, sheet, used, valley
from lab import Lab, Trained
from matplotlib.figure import Figure
from numpy.typing import NDArray

SMALL = {
    "model.decoder.units": 200,
    "data.train_samples": 10_000,
    "data.validation": 1_000,
    "phases.unsupervised.epochs": 4,
    "output.report": False,
}
UNLABELLED = {
    "phases.joint": False,
    "phases.unsupervised.terms": False,
    "energy.classification": False,
    "learning.monitor": "validation/energy",
}
LABELLED = {"phases.joint.epochs": 40}
ARMS = {
    "before labels": UNLABELLED,
    "with labels": LABELLED,
    "with labels, ε = 0.003": {**LABELLED, "learning.epsilon": 3e-3, "learning.rate": 1e-2},
}


def measure(lab: Lab) -> None:
    shared = {"data.path": str(lab.data("mnist")), **SMALL}
    arms = {name: lab.train("drsae-mnist", {**shared, **own}, label=name) for name, own in ARMS.items()}
    for name, runs in arms.items():
        angles = [angle_of(run) for run in runs]
        lab.row(f"part-units (angle < {PART}), %: {name}", [100 * (one < PART).mean() for one in angles])
        lab.row(f"categorical-units (angle > {CATEGORICAL}), %: {name}", share_above(angles))
        if name != "before labels":
            lab.row(f"test error, %: {name}", [100 * run.metrics["test/classification/error"] for run in runs])
    felt = [weighed(run) for run in arms["with labels"]]
    lab.row("categorical-units, %: with labels, angle weighed by the data", share_above(felt))
    large = arms["with labels, ε = 0.003"]
    lab.row("valley between the two modes, over the lower mode: ε = 0.003", [valley(angle_of(run)) for run in large])
    lab.picture(
        draw(arms),
        "Left: the angles before labels, with them, and with a large ε, with the paper's bounds (red). Middle: with "
        "labels, as they are and as the data feel them, in the metric of E[xxᵀ]. Right: dictionary columns of the "
        "units with the narrowest (above) and the widest angles (below), ε = 0.003.",
    )


def share_above(angles: list[NDArray[np.float64]]) -> list[float]:
    return [100 * float((one > CATEGORICAL).mean()) for one in angles]


def weighed(run: Trained) -> NDArray[np.float64]:
    """The angle of each unit in use between E x and Dᵀ x over test images: pixels that never differ count nothing."""
    test = run.opened().splits.test
    assert test is not None
    x = test.read(torch.arange(len(test))).x.double()
    row, column = run.model.encoder.feedforward.detach().double(), run.model.decoder.structure().matrix.T.double()
    with torch.no_grad():
        cosine = torch.cosine_similarity(x @ row.T, x @ column.T, dim=0)
    angle: NDArray[np.float64] = cosine.clamp(-1, 1).arccos().numpy()[used(run)]
    return angle


def draw(arms: dict[str, list[Trained]]) -> Figure:
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1, 1.25))
    bins = np.arange(0, np.pi / 2, 0.05)
    for name, runs in arms.items():
        left.hist(np.concatenate([angle_of(run) for run in runs]), bins, histtype="step", lw=1.5, label=name)
    plain = arms["with labels"]
    middle.hist(np.concatenate([angle_of(run) for run in plain]), bins, histtype="step", color="C1", label="plain")
    middle.hist(np.concatenate([weighed(run) for run in plain]), bins, color="0.6", label="weighed by the data")
    for axes in (left, middle):
        axes.set(xlabel="angle, radians", ylabel="units")
        axes.legend(frameon=False, fontsize="small")
        for bound in (PART, CATEGORICAL):
            axes.axvline(bound, color="C3", lw=1)
    run = arms["with labels, ε = 0.003"][0]
    own, active = every_angle(run), used(run)
    columns = run.model.decoder.structure().matrix.detach().T.numpy()
    order = [unit for unit in np.argsort(own) if active[unit]]
    rows = [columns[group].reshape(-1, 28, 28) for group in (order[:SHOWN], order[::-1][:SHOWN])]
    right.imshow(np.concatenate([sheet(tiles) for tiles in rows]), cmap="gray", vmin=-1, vmax=1)
    right.axhline(2 * 29 - 0.5, color="C3", lw=1)
    right.set_axis_off()
    return figure
