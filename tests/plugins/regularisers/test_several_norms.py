"""Two norms in one energy: their joint prox, exact where it composes, and their common certificate."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from groundstate.components import Term
from groundstate.inference import solve
from groundstate.problem import Problem
from groundstate_plugins.regularisers.group import Group
from groundstate_plugins.regularisers.l1 import L1
from groundstate_plugins.regularisers.tree_group import TreeGroup
from groundstate_plugins.solvers.fista import Fista
from groundstate_plugins.solvers.ista import Ista

Reference = Callable[..., Any]
UNITS = 16
CYCLES = [[i, (i + 5) % 16, (i + 10) % 16] for i in range(16)]
TREE = [[0, 1, 2, 3], [1], [2], [3], [4, 5, 6, 7], [5], [6], [7]]
TREE += [[unit + 8 for unit in group] for group in TREE]

Pair = tuple[dict[str, Callable[[], Term]], list[tuple[float, list[int]]], float, bool]
PAIRS: dict[str, Pair] = {
    "L1, disjoint groups": (
        {"a": lambda: Group(size=4), "b": lambda: L1(weight=0.7)},
        [(1.0, list(range(4 * k, 4 * k + 4))) for k in range(4)],
        0.7,
        True,
    ),
    "L1, overlapping groups": (
        {"a": lambda: L1(weight=0.4), "b": lambda: Group(pools=CYCLES, weight=0.5)},
        [(0.5, pool) for pool in CYCLES],
        0.4,
        True,
    ),
    "non-negative, tree": (
        {"a": lambda: TreeGroup(branching=[4, 3]), "b": lambda: L1(weight=0.2, non_negative=True)},
        [(1.0, group) for group in TREE],
        0.2,
        True,
    ),
    "two families of groups": (
        {"a": lambda: Group(size=4), "b": lambda: Group(pools=CYCLES, weight=0.6)},
        [(1.0, list(range(4 * k, 4 * k + 4))) for k in range(4)] + [(0.6, pool) for pool in CYCLES],
        0.0,
        False,
    ),
    "groups and a tree": (
        {"a": lambda: Group(size=8, weight=0.6), "b": lambda: TreeGroup(branching=[4, 3])},
        [(0.6, list(range(8))), (0.6, list(range(8, 16)))] + [(1.0, group) for group in TREE],
        0.0,
        False,
    ),
}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def norms_of(pair: str, factor: float) -> list[tuple[float, list[int], list[float]]]:
    return [(factor * strength, units, [1.0] * len(units)) for strength, units in PAIRS[pair][1]]


@pytest.mark.parametrize("pair", PAIRS)
def test_the_prox_is_that_of_the_sum(
    pair: str, sparse_coding: Callable[..., Problem], reference: Reference, energy_of: Reference
) -> None:
    makers, _, l1, composed = PAIRS[pair]
    terms: dict[str, Any] = {name: make() for name, make in makers.items()}
    v = 3 * normal(5, UNITS, seed=4)
    v[:, 4:] *= 0.2
    problem = sparse_coding(normal(5, 12), normal(12, UNITS), terms, tolerance=1e-10)
    assert problem.split.composed == composed
    u = problem.prox(v, 0.6, v)
    assert bool((u == 0).any())
    given = (v.T.numpy(), np.eye(UNITS), norms_of(pair, 0.6))
    how = {"l1": 0.6 * l1, "non_negative": any(term.non_negative for term in terms.values())}
    cost = energy_of(u.T.numpy(), *given, **how)
    np.testing.assert_allclose(cost, energy_of(reference(*given, **how), *given, **how), rtol=1e-8)
    if not composed:
        one, other = terms.values()
        wrong = other.prox(one.prox(v, 0.6 * one.config.weight), 0.6 * other.config.weight)
        assert (energy_of(wrong.T.numpy(), *given, **how) > cost + 1e-3).any()


@pytest.mark.parametrize("pair", PAIRS)
def test_codes_are_certified_by_one_gap(
    pair: str, sparse_coding: Callable[..., Problem], reference: Reference, energy_of: Reference
) -> None:
    makers, _, l1, _ = PAIRS[pair]
    terms: dict[str, Any] = {name: make() for name, make in makers.items()}
    x, dictionary = 3 * normal(6, 12, seed=1), normal(12, UNITS, seed=2)
    problem = sparse_coding(x, dictionary, terms)
    solution = solve(problem, Fista(tolerance=1e-6, max_iterations=3000), problem.zeros())
    assert solution.certificate is not None
    assert solution.energy is not None
    assert solution.certificate.kind == "gap"
    assert float(solution.certificate.relative.max()) <= 1e-6
    given = (x.T.numpy(), dictionary.numpy(), norms_of(pair, 1.0))
    how = {"l1": l1, "non_negative": any(term.non_negative for term in terms.values())}
    lowest = energy_of(reference(*given, **how), *given, **how)
    left = solution.energy.numpy() - lowest
    assert (left <= solution.certificate.value.numpy() + 1e-7).all()
    early = 0.5 * solution.code
    bound = problem.certificate(early).value.numpy()
    assert (problem.value(early).detach().numpy() - lowest <= bound + 1e-7).all()


@pytest.mark.parametrize("solver", [Ista, Fista])
@pytest.mark.parametrize("pair", PAIRS)
def test_the_energy_never_rises_though_a_prox_is_exact_to_a_tolerance_only(
    pair: str, solver: Any, sparse_coding: Callable[..., Problem]
) -> None:
    terms: dict[str, Any] = {name: make() for name, make in PAIRS[pair][0].items()}
    problem = sparse_coding(2 * normal(6, 12, seed=3), normal(12, UNITS, seed=2), terms)
    values = [problem.value(problem.zeros())]
    solve(
        problem,
        solver(tolerance=1e-3, max_iterations=60, check_every=100),
        problem.zeros(),
        callback=lambda iteration, rows, state, certificate: values.append(problem.value(state.code)),
    )
    for before, after in itertools.pairwise(values):
        assert bool((after <= before + 1e-12 * values[0]).all())
