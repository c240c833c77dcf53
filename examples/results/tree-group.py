"""Tree-structured groups against flat sparsity: missing pixels of 8×8 patches filled in.

After Jenatton, Mairal, Obozinski & Bach 2011, section 5.2. Dictionaries of 141 units are learned on complete patches
(intensity, without their mean), one with the norms of a tree's nested groups, one with ‖z‖₁. Then pixels of held-out
patches go missing at random, codes explain the rest, and the error is that of the missing pixels, relative to their sum
of squares. The weight of the codes is chosen for each dictionary and share on validation patches; the weight in
training was chosen there too.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from lab import Lab, Trained
from matplotlib.figure import Figure
from torch import Tensor

from groundstate import Model, Regulariser
from groundstate_plugins.decoders.linear import LinearDecoder
from groundstate_plugins.reconstructions.masked_squared_error import MaskedSquaredError
from groundstate_plugins.regularisers.l1 import L1
from groundstate_plugins.regularisers.tree_group import TreeGroup
from groundstate_plugins.solvers.fista import Fista

MISSING = {0.5: 0.964, 0.6: 0.959, 0.7: 0.954, 0.8: 0.949, 0.9: 0.914}
"""By the share of missing pixels: the paper's error with the tree over that without."""
BRANCHING = [1, 20, 2, 2]
WEIGHTS = (0.001, 0.003, 0.01, 0.03, 0.1)
"""Of codes of masked patches, that are tried."""
VALIDATION, TEST = 300, 1000
FLAT = {"energy.sparsity": {"type": "l1", "weight": 0.3}}


def measure(lab: Lab) -> None:
    shared = {"data.path": str(lab.data("photos")), "data.test": TEST, "backend.threads": 1}
    terms: dict[str, Callable[[float], Regulariser]] = {
        "tree": lambda weight: TreeGroup(weight=weight, branching=BRANCHING),
        "flat": lambda weight: L1(weight=weight),
    }
    runs = {
        "tree": lab.train("tree-group-patches", shared, label="tree"),
        "flat": lab.train("tree-group-patches", {**shared, **FLAT}, label="flat"),
    }
    errors = {
        name: np.array([[inpaint(run, terms[name], share) for share in MISSING] for run in found])
        for name, found in runs.items()
    }
    ratio = errors["tree"] / errors["flat"]
    for place, (share, paper) in enumerate(MISSING.items()):
        lab.row(
            f"{100 * share:.0f} % missing: error with the tree over that without",
            ratio[:, place],
            must="≤ 0.95" if share == 0.9 else "< 1",
            goal=f"≤ {paper}",
            reference=f"{paper} (Jenatton et al. 2011)",
            note=f"{100 * errors['tree'][:, place].mean():.1f} % against {100 * errors['flat'][:, place].mean():.1f} %",
        )
    lab.picture(
        draw(ratio),
        "Error of the missing pixels with a tree over that of a flat dictionary of as many units, a line for each "
        "seed; below 1 the tree is better. The paper's figures, on other photographs, are dashed.",
    )


def inpaint(run: Trained, term: Callable[[float], Regulariser], share: float) -> float:
    """Relative squared error of the missing pixels of the test patches, with the weight that is best on validation."""
    splits = run.opened().splits
    assert splits.validation is not None
    assert splits.test is not None
    known = splits.validation.read(torch.arange(VALIDATION)).x
    weight = min(WEIGHTS, key=lambda weight: error(run, term(weight), known, share))
    return error(run, term(weight), splits.test.read(torch.arange(TEST)).x, share)


def error(run: Trained, term: Regulariser, x: Tensor, share: float) -> float:
    """Of the missing pixels, which the same seed draws for both dictionaries."""
    assert run.model.decoder is not None
    matrix = run.model.decoder.structure().matrix.detach()
    model = Model(
        decoder=LinearDecoder(units=matrix.shape[1], constraint="none"),
        terms={"reconstruction": MaskedSquaredError(), "sparsity": term},
        solver=Fista(tolerance=1e-3, max_iterations=200),
    ).build(x.shape[1:])
    model.load_state_dict({"decoder.dictionary": matrix}, strict=False)
    mask = known_pixels(len(x), x.shape[1], share)
    missing = 1 - mask
    found = model.decode(model.encode(mask * x, mask=mask))
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
