"""ISTA: never uphill, with the step known or found, and where scikit-learn's minimum is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from groundstate.components import Regulariser
from groundstate.inference import solve
from groundstate_plugins.regularisers.l1 import L1
from groundstate_plugins.regularisers.l2 import L2
from groundstate_plugins.solvers.ista import Ista

Make = Callable[..., Any]
LOOSE = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("data", [1.0, 3.0])
def test_it_finds_scikit_learns_lasso(make_problem: Make, best_code: Make, data: float) -> None:
    problem = make_problem(L1(weight=0.3), L2(weight=0.2), data=data)
    expected = best_code(problem, weight=0.3, ridge=0.2, data=data)
    found = solve(problem, Ista(tolerance=1e-13, max_iterations=20_000, check_every=200), problem.zeros()).code
    assert float((found - expected).norm() / expected.norm()) <= 1e-6


@LOOSE
@given(
    seed=st.integers(0, 10_000),
    units=st.integers(1, 24),
    weight=st.floats(0.0, 2.0),
    known=st.booleans(),
    far=st.floats(0, 10),
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
) -> None:
    options = {} if known else {"decoder": no_matrix}
    problem = make_problem(L1(weight=weight), seed=seed, units=units, **options)
    start = far * torch.randn(6, units, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert_descends(trajectory(problem, Ista(), 25, start))


@pytest.mark.parametrize("non_negative", [False, True])
def test_it_descends_with_inhibition(
    make_problem: Make, trajectory: Make, assert_descends: Make, inhibited: Any, non_negative: bool
) -> None:
    problem = make_problem(inhibited(non_negative=non_negative))
    start = torch.rand(6, 20, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    energies = trajectory(problem, Ista(), 60, start)
    assert_descends(energies)
    assert bool((energies[-1] < energies[0]).all())


def test_backtracking_takes_steps_as_long_as_the_known_ones(make_problem: Make, no_matrix: Any) -> None:
    solver = Ista(tolerance=1e-8, max_iterations=5000)
    known, found = make_problem(), make_problem(decoder=no_matrix)
    one, other = (solve(problem, solver, problem.zeros()) for problem in (known, found))
    torch.testing.assert_close(one.code, other.code, rtol=1e-3, atol=1e-3)
    assert float(other.iterations.double().mean()) <= 1.2 * float(one.iterations.double().mean())


def test_the_step_adapts_to_a_curvature_far_from_the_first_guess(make_problem: Make) -> None:
    """A quartic and a weak term: local curvatures from about 1e4 to 1e-3, the guess is 1."""

    class Quartic(Regulariser):
        def energy(self, z: torch.Tensor) -> torch.Tensor:
            return z.pow(4).sum(1)

    problem = make_problem(Quartic(weight=100.0), L1(weight=0.01), data=1e-3)
    start = 3 * torch.ones(6, 20, dtype=torch.float64)
    solution = solve(problem, Ista(tolerance=1e-7, max_iterations=3000), start)
    assert solution.certificate is not None
    assert float(solution.certificate.relative.max()) <= 1e-7


def test_each_sample_has_its_own_step(make_problem: Make, no_matrix: Any) -> None:
    problem = make_problem(decoder=no_matrix)
    solver = Ista()
    together = solver.init(problem, problem.zeros())
    alone = solver.init(problem.select(torch.tensor([2])), problem.zeros()[:1])
    for _ in range(20):
        together = solver.step(problem, together)
        alone = solver.step(problem.select(torch.tensor([2])), alone)
    torch.testing.assert_close(alone.code[0], together.code[2], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(alone.curvature[0], together.curvature[2])
