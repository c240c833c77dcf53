"""Small versions of the systems with pools, trees and a convolutional stack: each shows in seconds what it is for."""

from __future__ import annotations

from typing import Any

import torch

from groundstate.compare import METRICS
from groundstate.few_labels import evaluate_few_labels
from groundstate.history import read_history
from groundstate.pruning import prune
from groundstate.report.trees import branches, together
from groundstate.run import Run

FEW = {"data.train": 2000, "data.validation": 200, "data.test": 500, "data.size": 8}


def active(run: Run) -> torch.Tensor:
    """Which units the codes of the test patches use."""
    test = run.splits.test
    assert test is not None
    return run.model.encode(test.read(torch.arange(len(test))).x) != 0


def test_codes_under_tree_inhibition_follow_branches_and_survive_pruning(small: Any) -> None:
    trees = {"model.decoder.units": 84, "energy.sparsity.branching": [12, 2, 2], "phases.learn.epochs": 5}
    run = small("tree-inhibition-patches", **FEW, **trees)
    parent = run.model.energy.terms["sparsity"].structure().parent
    related, depth = branches(parent)
    used = active(run)
    share, chance = together(used, related)
    assert share > 0.6 > 10 * chance
    frequency = used.double().mean(0)
    use = [float(frequency[depth == level].mean()) for level in range(3)]
    assert use[0] > 1.5 * use[1] > 1.5 * use[2]
    left = prune(run.folder, {"phases.refine.epochs": 2}, keep=42)
    related, _ = branches(left.model.energy.terms["sparsity"].structure().parent)
    assert together(active(left), related)[0] > 0.6
    assert left.metrics["test/energy"] < 1.1 * run.metrics["test/energy"]


def test_under_tree_groups_a_unit_is_active_only_below_active_ones(small: Any) -> None:
    trees = {"model.decoder.units": 71, "energy.sparsity.branching": [1, 10, 2, 2], "phases.learn.epochs": 3}
    run = small("tree-group-patches", **FEW, **trees)
    parent, used = run.model.energy.terms["sparsity"].structure().parent, active(run)
    inner = (parent >= 0).nonzero().flatten()
    assert used.double().mean() > 0.02
    assert bool((used[:, parent[inner]] | ~used[:, inner]).all())


def test_under_pools_of_four_few_pools_are_active_and_those_whole(small: Any) -> None:
    pools = {"type": "group", "size": 4, "weight": 1.5}
    units = {"model.decoder.units": 64, "phases.learn.epochs": 3}
    run = small("sparse-coding-patches", **FEW, **units, **{"energy.sparsity": pools})
    used = active(run).view(-1, 16, 4)
    in_use = used.any(2)
    assert 0.02 < in_use.double().mean() < 0.3
    assert bool(used[in_use].all())


def test_features_of_a_convolutional_stack_are_told_apart_from_few_labels(small: Any) -> None:
    changes: dict[str, Any] = {"data": {"type": "digits", "flat": False}}
    for name, maps, size, window in (("first", 8, 3, 5), ("second", 16, 2, 3)):
        changes |= {
            f"layers.{name}.model.decoder.maps": maps,
            f"layers.{name}.model.decoder.size": size,
            f"layers.{name}.model.encoder.size": size,
            f"layers.{name}.model.decoder.padding": 0,
            f"layers.{name}.model.encoder.padding": 0,
            f"layers.{name}.pool.positions": 2,
            f"layers.{name}.input.size": window,
        }
    changes |= {"layers.first.learning.log_every": 1, "layers.second.learning.log_every": 1}
    run = small("conv-group-sparse-mnist", **changes)
    (found,) = evaluate_few_labels(run.stack, run.inputs, [10], draws=3)
    assert found.error < 0.4  # 0.9 by chance
    assert run.record["parameters"]["first.decoder.filters"] == [8, 1, 3, 3]
    for layer in ("first", "second"):
        name = f"{layer}/energy"
        energies = [one.values[name] for one in read_history(run.folder / METRICS) if name in one.values]
        assert energies[-1] < energies[0]
