"""FISTA: faster than ISTA, never uphill, and where scikit-learn's minimum is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from groundstate.inference import solve
from groundstate_plugins.regularisers.l1 import L1
from groundstate_plugins.regularisers.l2 import L2
from groundstate_plugins.solvers.fista import Fista
from groundstate_plugins.solvers.ista import Ista

Make = Callable[..., Any]
LOOSE = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("units", [8, 40])
@pytest.mark.parametrize(("ridge", "non_negative"), [(0.0, False), (0.0, True), (0.3, False)])
def test_it_finds_scikit_learns_lasso(
    make_problem: Make, best_code: Make, units: int, ridge: float, non_negative: bool
) -> None:
    problem = make_problem(L1(weight=0.3, non_negative=non_negative), L2(weight=ridge), units=units)
    expected = best_code(problem, weight=0.3, ridge=ridge, non_negative=non_negative)
    solver = Fista(tolerance=1e-14, max_iterations=20_000, check_every=100)
    found = solve(problem, solver, problem.zeros())
    assert float((found.code - expected).norm() / expected.norm()) <= 1e-6
    torch.testing.assert_close(found.energy, problem.value(expected), rtol=1e-12, atol=1e-12)


@LOOSE
@given(
    seed=st.integers(0, 10_000),
    units=st.integers(1, 24),
    weight=st.floats(0.0, 2.0),
    known=st.booleans(),
    far=st.floats(0, 10),
    single=st.booleans(),
)
def test_the_energy_never_rises(
    make_problem: Make,
    trajectory: Make,
    assert_descends: Make,
    no_matrix: Any,
    seed: int,
    units: int,
    weight: float,
    known: bool,
    far: float,
    single: bool,
) -> None:
    options: dict[str, Any] = {} if known else {"decoder": no_matrix}
    dtype = torch.float32 if single else torch.float64
    problem = make_problem(L1(weight=weight), seed=seed, units=units, dtype=dtype, **options)
    start = far * torch.randn(6, units, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    assert_descends(trajectory(problem, Fista(), 40, start))


@pytest.mark.parametrize("non_negative", [False, True])
def test_it_descends_with_inhibition(
    make_problem: Make, trajectory: Make, assert_descends: Make, inhibited: Any, non_negative: bool
) -> None:
    problem = make_problem(inhibited(non_negative=non_negative))
    start = torch.rand(6, 20, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    assert_descends(trajectory(problem, Fista(), 100, start))


def test_it_needs_far_fewer_iterations_than_ista(make_problem: Make) -> None:
    """k²-convergence against k: at a relative gap of 1e-8 on an overcomplete dictionary at least fivefold."""
    problem = make_problem(L1(weight=0.02), units=24)
    counts = [
        float(solve(problem, solver(tolerance=1e-8, max_iterations=50_000), problem.zeros()).iterations.double().mean())
        for solver in (Ista, Fista)
    ]
    assert counts[1] <= counts[0] / 5


def test_a_candidate_that_raises_the_energy_is_dropped_and_the_momentum_restarts(make_problem: Make) -> None:
    problem = make_problem()
    solver = Fista()
    state = solver.init(problem, problem.zeros())
    for _ in range(5):
        state = solver.step(problem, state)
    state.momentum = torch.full_like(state.momentum, 1e6)
    state.previous = state.code - 10.0
    state.residual_previous = problem.residual(state.previous)
    after = solver.step(problem, state)
    assert torch.equal(after.code, state.code)
    assert torch.equal(after.energy, state.energy)
    assert after.momentum.tolist() == [1.0] * 6
    plain = Ista().step(problem, Ista().init(problem, state.code)).code
    torch.testing.assert_close(solver.step(problem, after).code, plain)


def test_the_residuals_it_keeps_are_those_of_its_codes(make_problem: Make) -> None:
    problem = make_problem()
    solver = Fista()
    state = solver.init(problem, problem.zeros())
    for _ in range(30):
        state = solver.step(problem, state)
    torch.testing.assert_close(state.residual, problem.residual(state.code))
    torch.testing.assert_close(state.residual_previous, problem.residual(state.previous))
    torch.testing.assert_close(state.energy, problem.value(state.code))


def test_a_start_at_the_optimum_stays_there(make_problem: Make) -> None:
    problem = make_problem()
    solver = Fista(tolerance=1e-12, max_iterations=5000)
    best = solve(problem, solver, problem.zeros()).code
    again = solve(problem, solver, best)
    assert int(again.iterations.max()) <= solver.config.check_every
    torch.testing.assert_close(again.code, best, rtol=1e-5, atol=1e-6)
