"""What a task says of held-out samples: which classes it confuses, and whether its probabilities can be trusted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from markupsafe import Markup
from numpy.typing import NDArray

from groundstate.report.charts import BLUE, MUTED, chart, svg
from groundstate.report.material import Material, render
from groundstate.report.observe import Labels
from groundstate.report.words import percent

LARGEST_TABLE = 25
"""Classes that a confusion matrix can have as a table of numbers."""
BINS = 15
"""Of a reliability diagram, as in Guo et al. 2017."""


def confusion(material: Material) -> Markup | None:
    labels = material.observed.labels
    classes = material.splits.classes
    if labels is None or classes is None:
        return None
    matrix = torch.bincount(labels.truth * classes + labels.predicted, minlength=classes * classes)
    matrix = matrix.view(classes, classes)
    totals = matrix.sum(1)
    errors = 1 - matrix.diagonal() / totals.clamp_min(1)
    wrong = matrix.clone().fill_diagonal_(0)
    most = max(1, int(wrong.max()))
    rows = []
    for truth in range(classes):
        cells = [_cell(matrix, truth, guess, int(totals[truth]), most) for guess in range(classes)]
        rows.append((truth, cells, percent(float(errors[truth])), int(totals[truth])))
    pairs = [
        (int(place) // classes, int(place) % classes, int(wrong.flatten()[place]))
        for place in wrong.flatten().topk(min(5, classes * classes)).indices
        if wrong.flatten()[place] > 1
    ]
    return render(
        "confusion",
        rows=rows,
        classes=classes,
        table=classes <= LARGEST_TABLE,
        worst=sorted(rows, key=lambda row: -float(errors[row[0]]))[:10],
        pairs=pairs,
        **_counts(labels),
        whole=len(labels.truth) == material.run.record["data"]["samples"][material.observed.split],
        split=material.observed.split,
    )


def _cell(matrix: torch.Tensor, truth: int, guess: int, total: int, most: int) -> tuple[int, str, str]:
    """Count, kind and strength of the tint: hits by their share of the class, misses by the largest."""
    value = int(matrix[truth, guess])
    hit = truth == guess
    share = value / max(1, total) if hit else (value / most) ** 0.5
    return value, "hit" if hit else "miss" if value else "none", f"{share:.2f}"


def _counts(labels: Labels) -> dict[str, object]:
    wrong = int((labels.truth != labels.predicted).sum())
    return {"task": labels.task, "wrong": wrong, "samples": len(labels.truth)}


def calibration(material: Material) -> Markup | None:
    """Whether the probabilities of a task mean what they say: of the answers, 80 % sure, 80 % should be right."""
    labels = material.observed.labels
    if labels is None or labels.confidence is None:
        return None
    found = reliability(labels)
    return render(
        "calibration",
        picture=_reliability(found),
        found=found,
        samples=len(labels.truth),
        split=material.observed.split,
        task=labels.task,
        bins=BINS,
    )


@dataclass(frozen=True)
class Reliability:
    """Answers in bins of equal width by their probability: mean probability, share that is right, and how many.

    error: the expected calibration error, the mean of |right − sure| over answers (Guo et al. 2017).
    sure, right: means over all answers.
    """

    probability: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    count: NDArray[np.int64]
    error: float
    sure: float
    right: float


def reliability(labels: Labels) -> Reliability:
    """The calibration of a task's likeliest class."""
    assert labels.confidence is not None
    hit = (labels.truth == labels.predicted).numpy()
    sure = labels.confidence.double().clamp(0, 1).numpy()
    place = np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], sure)  # a bin: edge < value ≤ next edge
    count = np.bincount(place, minlength=BINS)
    there = count > 0
    accuracy, probability = (np.bincount(place, one, BINS)[there] / count[there] for one in (hit, sure))
    count = count[there]
    error = float((count * np.abs(accuracy - probability)).sum() / count.sum())
    return Reliability(probability, accuracy, count, error, float(sure.mean()), float(hit.mean()))


def _reliability(found: Reliability) -> Markup:
    with chart("reliability", "probability that the task gives its answer", "share that is right") as (figure, axes):
        axes.plot((0, 1), (0, 1), "--", color=MUTED, linewidth=1)
        axes.plot(found.probability, found.accuracy, color=BLUE, linewidth=1.5)
        area = 12 + 160 * np.sqrt(found.count / found.count.max())
        axes.scatter(found.probability, found.accuracy, area, color=BLUE, linewidths=0)
        axes.set_xlim(0, 1.03)
        axes.set_ylim(0, 1.05)
        pairs = ", ".join(
            f"{percent(right)} right at {percent(sure)}"
            for sure, right in zip(found.probability, found.accuracy, strict=True)
        )
        return svg(figure, "reliability", f"Reliability diagram: {pairs}.")
