"""Features of a convolutional group-sparse stack on MNIST, judged where labels are few.

Two layers learn without labels from 50,000 images, two epochs each; a linear classifier then learns from 10, 100 and
1,000 labelled images of each class. Its ridge strength is chosen on the validation part. The control is the same net
with the random filters that training began from.
"""

from __future__ import annotations

import tomllib
from typing import Any

from lab import Lab, Trained
from matplotlib.figure import Figure

from groundstate.few_labels import FewLabels, evaluate_few_labels
from groundstate.run import MODEL
from groundstate.stack import Stack

EPOCHS = 2
DRAWS = {10: 10, 100: 10, 1000: 1}
"""How many draws of so many labels per class: the classifier of 10,000 images takes minutes for each."""
ASKED = {10: ("≤ 13", "≤ 8"), 100: ("≤ 4", "≤ 2.5"), 1000: ("≤ 2.0", "≤ 1.2")}
ELSEWHERE = {10: "20", 100: "8.1", 1000: "4.4"}
TICKS = (2, 3, 5, 10, 20)
"""Of the picture's errors, %."""
PIXELS = {10: "29.5", 100: "14.2", 1000: "9.1"}


def measure(lab: Lab) -> None:
    config = tomllib.loads((lab.root / "examples/conv-group-sparse-mnist.toml").read_text())
    data = {"data.path": str(lab.data("mnist")), "output.report": False}
    epochs = {f"layers.{name}.phases.learn.epochs": EPOCHS for name in config["layers"]}
    (trained,) = lab.train({"name": "few-labels", **config}, {**data, **epochs}, label="trained", seeds=[0])
    layers = {
        name: {key: part for key, part in layer.items() if key != "phases"} for name, layer in config["layers"].items()
    }
    (control,) = lab.train(
        {"name": "few-labels-random", **config, "layers": layers}, data, label="random filters", seeds=[0]
    )
    found = {run.label: judged(run) for run in (trained, control)}
    for count, (must, goal) in ASKED.items():
        lab.row(
            f"{count} labels per class: test error, %",
            [100 * error for error in found["trained"][count].errors],
            must=must,
            goal=goal,
            reference=f"{ELSEWHERE[count]} (PSD 2008, 256 units, off its plot), {PIXELS[count]} raw pixels",
            note=f"each value a draw of the labels, {DRAWS[count]} in all",
        )
        lab.row(
            f"{count} labels per class: random filters, %",
            [100 * error for error in found["random filters"][count].errors],
            note="the same draws",
        )
    lab.picture(
        draw(found),
        "Test error against labels per class, by trained and random filters; bars are the draws' standard deviation.",
    )
    lab.finding = finding(found)


def judged(run: Trained) -> dict[int, FewLabels]:
    opened = run.opened()
    stack = Stack.load(run.folder / MODEL)
    found: dict[int, FewLabels] = {}
    for count, draws in DRAWS.items():
        (found[count],) = evaluate_few_labels(stack, opened.inputs, [count], draws=draws)
    return found


def finding(found: dict[str, dict[int, FewLabels]]) -> str:
    """What training takes off the error of random filters, beside the draws' larger spread."""
    parts = []
    for count, trained in found["trained"].items():
        control = found["random filters"][count]
        gain, spread = 100 * (control.error - trained.error), 100 * max(control.spread, trained.spread)
        draws = f"spread of the draws {spread:.1f}" if DRAWS[count] > 1 else "one draw"
        parts.append(f"{gain:.1f} points at {count} labels per class ({draws})")
    return (
        f"Trained filters against random ones take off {', '.join(parts)}. "
        "The same net trained on the labels alone was not measured."
    )


def draw(found: dict[str, dict[int, FewLabels]]) -> Figure:
    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axes: Any = figure.subplots()
    for label, results in found.items():
        axes.errorbar(
            list(results),
            [100 * result.error for result in results.values()],
            yerr=[100 * result.spread for result in results.values()],
            marker="o",
            capsize=3,
            label=label,
        )
    axes.set(xscale="log", yscale="log", xlabel="labels per class", ylabel="test error, %")
    axes.set_xticks(list(DRAWS), [f"{count:,}" for count in DRAWS])
    axes.set_yticks(TICKS, [str(tick) for tick in TICKS])
    axes.minorticks_off()
    axes.legend(frameon=False)
    return figure
