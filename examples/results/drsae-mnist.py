"""DrSAE on MNIST (Rolfe & LeCun 2013): 400 units, T = 11."""

from __future__ import annotations

from lab import Lab

PAPER = "1.08 (Rolfe & LeCun 2013); 0.92 the best without convolution in its table"


def measure(lab: Lab) -> None:
    data = {"data.path": str(lab.data("mnist"))}
    runs = lab.train("drsae-mnist", data, label="400 units, T = 11")
    lab.row(
        "test error, %",
        [100 * run.metrics["test/classification/error"] for run in runs],
        must="≤ 1.12",
        goal="≤ 0.92",
        reference=PAPER,
        note="at the epoch of the lowest validation error; 50,000 images to train, 10,000 for validation",
    )
    lab.row("minutes of training on one thread", [run.metrics["seconds"] / 60 for run in runs], must="≤ 30")
