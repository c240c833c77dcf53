"""The kernel for lateral inhibition against the generic solver and an exhaustive search."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundstate.components import Solver
from groundstate.inference import Solved, solve
from groundstate.problem import Problem
from groundstate.structure import Inhibition, Ridge
from groundstate.testing.reference import problem_of
from groundstate_plugins.solvers.coordinate_descent import CoordinateDescent

pytest.importorskip("numba")
from groundstate_plugins.backends.native import kernel


def run(problem: Problem, tolerance: float = 1e-9) -> Solved:
    form = problem.structure
    assert form is not None
    found = kernel(form)
    assert found is not None
    return found(problem, problem.zeros(), Solver.Config(tolerance=tolerance, max_iterations=2000))


def inhibition(units: int, strength: float, seed: int = 0, *, non_negative: bool = False) -> Inhibition:
    matrix = torch.rand(units, units, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    matrix = (strength * (matrix + matrix.T)).fill_diagonal_(0)
    return Inhibition(matrix=matrix, sparsity=1.0, non_negative=non_negative)


@pytest.mark.parametrize("non_negative", [False, True])
@pytest.mark.parametrize("strength", [0.0, 0.05, 0.5, 5.0])
def test_it_ends_no_higher_than_greedy_moves_alone(non_negative: bool, strength: float) -> None:
    penalty = inhibition(40, strength, non_negative=non_negative)
    problem = problem_of({"p": penalty, "r": Ridge()}, units=40, samples=30, weight=0.05)
    found = run(problem)
    assert float(problem.certificate(found.code).relative.max()) <= 1e-9
    greedy = solve(problem, CoordinateDescent(tolerance=1e-10, max_iterations=3000), problem.zeros())
    assert greedy.energy is not None
    assert float((problem.value(found.code) - greedy.energy).max()) <= 1e-9


def test_of_few_units_it_finds_a_minimum_of_its_orthant() -> None:
    penalty = inhibition(4, 0.4)
    problem = problem_of({"p": penalty}, units=4, samples=5, weight=0.1)
    code = run(problem, 1e-12).code.numpy()
    form = problem.structure
    assert form is not None
    d, s = form.dictionary.matrix.numpy(), penalty.matrix.numpy()
    for z, x in zip(code, problem.batch.x.numpy(), strict=True):
        candidates = []
        for signs in product((-1, 0, 1), repeat=4):
            on = np.flatnonzero(signs)
            sign = np.array(signs)[on]
            hessian = d[:, on].T @ d[:, on] + 0.2 * sign[:, None] * s[np.ix_(on, on)] * sign
            best = np.zeros(4)
            best[on] = np.linalg.lstsq(hessian, d[:, on].T @ x - 0.1 * sign, rcond=None)[0]
            if (np.sign(best) == signs).all():
                candidates.append(best)
        assert min(np.abs(z - candidate).max() for candidate in candidates) < 1e-7


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 35), st.integers(1, 3), st.integers(0, 99), st.booleans())
def test_it_certifies_odd_sizes(units: int, samples: int, seed: int, non_negative: bool) -> None:
    draw = torch.Generator().manual_seed(seed)
    matrix = torch.randn(7, units, generator=draw, dtype=torch.float64)
    matrix[:, units // 2] = matrix[:, 0]
    matrix[:, units - 1] = 0
    penalty = inhibition(units, 0.2, seed, non_negative=non_negative)
    problem = problem_of({"p": penalty}, inputs=7, units=units, samples=samples, matrix=matrix)
    problem.batch.x[0] = 0
    found = run(problem)
    assert float(found.code[0].abs().max()) == 0
    assert float(problem.certificate(found.code).relative.max()) <= 1e-9


def test_in_float32_and_alone_a_sample_ends_the_same() -> None:
    penalty = inhibition(40, 0.1)
    problem = problem_of({"p": penalty}, units=40, samples=40, weight=0.05)
    together = run(problem).code
    alone = run(problem.select(torch.tensor([33]))).code
    torch.testing.assert_close(alone, together[33:34], rtol=0, atol=1e-9)
    single = problem_of({"p": penalty}, units=40, samples=40, weight=0.05, dtype=torch.float32)
    found = run(single, 1e-5).code
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), together, rtol=0, atol=1e-3)
