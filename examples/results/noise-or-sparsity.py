"""Noise or sparsity: two limits on what a code can say, compared at equal bits on MNIST.

A linear encoder and a linear decoder of 64 units learn one of three ways: Gaussian noise with KL, L1, or L2 norms of
groups of four units; each with and without a classifier on the code, at five strengths.

Rate, in bits per code. Noise: the divergence of the code's Gaussian from the standard normal, what bits-back coding
takes. Sparse codes: each unit is rounded to multiples of a step, and the rate is the sum over the units of the
empirical entropies of the rounded values, what an entropy coder with a table per unit takes. The step is the one at
which rounding makes the distortion of validation images a tenth larger. Distortion is measured with what the rate pays
for: with the noise, or with the rounded code. Both rates treat units as independent.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lab import Lab, Trained
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
    "noise": (NOISE, "energy.divergence.weight", (0.012, 0.006, 0.003, 0.0015, 0.0008)),
    "L1": (SPARSE, "energy.sparsity.weight", (0.12, 0.09, 0.07, 0.05, 0.035)),
    "groups": (SPARSE, "energy.sparsity.weight", (0.17, 0.13, 0.1, 0.075, 0.05)),
}
TERMS = {"noise": {}, "L1": {"type": "l1"}, "groups": {"type": "group", "size": 4}}
RATES = (15, 20, 30, 50, 70)
EXCESS = 1.1


@dataclass(frozen=True)
class Measured:
    """One model on test images. distortion: unexplained share of ‖x‖²; error: of the classifier, 0 without one."""

    bits: float
    distortion: float
    error: float


def measure(lab: Lab) -> None:
    data = {"data.path": str(lab.data("mnist"))}
    curves: dict[tuple[str, bool], list[list[Measured]]] = {}
    for kind in KINDS:
        for task in (False, True):
            curves[kind, task] = [family(lab, kind, task, seed, data) for seed in lab.seeds]
            said = f"{kind}, {'with' if task else 'without'} classifier"
            at = [interpolated(curve, 30) for curve in curves[kind, task]]
            lab.row(f"unexplained at 30 bits, %: {said}", [100 * value for value in at])
    lab.finding = f"{finding(curves)}\n\n{table(curves)}"
    lab.picture(
        draw(curves),
        "Left: what a code of so many bits leaves unexplained, without (lines) and with (dashes) a classifier. Right: "
        "the classifier's error at the same rates. Bands: the seeds' range.",
    )


def family(lab: Lab, kind: str, task: bool, seed: int, data: Mapping[str, Any]) -> list[Measured]:
    """One kind of limit at its five strengths, the strongest first."""
    own, key, strengths = KINDS[kind]
    found = []
    for strength in strengths:
        given = {**SHARED, **data, **own, "name": f"noise-or-sparsity-{kind}"}
        if kind != "noise":
            given |= {"energy.divergence": False, "energy.sparsity": TERMS[kind]}
        if not task:
            given["energy.classification"] = False
        (run,) = lab.train("vae-mnist", {**given, key: strength}, label=label(kind, task), seeds=[seed])
        found.append(measured(run, kind))
    return found


def label(kind: str, task: bool) -> str:
    return f"{kind}{' + classifier' if task else ''}, five strengths"


def measured(run: Trained, kind: str) -> Measured:
    error = run.metrics.get("test/classification/error", 0.0)
    if kind == "noise":  # inputs have norm 1, and the term is half the squared distance
        return Measured(run.metrics["test/divergence/bits"], 2 * run.metrics["test/energy/reconstruction"], error)
    parts = run.opened().splits.parts()
    step = rounding(Coded.of(run, parts["validation"]))
    bits, distortion = Coded.of(run, parts["test"]).rounded(step)
    return Measured(bits, distortion, error)


@dataclass(frozen=True)
class Coded:
    """Inputs and their exact codes, found once. x: (m, n). code: (m, units)."""

    model: Model
    x: Tensor
    code: Tensor

    @classmethod
    def of(cls, run: Trained, source: Source) -> Coded:
        with torch.no_grad():
            return cls(run.model, source.read(torch.arange(len(source))).x, encode_source(run.model, source))

    def rounded(self, step: float) -> tuple[float, float]:
        """Bits per code and distortion with units rounded to multiples of the step."""
        with torch.no_grad():
            whole = torch.round(self.code / step)
            distortion = (self.x - self.model.decode(whole * step)).square().sum(1).mean()
        return float(sum(entropy(unit) for unit in whole.T)), float(distortion)


def rounding(coded: Coded) -> float:
    """The step of rounding at which the distortion is EXCESS times that of exact codes, by bisection."""
    goal = EXCESS * coded.rounded(1e-6)[1]
    low, high = 1e-6, 4.0
    for _ in range(20):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if coded.rounded(middle)[1] < goal else (low, middle)
    return low


def entropy(values: Tensor) -> float:
    """Bits of the empirical distribution of one unit's values."""
    share = values.unique(return_counts=True)[1].double() / len(values)
    return float(-(share * share.log2()).sum())


def interpolated(curve: list[Measured], bits: float) -> float:
    """The distortion at a rate, between the two nearest models; NaN outside what was measured."""
    points = sorted((one.bits, one.distortion) for one in curve)
    rates, distortions = zip(*points, strict=True)
    return float(np.interp(bits, rates, distortions, left=math.nan, right=math.nan))


def table(curves: Mapping[tuple[str, bool], list[list[Measured]]]) -> str:
    """Unexplained share at five rates, mean ± spread over seeds."""
    lines = ["| unexplained, % | " + " | ".join(f"{rate} bits" for rate in RATES) + " |", "| --- " * 6 + "|"]
    for (kind, task), found in curves.items():
        cells = []
        for rate in RATES:
            at = [100 * interpolated(curve, rate) for curve in found]
            spread = f" ± {statistics.stdev(at):.1f}" if len(at) > 1 else ""
            cells.append("–" if any(map(math.isnan, at)) else f"{statistics.fmean(at):.1f}{spread}")
        lines.append(f"| {kind}{' + classifier' if task else ''} | {' | '.join(cells)} |")
    return "\n".join(lines)


def finding(curves: Mapping[tuple[str, bool], list[list[Measured]]]) -> str:
    """Which limit leaves least unexplained where all were measured."""
    best = []
    for rate in RATES:
        at = {kind: statistics.fmean(interpolated(curve, rate) for curve in curves[kind, False]) for kind in KINDS}
        there = {kind: value for kind, value in at.items() if not math.isnan(value)}
        if len(there) == len(at):
            least = min(there, key=there.__getitem__)
            best.append(f"{least} at {rate} bits ({', '.join(f'{kind} {100 * v:.1f} %' for kind, v in at.items())})")
    return f"Least unexplained without a classifier: {'; '.join(best)}."


def draw(curves: Mapping[tuple[str, bool], list[list[Measured]]]) -> Figure:
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for (kind, task), found in curves.items():
        colour, style = f"C{list(KINDS).index(kind)}", "--" if task else "-"
        bits = np.array([[one.bits for one in curve] for curve in found])
        unexplained = 100 * np.array([[one.distortion for one in curve] for curve in found])
        left.plot(bits.mean(0), unexplained.mean(0), style, marker=".", color=colour, label=None if task else kind)
        left.fill_between(bits.mean(0), unexplained.min(0), unexplained.max(0), color=colour, alpha=0.2, lw=0)
        if task:
            error = 100 * np.array([[one.error for one in curve] for curve in found])
            right.plot(bits.mean(0), error.mean(0), style, marker=".", color=colour)
            right.fill_between(bits.mean(0), error.min(0), error.max(0), color=colour, alpha=0.2, lw=0)
    left.set(xlabel="bits per code", ylabel="unexplained, %")
    right.set(xlabel="bits per code", ylabel="test error, %")
    left.legend(frameon=False)
    return figure
