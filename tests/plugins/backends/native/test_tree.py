"""The kernel for tree groups against SPAMS and the reference solver."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from groundstate.components import Solver
from groundstate.inference import Solved
from groundstate.problem import Problem
from groundstate.structure import Ridge, Structure, Tree
from groundstate.testing.reference import problem_of, solved

pytest.importorskip("numba")
from groundstate_plugins.backends.native import kernel


def run(problem: Problem, tolerance: float = 1e-9, start: Tensor | None = None, limit: int = 5000) -> Solved:
    form = problem.structure
    assert form is not None
    found = kernel(form)
    assert found is not None
    problem.tolerance = tolerance
    first = problem.zeros() if start is None else start
    return found(problem, first, Solver.Config(tolerance=tolerance, max_iterations=limit))


def tree(units: int, fan: int, seed: int = 0, *, non_negative: bool = False) -> Tree:
    weight = 0.3 + torch.rand(units, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    parent = torch.tensor([-1 if unit < fan else (unit - fan) // 2 for unit in range(units)])
    return Tree(parent=parent, weight=weight, non_negative=non_negative)


@pytest.mark.parametrize("non_negative", [False, True])
@pytest.mark.parametrize("weight", [0.02, 0.1])
def test_its_codes_are_the_reference_solvers_and_their_gap_the_certificate(non_negative: bool, weight: float) -> None:
    problem = problem_of({"p": tree(36, 4, non_negative=non_negative), "r": Ridge()}, weight=weight, samples=6)
    found = run(problem, 1e-12)
    torch.testing.assert_close(found.code, solved(problem), rtol=0, atol=1e-5)
    assert found.certificate is not None
    reached = problem.certificate(found.code).relative
    torch.testing.assert_close(found.certificate.relative, reached, rtol=1e-3, atol=1e-13)
    assert float(reached.max()) <= 1e-11


def test_its_codes_are_those_of_spams() -> None:
    spams = pytest.importorskip("spams")
    from scipy.sparse import csc_matrix

    units = 14
    parent = [-1, 0, 1, 1, 0, 4, 4, -1, 7, 8, 8, 7, 11, 11]  # in the order that SPAMS asks for: depth first
    form = Tree(parent=torch.tensor(parent), weight=torch.linspace(0.5, 1.2, units, dtype=torch.float64))
    problem = problem_of({"p": form}, units=units, weight=0.15, samples=5)
    matrix = problem.structure.dictionary.matrix  # type: ignore[union-attr]
    groups = np.zeros((units + 1, units + 1), bool)
    for unit, above in enumerate(parent):
        groups[unit + 1, above + 1] = True
    theirs = spams.fistaTree(
        np.asfortranarray(problem.batch.x.numpy().T),
        np.asfortranarray(matrix.numpy()),
        np.zeros((units, 5), order="F"),
        {
            "eta_g": np.concatenate([[1e-12], form.weight.numpy()]),
            "groups": csc_matrix(groups),
            "own_variables": np.array([0, *range(units)], dtype=np.int32),
            "N_own_variables": np.array([0] + [1] * units, dtype=np.int32),
        },
        numThreads=1,
        max_it=20000,
        lambda1=0.15,
        tol=1e-14,
        loss="square",
        regul="tree-l2",
    )
    np.testing.assert_allclose(run(problem, 1e-13).code.numpy(), theirs.T, rtol=0, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 23), st.integers(1, 5), st.integers(1, 3), st.integers(0, 99), st.booleans())
def test_it_certifies_odd_sizes(units: int, fan: int, samples: int, seed: int, non_negative: bool) -> None:
    form = tree(units, min(fan, units), seed, non_negative=non_negative)
    draw = torch.Generator().manual_seed(seed)
    matrix = torch.randn(7, units, generator=draw, dtype=torch.float64)
    matrix[:, units // 2] = matrix[:, 0]  # twice the same atom
    matrix[:, units - 1] = 0
    problem = problem_of({"p": form}, inputs=7, units=units, samples=samples, matrix=matrix)
    problem.batch.x[0] = 0
    found = run(problem)
    reached = problem.certificate(found.code)
    assert float(found.code[0].abs().max()) == 0
    assert float(reached.relative[1:].max() if samples > 1 else 0) <= 1e-8


def test_a_sample_has_the_same_code_but_for_rounding_alone_and_on_any_number_of_threads() -> None:
    problem = problem_of({"p": tree(36, 4)}, samples=40, weight=0.05)
    together = run(problem).code
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        torch.testing.assert_close(run(problem).code, together, rtol=0, atol=1e-12)
    finally:
        torch.set_num_threads(threads)
    alone = run(problem.select(torch.tensor([33]))).code
    torch.testing.assert_close(alone, together[33:34], rtol=0, atol=1e-9)


def test_in_float32_the_gap_is_that_of_the_rounded_code() -> None:
    problem = problem_of({"p": tree(36, 4)}, samples=8, weight=0.05, dtype=torch.float32)
    found = run(problem, 1e-6)
    assert found.code.dtype == torch.float32
    assert found.certificate is not None
    form = problem.structure
    assert form is not None
    exact = problem_of({"p": tree(36, 4)}, samples=8, weight=0.05, matrix=form.dictionary.matrix.double())
    exact.batch.x.copy_(problem.batch.x)
    reached = exact.certificate(found.code.double()).relative
    torch.testing.assert_close(found.certificate.relative.double(), reached, rtol=1e-3, atol=1e-12)
    assert float(reached.max()) <= 2e-6


def test_it_starts_where_it_is_told_and_stops_where_it_is_told() -> None:
    problem = problem_of({"p": tree(36, 4)}, samples=4, weight=0.05)
    best = run(problem, 1e-10).code
    assert int(run(problem, 1e-8, start=best).iterations.max()) == 0
    assert int(run(problem, 1e-10, limit=3).iterations.max()) <= 3 + 15  # one turn of Newton steps may end above


def test_a_sample_that_is_not_finite_spoils_its_own_code_only() -> None:
    problem = problem_of({"p": tree(36, 4)}, samples=3)
    clean = run(problem).code
    problem.batch.x[1, 0] = torch.nan
    spoilt = run(problem).code
    assert bool(spoilt[1].isnan().all())
    torch.testing.assert_close(spoilt[[0, 2]], clean[[0, 2]])


def test_groups_without_weight_are_left_to_the_generic_solver() -> None:
    free: Structure = Tree(parent=torch.tensor([-1, 0, 0]), weight=torch.zeros(3, dtype=torch.float64))
    form = problem_of({"p": free}, units=3).structure
    assert form is not None
    assert kernel(form) is None
