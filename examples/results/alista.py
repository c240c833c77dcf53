"""ALISTA on synthetic sparse codes: 250 × 500 Gaussian dictionary, 10 % non-zeros, 40 dB, 16 layers.

The setting and the figures to compare with are those of Liu, Chen, Wang & Yin 2019. Each seed draws another dictionary,
other codes and other noise. ISTA and FISTA run as many iterations, with the weight of the L1 term that is best on
validation data.
"""

from __future__ import annotations

import math

import torch
from lab import Lab, Trained
from matplotlib.figure import Figure
from torch import Tensor

from groundstate import Batch, infer
from groundstate_plugins.regularisers.l1 import L1
from groundstate_plugins.solvers.fista import Fista
from groundstate_plugins.solvers.ista import Ista

WEIGHTS = (0.01, 0.03, 0.1, 0.2, 0.4)
STEPS = 16


def measure(lab: Lab) -> None:
    runs: list[Trained] = []
    for seed in lab.seeds:
        own = {"data.dictionary_seed": seed, "data.sample_seed": seed, "model.decoder.seed": seed}
        runs += lab.train("alista-gaussian", own, label="16 layers", seeds=[seed])
    lab.row(
        "NMSE, dB: analytic weights",
        [nmse(run.metrics["test/target/error"] / run.metrics["test/target/signal"]) for run in runs],
        must="≤ −35",
        goal="≤ −39",
        reference="−39.1 (logs of Liu et al. 2019)",
    )
    curves = {"ALISTA": [learned(run) for run in runs]}
    for name, solver, reference in (("ISTA", Ista, "−5.8"), ("FISTA", Fista, "−7.6")):
        curves[name] = [solved(run, solver) for run in runs]
        said = f"{reference} (logs of Liu et al. 2019)"
        lab.row(f"NMSE, dB: {name}, {STEPS} iterations", [curve[-1] for curve in curves[name]], reference=said)
    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axes = figure.subplots()
    for name, found in curves.items():
        for number, curve in enumerate(found):
            colour = f"C{list(curves).index(name)}"
            axes.plot(range(1, STEPS + 1), curve, color=colour, label=None if number else name)
    axes.set(xlabel="layer or iteration", ylabel="NMSE, dB")
    axes.legend(frameon=False)
    lab.picture(
        figure,
        "Distance from the true code after each layer or iteration: with learned steps and thresholds it falls by a "
        "factor per layer, while ISTA and FISTA have hardly begun. One line per seed.",
    )


def nmse(ratio: float) -> float:
    return 10 * math.log10(ratio)


def distance(z: Tensor, batch: Batch) -> float:
    target = batch.fields["target"]
    return nmse(float((z - target).square().sum() / target.square().sum()))


def read(run: Trained, split: str) -> Batch:
    source = run.opened().splits.parts()[split]
    return source.read(torch.arange(len(source)))


def learned(run: Trained) -> list[float]:
    batch, encoder = read(run, "test"), run.model.encoder
    assert encoder is not None
    with torch.no_grad():
        codes = encoder.iterates(batch.x)
        assert codes is not None
        return [distance(z, batch) for z in codes]


def solved(run: Trained, solver: type[Ista] | type[Fista]) -> list[float]:
    """The curve on test data with the weight that ends lowest on validation data."""
    validation, test = read(run, "validation"), read(run, "test")
    best = min(WEIGHTS, key=lambda weight: curve(run, solver, weight, validation)[-1])
    return curve(run, solver, best, test)


def curve(run: Trained, solver: type[Ista] | type[Fista], weight: float, batch: Batch) -> list[float]:
    assert run.model.decoder is not None
    found: list[float] = []
    infer(
        batch.x,
        dictionary=run.model.decoder.structure().matrix,
        terms=[L1(weight=weight)],
        solver=solver(tolerance=0.0, max_iterations=STEPS),
        callback=lambda iteration, rows, state, certificate: found.append(distance(state.code, batch)),
    )
    return found
