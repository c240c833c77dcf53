"""Noise or sparsity: two limits on what a code can say, compared at equal bits on MNIST.

A linear encoder and a linear decoder of 64 units learn one of three ways: Gaussian noise with KL, L1, or L2 norms of
groups of four units; each with and without a classifier on the code, at five strengths.

Rate, in bits per code. Noise: the divergence of the code's Gaussian from the standard normal, what bits-back coding
takes. Sparse codes: each unit is rounded to multiples of a step, and the rate is the sum over the units of the
empirical entropies of the rounded values, what an entropy coder with a table per unit takes. The step is the one at
which rounding makes the distortion of validation images a tenth larger. Distortion and the classifier's error are
measured with what the rate pays for: with the noise, or with the rounded code. Both rates treat units as independent.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from lab import Lab, Trained
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from groundstate import Model
from groundstate.data import Source
from groundstate.model import encode_source

SHARED: Mapping[str, Any] = {
    "data.train_samples": 10_000,
    "data.validation": 2_000,
    "phases.learn.epochs": 24,
    "learning.rate": 1e-2,
    "learning.monitor": "validation/energy",
    "tracking": False,
    "output.report": False,
}
SPARSE = {"model.encoder": {"type": "linear", "activation": "soft-threshold"}, "model.decoder.constraint": "sphere"}
NOISE = {"model.encoder.hidden": []}
KINDS: Mapping[str, tuple[Mapping[str, Any], str, tuple[float, ...]]] = {
    "noise": (NOISE, "energy.divergence.weight", (0.0145, 0.0065, 0.0035, 0.002, 0.0012)),
    "L1": (SPARSE, "energy.sparsity.weight", (0.1, 0.08, 0.065, 0.05, 0.031)),
    "groups": (SPARSE, "energy.sparsity.weight", (0.19, 0.12, 0.095, 0.075, 0.05)),
}
TERMS = {"noise": {}, "L1": {"type": "l1"}, "groups": {"type": "group", "size": 4}}
RATES = (12, 20, 30, 50, 75)
"""Bits per code at which all are compared; every arm's strengths reach from below the first to above the last."""
ROW = 30
"""Bits per code of the rows."""
EXCESS = 1.1


Quantity = Literal["distortion", "error"]
QUANTITIES: Mapping[Quantity, str] = {"distortion": "unexplained", "error": "test error"}


@dataclass(frozen=True)
class Measured:
    """One model on test images. distortion: unexplained share of ‖x‖²; error: of the classifier, 0 without one."""

    bits: float
    distortion: float
    error: float


Curve = list[Measured]
Curves = Mapping[tuple[str, bool], list[Curve]]
"""By kind and whether with classifier: one curve for each seed."""


def measure(lab: Lab) -> None:
    data = {"data.path": str(lab.data("mnist"))}
    curves: dict[tuple[str, bool], list[Curve]] = {}
    for kind in KINDS:
        for task in (False, True):
            curves[kind, task] = [family(lab, kind, task, seed, data) for seed in lab.seeds]
    for quantity, said in QUANTITIES.items():
        for (kind, task), found in curves.items():
            if task or quantity == "distortion":
                lab.row(f"{said} at {ROW} bits, %: {named(kind, task)}", at(found, ROW, quantity))
    lab.finding = "\n\n".join([finding(curves), *(table(curves, quantity) for quantity in QUANTITIES)])
    lab.picture(
        draw(curves),
        "Left: what a code of so many bits leaves unexplained, without (lines) and with (dashes) a classifier. Right: "
        "the classifier's error at the same rates. Bands: the seeds' range.",
    )


def family(lab: Lab, kind: str, task: bool, seed: int, data: Mapping[str, Any]) -> Curve:
    """One kind of limit at its five strengths, the strongest first."""
    own, key, strengths = KINDS[kind]
    found = []
    for strength in strengths:
        given = {**SHARED, **data, **own, "name": f"noise-or-sparsity-{kind}"}
        if kind != "noise":
            given |= {"energy.divergence": False, "energy.sparsity": TERMS[kind]}
        if not task:
            given["energy.classification"] = False
        label = f"{named(kind, task)}, five strengths"
        (run,) = lab.train("vae-mnist", {**given, key: strength}, label=label, seeds=[seed])
        found.append(measured(run, kind))
    return found


def named(kind: str, task: bool) -> str:
    return f"{kind}{' + classifier' if task else ''}"


def measured(run: Trained, kind: str) -> Measured:
    if kind == "noise":  # inputs have norm 1, and the term is half the squared distance
        error = run.metrics.get("test/classification/error", 0.0)
        return Measured(run.metrics["test/divergence/bits"], 2 * run.metrics["test/energy/reconstruction"], error)
    parts = run.opened().splits.parts()
    step = rounding(Coded.of(run, parts["validation"]))
    return Coded.of(run, parts["test"]).rounded(step)


@dataclass(frozen=True)
class Coded:
    """Inputs, their labels and their exact codes, found once. x: (m, n). code: (m, units)."""

    model: Model
    x: Tensor
    y: Tensor
    code: Tensor

    @classmethod
    def of(cls, run: Trained, source: Source) -> Coded:
        with torch.no_grad():
            batch = source.read(torch.arange(len(source)))
            return cls(run.model, batch.x, batch.fields["y"], encode_source(run.model, source))

    def rounded(self, step: float) -> Measured:
        """With units rounded to multiples of the step."""
        with torch.no_grad():
            whole = torch.round(self.code / step)
            distortion = (self.x - self.model.decode(whole * step)).square().sum(1).mean()
            terms, error = self.model.terms, 0.0
            if "classification" in terms:
                error = float(terms["classification"].metrics(whole * step, self.y)["error"].mean())
        return Measured(sum(map(entropy, whole.T)), float(distortion), error)


def rounding(coded: Coded) -> float:
    """The step of rounding at which the distortion is EXCESS times that of exact codes, by bisection."""
    goal = EXCESS * coded.rounded(1e-6).distortion
    low, high = 1e-6, 4.0
    for _ in range(20):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if coded.rounded(middle).distortion < goal else (low, middle)
    return low


def entropy(values: Tensor) -> float:
    """Bits of the empirical distribution of one unit's values."""
    share = values.unique(return_counts=True)[1].double() / len(values)
    return float(-(share * share.log2()).sum())


def at(found: list[Curve], bits: float, quantity: Quantity) -> list[float]:
    """A quantity at a rate, %, for each seed: between the two nearest models, linear in log bits; NaN outside them."""
    values = []
    for curve in found:
        points = sorted((math.log(one.bits), getattr(one, quantity)) for one in curve)
        values.append(100 * float(np.interp(math.log(bits), *zip(*points, strict=True), left=math.nan, right=math.nan)))
    return values


def table(curves: Curves, quantity: Quantity) -> str:
    """The quantity at five rates, mean ± spread over seeds."""
    lines = [
        f"| {QUANTITIES[quantity]}, % | {' | '.join(f'{rate} bits' for rate in RATES)} |",
        "| --- " * (len(RATES) + 1) + "|",
    ]
    for (kind, task), found in curves.items():
        if quantity == "error" and not task:
            continue
        cells = []
        for rate in RATES:
            values = at(found, rate, quantity)
            spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
            cells.append("–" if any(map(math.isnan, values)) else f"{statistics.fmean(values):.1f}{spread}")
        lines.append(f"| {named(kind, task)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def finding(curves: Curves) -> str:
    """At which rates sparsity is better or worse than noise by more than the seeds' spread."""
    parts = []
    for quantity, said in QUANTITIES.items():
        task = quantity == "error"
        for kind in KINDS:
            if kind != "noise":
                less, more = compared(curves[kind, task], curves["noise", task], quantity)
                parts.append(f"{named(kind, task)}: {said} lower at {listed(less)}, higher at {listed(more)}")
    return f"Against noise at equal bits, by more than the seeds' spread: {'; '.join(parts)}."


def compared(own: list[Curve], other: list[Curve], quantity: Quantity) -> tuple[list[int], list[int]]:
    """The rates where the first curves' mean is below, and where above the others' by more than either's spread."""
    less, more = [], []
    for rate in RATES:
        here, there = at(own, rate, quantity), at(other, rate, quantity)
        spread = max(statistics.stdev(here), statistics.stdev(there)) if len(here) > 1 else 0.0
        gap = statistics.fmean(here) - statistics.fmean(there)
        if abs(gap) > spread:  # never where one was not measured
            (less if gap < 0 else more).append(rate)
    return less, more


def listed(rates: list[int]) -> str:
    return f"{', '.join(map(str, rates))} bits" if rates else "none"


def draw(curves: Curves) -> Figure:
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    drawn: tuple[tuple[Axes, Quantity], ...] = ((left, "distortion"), (right, "error"))
    for (kind, task), found in curves.items():
        colour, style = f"C{list(KINDS).index(kind)}", "--" if task else "-"
        for axes, quantity in drawn:
            if task or quantity == "distortion":
                values = np.array([at(found, rate, quantity) for rate in RATES])
                name = kind if quantity == "distortion" and not task else None
                axes.plot(RATES, values.mean(1), style, marker=".", color=colour, label=name)
                axes.fill_between(RATES, values.min(1), values.max(1), color=colour, alpha=0.2, lw=0)
    left.set(xlabel="bits per code", ylabel="unexplained, %")
    right.set(xlabel="bits per code", ylabel="test error, %")
    left.legend(frameon=False)
    return figure
