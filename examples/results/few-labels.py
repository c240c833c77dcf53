"""Features of a convolutional group-sparse stack on MNIST, judged where labels are few.

Two layers learn without labels from 50,000 images; a linear classifier then learns from 10, 100 and 1,000 labelled
images of each class, its ridge strength chosen on the validation part. There are two controls with the same draws of
labels: the same net with the random filters that training began from, and that net with all its filters trained on the
labels alone, taken at the lowest of five looks at the error on validation images.
"""

from __future__ import annotations

import math
import statistics
import tomllib
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from lab import Lab, Trained
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional

from groundstate.data import Source, Splits
from groundstate.few_labels import draw_rows, evaluate_few_labels
from groundstate.run import MODEL
from groundstate.stack import Stack

TRAINED, RANDOM, ALONE = "trained", "random filters", "labels alone"
DRAWS = {10: 10, 100: 10, 1000: 1}
"""How many draws of so many labels per class the linear classifier sees."""
TUNED = {10: 3, 100: 2}
"""How many of them all filters are trained on, which takes minutes for each."""
STEPS = {10: 100, 100: 300}
RATE, SIZE, CHECKS, HELD = 1e-3, 50, 5, 1_000
"""Of training on labels: Adam's rate, images in a batch, and how often how many validation images are looked at."""
GAIN = 10.0
"""On features of norm 1, so that a classifier's weights of the usual size tell them apart."""
ASKED = {10: ("≤ 13", "≤ 8"), 100: ("≤ 4", "≤ 2.5"), 1000: ("≤ 2.0", "≤ 1.2")}
ELSEWHERE = {10: "20", 100: "8.1", 1000: "4.4"}
TICKS = (2, 3, 5, 10, 20)
"""Of the picture's errors, %."""
PIXELS = {10: "29.5", 100: "14.2", 1000: "9.1"}

Errors = Mapping[str, Mapping[int, list[float]]]
"""Test errors, %, of each arm at so many labels per class: one for each draw."""


def measure(lab: Lab) -> None:
    config = tomllib.loads((lab.root / "examples/conv-group-sparse-mnist.toml").read_text())
    data = {"data.path": str(lab.data("mnist")), "output.report": False}
    (trained,) = lab.train({"name": "few-labels", **config}, data, label=TRAINED, seeds=[0])
    layers = {
        name: {key: part for key, part in layer.items() if key != "phases"} for name, layer in config["layers"].items()
    }
    (control,) = lab.train({"name": "few-labels-random", **config, "layers": layers}, data, label=RANDOM, seeds=[0])
    found = {
        TRAINED: judged(trained),
        RANDOM: judged(control),
        ALONE: learned(control),
    }
    for count, (must, goal) in ASKED.items():
        lab.row(
            f"{count} labels per class: test error, %",
            found[TRAINED][count],
            must=must,
            goal=goal,
            reference=f"{ELSEWHERE[count]} (PSD 2008, 256 units, off its plot), {PIXELS[count]} raw pixels",
            note=f"each value a draw of the labels, {DRAWS[count]} in all",
        )
        for arm in (RANDOM, ALONE):
            if count not in found[arm]:
                continue
            draws = len(found[arm][count])
            note = "the same draws" if draws == DRAWS[count] else f"the first {draws} of these draws"
            lab.row(f"{count} labels per class: {arm}, %", found[arm][count], note=note)
    lab.picture(
        draw(found),
        "Test error against labels per class, by trained and random filters under a linear classifier, and with all "
        "filters trained on the labels (dashed); bars are the draws' standard deviation.",
    )
    lab.finding = finding(found)


def judged(run: Trained) -> dict[int, list[float]]:
    """By a linear classifier on the features as they are."""
    opened = run.opened()
    stack = Stack.load(run.folder / MODEL)
    found = evaluate_few_labels(stack, opened.inputs, list(DRAWS), draws=DRAWS)
    return {one.per_class: [100 * error for error in one.errors] for one in found}


def learned(run: Trained) -> dict[int, list[float]]:
    """With all parameters of the net trained on the labels."""
    splits = run.opened().inputs
    stack = Stack.load(run.folder / MODEL)
    return {
        count: [100 * fine_tuned(stack, splits, count, number) for number in range(draws)]
        for count, draws in TUNED.items()
    }


def fine_tuned(stack: Stack, splits: Splits, count: int, number: int) -> float:
    """Test error of a copy of the stack that learns one draw of labels, at its best on validation images."""
    assert splits.validation is not None
    assert splits.test is not None
    labels = splits.train.read(torch.arange(len(splits.train))).fields["y"].numpy()
    batch = splits.train.read(torch.from_numpy(draw_rows(labels, count, 0, number)))
    x, y = batch.x, batch.fields["y"]
    net = Classifier(deepcopy(stack), x[:500], len(np.unique(labels)))
    optimiser = torch.optim.Adam(net.parameters(), RATE)
    generator = torch.Generator().manual_seed(number)
    held = torch.arange(min(HELD, len(splits.validation)))
    best, kept = math.inf, deepcopy(net.state_dict())
    for step in range(1, STEPS[count] + 1):
        for group in optimiser.param_groups:
            group["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * step / STEPS[count]))
        rows = torch.randint(len(x), (SIZE,), generator=generator)
        optimiser.zero_grad()
        functional.cross_entropy(net(x[rows]), y[rows]).backward()
        optimiser.step()
        if step % (STEPS[count] // CHECKS) == 0:
            error = error_of(net, splits.validation, held)
            if error < best:
                best, kept = error, deepcopy(net.state_dict())
    net.load_state_dict(kept)
    return error_of(net, splits.test, torch.arange(len(splits.test)))


class Classifier(nn.Module):
    """A linear classifier, first zero, on a stack's features, whose mean square norm is first 1."""

    def __init__(self, stack: Stack, sample: Tensor, classes: int) -> None:
        super().__init__()
        self.stack = stack.requires_grad_()
        features = stack.encode(sample).flatten(1)
        self.scale = float(features.square().sum(1).mean().sqrt())
        self.top = nn.Linear(features.shape[1], classes)
        nn.init.zeros_(self.top.weight)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, *input_shape). Returns scores (batch, classes)."""
        scores: Tensor = self.top(self.stack(x).flatten(1) * (GAIN / self.scale))
        return scores


def error_of(net: Classifier, source: Source, rows: Tensor) -> float:
    """The share of these samples that are told wrong."""
    wrong = 0
    with torch.no_grad():
        for some in rows.split(500):
            batch = source.read(some)
            wrong += int((net(batch.x).argmax(1) != batch.fields["y"]).sum())
    return wrong / len(rows)


def spread_of(errors: list[float]) -> float:
    """The draws' standard deviation, 0 of one draw."""
    return statistics.stdev(errors) if len(errors) > 1 else 0.0


def finding(found: Errors) -> str:
    """What training without labels takes off the error of each control, beside the larger spread of the draws."""
    parts = []
    for arm in (RANDOM, ALONE):
        gains = []
        for count, other in found[arm].items():
            errors = found[TRAINED][count]
            gain = statistics.fmean(other) - statistics.fmean(errors)
            spread = max(map(spread_of, (errors, other)))
            gains.append(f"{gain:.1f} points at {count} labels per class (spread of the draws {spread:.1f})")
        parts.append(f"against {arm} {', '.join(gains)}")
    return f"Filters trained without labels take off, {'; '.join(parts)}."


def draw(found: Errors) -> Figure:
    figure = Figure(figsize=(5.5, 3.6), layout="constrained")
    axes: Any = figure.subplots()
    for arm, results in found.items():
        axes.errorbar(
            list(results),
            [statistics.fmean(errors) for errors in results.values()],
            yerr=[spread_of(errors) for errors in results.values()],
            marker="o",
            capsize=3,
            linestyle="--" if arm == ALONE else "-",
            label=arm,
        )
    axes.set(xscale="log", yscale="log", xlabel="labels per class", ylabel="test error, %")
    axes.set_xticks(list(DRAWS), [f"{count:,}" for count in DRAWS])
    axes.set_yticks(TICKS, [str(tick) for tick in TICKS])
    axes.minorticks_off()
    axes.legend(frameon=False)
    return figure
