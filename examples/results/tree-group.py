"""Tree-structured groups against flat sparsity: missing pixels of 8×8 patches filled in.

After Jenatton, Mairal, Obozinski & Bach 2011, section 5.2. Dictionaries are learned on complete patches (intensity,
without their mean) with the norms of a tree's nested groups, and flat ones with ‖z‖₁. Then pixels of held-out patches
go missing at random, codes explain the rest, and the error is that of the missing pixels, relative to their sum of
squares. For each kind and share of missing pixels, the dictionary (of three trees, and of four weights in training
without one) and the weight of the codes are those that are best on validation patches of seed 0. With flat weights of 2
and 4 alone, measured first, the ratios of seed 0 were 0.957, 0.941, 0.958, 0.947 and 0.978; with patches of unit norm,
0.967, 0.972, 0.956, 0.988 and 1.02 (three seeds).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lab import Lab, Trained
from matplotlib.figure import Figure
from torch import Tensor

from groundstate import Model
from groundstate_plugins.decoders.linear import LinearDecoder
from groundstate_plugins.reconstructions.masked_squared_error import MaskedSquaredError
from groundstate_plugins.solvers.fista import Fista

MISSING = {0.5: 0.964, 0.6: 0.959, 0.7: 0.954, 0.8: 0.949, 0.9: 0.914}
"""By the share of missing pixels: the paper's error with the tree over that without."""
TREES: dict[str, dict[str, Any]] = {
    "1-20-40-80, λ = 1": {"branching": [1, 20, 2, 2], "decay": 0.7, "weight": 1.0},
    "1-20-40-80, λ = 2": {"branching": [1, 20, 2, 2], "decay": 0.7, "weight": 2.0},
    "1-4-16-64, λ = 2": {"branching": [1, 4, 4, 4], "decay": 0.7, "weight": 2.0},
}
FLAT: dict[str, dict[str, Any]] = {f"λ = {weight:g}": {"weight": weight} for weight in (2.0, 4.0, 8.0, 16.0)}
"""By their names: the dictionaries of a kind, as the sparsity in training."""
WEIGHTS = (0.01, 0.03, 0.1, 0.3)
"""Of codes of masked patches, that are tried."""
PATCHES = {"validation": 300, "test": 1000}


@dataclass(frozen=True)
class Choice:
    """A dictionary by its name, and the weight of codes."""

    name: str
    weight: float


def measure(lab: Lab) -> None:
    shared = {"data.path": str(lab.data("photos")), "backend.threads": 1}
    kinds = {"tree": ("tree-group", TREES), "flat": ("l1", FLAT)}
    runs: dict[str, dict[str, list[Trained]]] = {}
    for kind, (term, dictionaries) in kinds.items():
        runs[kind] = {}
        for name, fields in dictionaries.items():
            units = int(np.cumprod(fields.get("branching", [1, 20, 2, 2])).sum())
            own = {"model.decoder.units": units, "energy.sparsity": {"type": term, **fields}}
            runs[kind][name] = lab.train("tree-group-patches", {**shared, **own}, label=f"{kind}, {name}")
    parts = runs["tree"]["1-20-40-80, λ = 2"][0].opened().splits.parts()
    validation, test = (parts[name].read(torch.arange(count)).x for name, count in PATCHES.items())
    errors: dict[str, list[list[float]]] = {}
    for kind, found in runs.items():
        chosen = {
            share: choose({name: seeds[0] for name, seeds in found.items()}, validation, share) for share in MISSING
        }
        errors[kind] = [
            [error(found[choice.name][seed], choice.weight, test, share) for share, choice in chosen.items()]
            for seed in range(len(lab.seeds))
        ]
    tree, flat = (np.array(errors[kind]) for kind in ("tree", "flat"))
    for place, (share, paper) in enumerate(MISSING.items()):
        lab.row(
            f"{100 * share:.0f} % missing: error with the tree over that without",
            (tree / flat)[:, place],
            must="≤ 0.95" if share == 0.9 else "< 1",
            goal=f"≤ {paper}",
            reference=f"{paper} (Jenatton et al. 2011)",
            note=f"{100 * tree[:, place].mean():.1f} % against {100 * flat[:, place].mean():.1f} %",
        )
    lab.picture(
        draw(tree / flat),
        "Error of the missing pixels with a tree over that of a flat dictionary, a line for each seed; below 1 the "
        "tree is better. The paper's figures, on other photographs, are dashed.",
    )


def choose(runs: dict[str, Trained], x: Tensor, share: float) -> Choice:
    """What is best on validation patches."""
    choices = [Choice(name, weight) for name in runs for weight in WEIGHTS]
    return min(choices, key=lambda one: error(runs[one.name], one.weight, x, share))


def error(run: Trained, weight: float, x: Tensor, share: float) -> float:
    """Relative squared error of the missing pixels, which the same seed draws for all dictionaries."""
    assert run.model.decoder is not None
    matrix = run.model.decoder.structure().matrix.detach()
    trained = run.model.energy.terms["sparsity"]
    term = type(trained)(**{**dict(trained.config), "weight": weight})
    model = Model(
        decoder=LinearDecoder(units=matrix.shape[1], constraint="none"),
        terms={"reconstruction": MaskedSquaredError(), "sparsity": term},
        solver=Fista(tolerance=1e-3, max_iterations=100),
    ).build(x.shape[1:])
    model.load_state_dict({"decoder.dictionary": matrix}, strict=False)
    mask = known_pixels(len(x), x.shape[1], share)
    missing = 1 - mask
    found = model.decode(model.encode(mask * x, mask=mask)).detach()
    return float((missing * (found - x)).double().square().sum() / (missing * x).double().square().sum())


def known_pixels(patches: int, pixels: int, share: float) -> Tensor:
    """1 where a pixel is known, (patches, pixels); of each patch as many are missing."""
    order = torch.rand(patches, pixels, generator=torch.Generator().manual_seed(0)).argsort(1)
    return (order < round(pixels * (1 - share))).float()


def draw(ratio: np.ndarray) -> Figure:
    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axes = figure.subplots()
    shares = [100 * share for share in MISSING]
    axes.axhline(1, color="0.6", linewidth=0.8)
    axes.plot(shares, ratio.T, "o-", color="C0", markersize=4, linewidth=1)
    axes.plot(shares, list(MISSING.values()), "--", color="0.3", label="Jenatton et al. 2011")
    axes.set(xlabel="missing pixels, %", ylabel="error, tree over flat", xticks=shares)
    axes.legend(frameon=False)
    return figure
