"""Tree-structured group sparsity: value, prox in one pass, dual norm, pruning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from groundstate.errors import InputError
from groundstate.inference import solve
from groundstate.problem import Problem
from groundstate.structure import L1 as L1Form
from groundstate.structure import Tree
from groundstate_plugins.regularisers.l1 import L1
from groundstate_plugins.regularisers.tree_group import TreeGroup
from groundstate_plugins.solvers.fista import Fista

Laid = Callable[..., Any]
Reference = Callable[..., Any]

KINDS: dict[str, dict[str, Any]] = {
    "one tree": {"branching": [1, 3, 2, 1]},
    "forest": {"branching": [[4, 2], [1, 3]], "decay": 0.6},
    "by parents": {"parents": [1, -1, 1, 0, 0, 6, -1, 5, 5, 3, 9, -1, 1, 12, 2, 7], "decay": 1.5},
    "non-negative": {"branching": [4, 3], "non_negative": True},
}
UNITS = 16


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def norms_of(term: TreeGroup, strength: float) -> list[tuple[float, list[int], list[float]]]:
    """Each unit with its descendants, found by walking up from every unit."""
    parent = term.forest.parent.tolist()
    groups: list[list[int]] = [[] for _ in parent]
    depths = []
    for unit in range(len(parent)):
        at, depth = unit, -1
        while at >= 0:
            groups[at].append(unit)
            at, depth = parent[at], depth + 1
        depths.append(depth)
    weights = [strength * term.config.decay**depth for depth in depths]
    return [(weight, group, [1.0] * len(group)) for weight, group in zip(weights, groups, strict=True)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_energy_sums_the_norms_of_units_with_their_descendants(kind: str, laid: Laid) -> None:
    term = laid(TreeGroup(**KINDS[kind]), UNITS)
    z = normal(5, UNITS)
    expected = sum(weight * np.linalg.norm(z[:, group], axis=1) for weight, group, _ in norms_of(term, 1.0))
    np.testing.assert_allclose(term.energy(z), expected, rtol=1e-12)
    assert torch.autograd.gradcheck(term.energy, z.requires_grad_())


@pytest.mark.parametrize("step", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("kind", KINDS)
def test_the_prox_against_an_independent_solver(
    kind: str, step: float, laid: Laid, reference: Reference, energy_of: Reference
) -> None:
    term = laid(TreeGroup(**KINDS[kind]), UNITS)
    v = normal(10, UNITS, seed=1)
    u = term.prox(v, step)
    given = (v.T.numpy(), np.eye(UNITS), norms_of(term, step))
    best = reference(*given, non_negative=term.non_negative)
    cost, lowest = (energy_of(at, *given, non_negative=term.non_negative) for at in (u.T.numpy(), best))
    assert (cost <= lowest + 1e-11).all()
    np.testing.assert_allclose(u.T, best, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_pass_through_the_prox(kind: str, laid: Laid) -> None:
    term = laid(TreeGroup(**KINDS[kind]), UNITS)
    v = normal(2, UNITS, seed=5).mul(1.5).requires_grad_()
    step = torch.tensor([[0.2], [0.35]], dtype=torch.float64, requires_grad=True)
    assert bool((term.prox(v, step) == 0).any())
    assert torch.autograd.gradcheck(term.prox, (v, step))


@pytest.mark.parametrize("kind", KINDS)
def test_the_dual_norm_is_where_the_prox_vanishes(kind: str, laid: Laid) -> None:
    term = laid(TreeGroup(**KINDS[kind]), UNITS)
    c = normal(20, UNITS, seed=2)
    dual = term.dual_norm(c)
    assert not term.prox(c, (dual * (1 + 1e-12))[:, None]).any()
    assert bool(term.prox(c, (dual * (1 - 1e-9))[:, None]).any(1).all())
    u = term.prox(c, (dual * (1 - 1e-7))[:, None])
    torch.testing.assert_close((c * u).sum(1) / term.energy(u), dual, rtol=1e-6, atol=0)
    assert term.dual_norm(torch.zeros(1, UNITS)).tolist() == [0.0]


@pytest.mark.parametrize("kind", KINDS)
def test_codes_are_certified_and_an_independent_solver_finds_none_lower(
    kind: str, sparse_coding: Callable[..., Problem], reference: Reference, energy_of: Reference
) -> None:
    term = TreeGroup(weight=0.1, **KINDS[kind])
    x, dictionary = normal(8, 12), normal(12, UNITS, seed=3)
    problem = sparse_coding(x, dictionary, {"tree": term})
    solution = solve(problem, Fista(tolerance=1e-8, max_iterations=3000), torch.zeros(8, UNITS, dtype=torch.float64))
    assert solution.certificate is not None
    assert solution.energy is not None
    assert solution.certificate.kind == "gap"
    assert float(solution.certificate.relative.max()) <= 1e-8
    given = (x.T.numpy(), dictionary.numpy(), norms_of(term, 0.1))
    best = reference(*given, non_negative=term.non_negative)
    lowest = energy_of(best, *given, non_negative=term.non_negative)
    assert ((solution.energy.numpy() - lowest) / (0.5 * x.square().sum(1).numpy())).max() <= 1e-8


def test_after_a_soft_threshold_the_prox_is_that_of_the_sum(
    laid: Laid, reference: Reference, energy_of: Reference
) -> None:
    term = laid(TreeGroup(**KINDS["forest"]), UNITS)
    assert term.prox_after([L1Form()])
    assert not term.prox_after([term.structure()])
    v = 1.5 * normal(6, UNITS, seed=8)
    u = term.prox(L1().prox(v, 0.3), 0.2)
    given = (v.T.numpy(), np.eye(UNITS), norms_of(term, 0.2))
    lowest = energy_of(reference(*given, l1=0.3), *given, l1=0.3)
    assert (energy_of(u.T.numpy(), *given, l1=0.3) <= lowest + 1e-10).all()


@pytest.mark.parametrize("keep", [[0, 1, 2, 5, 6], [3, 9, 0, 14], [8, 15, 4]], ids=["branches", "mixed", "leaves"])
@pytest.mark.parametrize("kind", KINDS)
def test_pruned_units_count_as_zero(kind: str, keep: list[int], laid: Laid) -> None:
    term = laid(TreeGroup(**KINDS[kind]), UNITS)
    z = normal(3, len(keep)).abs()
    whole = torch.zeros(3, UNITS, dtype=torch.float64)
    whole[:, keep] = z
    energy, prox = term.energy(whole), term.prox(whole, 0.2)[:, keep]
    dual = term.dual_norm(whole)
    term.select(torch.tensor(keep))
    again = laid(TreeGroup(**term.config.model_dump()), len(keep))  # as a saved model is made again
    for pruned in (term, again):
        torch.testing.assert_close(pruned.energy(z), energy)
        torch.testing.assert_close(pruned.prox(z, 0.2), prox)
        torch.testing.assert_close(pruned.dual_norm(z), dual)


def test_its_structure_says_the_trees_as_long_as_no_parent_is_missing(laid: Laid) -> None:
    term = laid(TreeGroup(branching=[2, 2], decay=0.5), 6)
    form = term.structure()
    assert isinstance(form, Tree)
    assert form.parent.tolist() == [-1, 0, 0, -1, 3, 3]
    assert form.weight.tolist() == [1.0, 0.5, 0.5, 1.0, 0.5, 0.5]
    term.select(torch.tensor([0, 1, 4]))
    assert term.structure() is None


def test_trees_of_another_size_than_the_code_are_refused(laid: Laid) -> None:
    with pytest.raises(InputError, match="trees have 6 units, but the code has 7"):
        laid(TreeGroup(branching=[2, 2]), 7)
    with pytest.raises(InputError, match="there is no node 6"):
        laid(TreeGroup(branching=[2, 2], nodes=[0, 6]), 2)
    with pytest.raises(InputError, match="1 different nodes, but the code has 2 units"):
        laid(TreeGroup(branching=[2, 2], nodes=[3, 3]), 2)
