"""Pruning a forest: twice the trees are trained, the least used half of the units goes.

512 units in 32 trees (1-3-4) are trained, the 256 that the fewest training codes use go, and the rest is trained on.
Beside it a model of 256 units in 16 trees, trained from the start for as many steps. Energies are those of held-out
patches; times are the processor's, for the codes of 2,000 patches.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from lab import Lab, Trained
from torch import Tensor

from groundstate import Model
from groundstate.pruning import prune

BEFORE, AFTER = 15, 10
"""Epochs before and after the cut."""
ROUNDS = 3


def measure(lab: Lab) -> None:
    shared = {"data.path": str(lab.data("photos")), "backend.threads": 1}
    twice = {"model.decoder.units": 512, "energy.sparsity.branching": [32, 3, 4]}
    whole = lab.train(
        "tree-inhibition-patches", {**shared, **twice, "phases.learn.epochs": BEFORE}, label="twice the trees"
    )
    direct = lab.train(
        "tree-inhibition-patches", {**shared, "phases.learn.epochs": BEFORE + AFTER}, label="trained directly"
    )
    changes = {"phases.refine.epochs": AFTER, "phases.refine.schedule": "cosine"}
    left = [Trained("pruned", prune(run.folder, changes, keep=256).folder) for run in whole]
    lab.trained += left
    cuts = [run.record["pruned"] for run in left]
    energies = [run.metrics["test/energy"] for run in left]
    lab.row(
        "energy of the pruned model over that of one trained directly",
        [pruned / one.metrics["test/energy"] for pruned, one in zip(energies, direct, strict=True)],
        must="≤ 1.02",
        goal="≤ 1",
        note=f"mean energies: {np.mean([cut['energy'][0] for cut in cuts]):.2f} with 512 units, "
        f"{np.mean([cut['energy'][1] for cut in cuts]):.2f} once 256 are gone, {np.mean(energies):.2f} after "
        f"{AFTER} more epochs; trained directly {np.mean([one.metrics['test/energy'] for one in direct]):.2f}",
    )
    numbers = cuts[0]["parameters"]
    lab.row(
        "parameters after over before",
        [cut["parameters"][1] / cut["parameters"][0] for cut in cuts],
        must="< 1",
        note=f"{numbers[0]:,} before, {numbers[1]:,} after",
    )
    x = held_out(whole[0])
    lab.row(
        "time of codes after over before",
        [seconds(pruned.model, x) / seconds(run.model, x) for pruned, run in zip(left, whole, strict=True)],
        must="< 1",
    )


def held_out(run: Trained) -> Tensor:
    test = run.opened().splits.test
    assert test is not None
    return test.read(torch.arange(2000)).x


def seconds(model: Model, x: Tensor) -> float:
    """Of the processor, the least of a few rounds."""
    found = []
    for _ in range(ROUNDS):
        began = time.process_time()
        model.encode(x)
        found.append(time.process_time() - began)
    return min(found)
