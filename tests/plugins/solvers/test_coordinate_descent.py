"""Coordinate descent: exact along each unit, never uphill, where scikit-learn's minimum is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.optimize import minimize_scalar

from groundstate.components import Regulariser
from groundstate.errors import InputError
from groundstate.inference import solve
from groundstate_plugins.regularisers.l1 import L1
from groundstate_plugins.regularisers.l2 import L2
from groundstate_plugins.solvers.coordinate_descent import CoordinateDescent
from groundstate_plugins.solvers.fista import Fista

Make = Callable[..., Any]
LOOSE = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
ORDERS = ("greedy", "cyclic")


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("units", [8, 40])
@pytest.mark.parametrize(("ridge", "non_negative", "data"), [(0.0, False, 1.0), (0.0, True, 1.0), (0.3, False, 2.0)])
def test_it_finds_scikit_learns_lasso(
    make_problem: Make, best_code: Make, order: str, units: int, ridge: float, non_negative: bool, data: float
) -> None:
    problem = make_problem(L1(weight=0.3, non_negative=non_negative), L2(weight=ridge), units=units, data=data)
    expected = best_code(problem, weight=0.3, ridge=ridge, non_negative=non_negative, data=data)
    found = solve(problem, CoordinateDescent(order=order, tolerance=1e-14, max_iterations=5000), problem.zeros())
    assert float((found.code - expected).norm() / expected.norm()) <= 1e-6


@LOOSE
@given(
    order=st.sampled_from(ORDERS),
    seed=st.integers(0, 10_000),
    units=st.integers(1, 24),
    weight=st.floats(0.0, 2.0),
    inhibit=st.booleans(),
    non_negative=st.booleans(),
    far=st.floats(0, 10),
    single=st.booleans(),
)
def test_the_energy_never_rises(
    make_problem: Make,
    trajectory: Make,
    assert_descends: Make,
    inhibited: Any,
    order: str,
    seed: int,
    units: int,
    weight: float,
    inhibit: bool,
    non_negative: bool,
    far: float,
    single: bool,
) -> None:
    """Also from one move to the next: a block of one."""
    term = inhibited(weight=weight) if inhibit else L1(weight=weight)
    dtype = torch.float32 if single else torch.float64
    problem = make_problem(type(term)(weight=weight, non_negative=non_negative), seed=seed, units=units, dtype=dtype)
    start = far * torch.randn(6, units, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    start = start.abs() if non_negative else start
    assert_descends(trajectory(problem, CoordinateDescent(order=order, block=1), 20, start))


@pytest.mark.parametrize("term", ["l1", "inhibition"])
@pytest.mark.parametrize("non_negative", [False, True])
def test_a_greedy_move_is_the_largest_and_ends_at_the_minimum_along_its_unit(
    make_problem: Make, inhibited: Any, term: str, non_negative: bool
) -> None:
    """Each unit's best position by a scalar minimiser; atoms have unit norm, so moves compare directly."""
    penalty = (inhibited if term == "inhibition" else L1)(weight=0.4, non_negative=non_negative)
    problem = make_problem(penalty, samples=3, units=6)
    start = 0.2 * torch.rand(3, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    solver = CoordinateDescent(block=1)
    with torch.no_grad():
        after = solver.step(problem, solver.init(problem, start)).code
    moves = torch.zeros(3, 6)
    for row in range(3):
        for unit in range(6):

            def along(position: float, row: int = row, unit: int = unit) -> float:
                z = start.clone()
                z[row, unit] = position
                return float(problem.value(z)[row].detach())

            span = (0, 4) if non_negative else (-4, 4)
            best = minimize_scalar(along, bounds=span, method="bounded", options={"xatol": 1e-10})
            moves[row, unit] = float(best.x) - start[row, unit]
    changed = (after != start).nonzero()
    assert changed[:, 0].tolist() == [0, 1, 2]
    assert changed[:, 1].tolist() == moves.abs().argmax(1).tolist()
    np.testing.assert_allclose((after - start).abs().amax(1), moves.abs().amax(1), atol=1e-6)


@pytest.mark.parametrize("order", ORDERS)
def test_with_inhibition_it_ends_where_no_unit_can_improve_alone(
    make_problem: Make, inhibited: Any, order: str
) -> None:
    problem = make_problem(inhibited(weight=1.0))
    solution = solve(problem, CoordinateDescent(order=order, tolerance=1e-10, max_iterations=2000), problem.zeros())
    assert solution.certificate is not None
    assert solution.certificate.kind == "residual"
    assert float(solution.certificate.relative.max()) <= 1e-10
    for unit in range(20):
        for shift in (-1e-3, 1e-3):
            z = solution.code.clone()
            z[:, unit] += shift
            assert bool((problem.value(z) >= solution.energy - 1e-12).all())


def test_under_strong_inhibition_greedy_ends_lower_than_cyclic_and_no_higher_than_fista(
    make_problem: Make, inhibited: Any
) -> None:
    problem = make_problem(inhibited(weight=5.0, sparsity=0.02), samples=50, units=40, inputs=20)
    greedy, cyclic, parallel = (
        float(solve(problem, solver, problem.zeros()).energy.mean())
        for solver in (CoordinateDescent(), CoordinateDescent(order="cyclic"), Fista(max_iterations=1000))
    )
    assert greedy < 0.95 * cyclic
    assert greedy < 1.01 * parallel


@pytest.mark.parametrize("order", ORDERS)
def test_a_unit_without_an_atom_returns_to_zero(make_problem: Make, order: str) -> None:
    problem = make_problem()
    with torch.no_grad():
        problem.energy.decoder.dictionary[:, 4] = 0
    start = torch.ones(6, 20, dtype=torch.float64)
    found = solve(problem, CoordinateDescent(order=order, tolerance=1e-12, max_iterations=2000), start)
    assert found.code[:, 4].tolist() == [0.0] * 6
    assert found.certificate is not None
    assert float(found.certificate.relative.max()) <= 1e-12


def test_atoms_of_any_length_give_the_same_minimum_as_fista(make_problem: Make) -> None:
    problem = make_problem()
    with torch.no_grad():
        problem.energy.decoder.dictionary.mul_(torch.linspace(0.05, 1.0, 20))
    greedy = solve(problem, CoordinateDescent(tolerance=1e-12, max_iterations=5000), problem.zeros()).energy
    fista = solve(problem, Fista(tolerance=1e-12, max_iterations=50_000), problem.zeros()).energy
    torch.testing.assert_close(greedy, fista, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("order", ORDERS)
def test_batch_mates_do_not_matter(make_problem: Make, order: str) -> None:
    problem = make_problem()
    solver = CoordinateDescent(order=order, tolerance=1e-10, max_iterations=500)
    together = solve(problem, solver, problem.zeros()).code
    alone = solve(problem.select(torch.tensor([3])), solver, problem.zeros()[:1]).code
    torch.testing.assert_close(alone[0], together[3], rtol=1e-9, atol=1e-12)


def test_what_it_cannot_take_it_refuses_and_says_what_can(make_problem: Make, no_matrix: Any) -> None:
    class Group(Regulariser):
        def energy(self, z: torch.Tensor) -> torch.Tensor:
            return z.norm(dim=1)

        def prox(self, v: torch.Tensor, step: float) -> torch.Tensor:
            return v

    solver = CoordinateDescent()
    assert solver.refuses(make_problem()) is None
    for problem in (make_problem(decoder=no_matrix), make_problem(Group())):
        with pytest.raises(InputError, match=r"needs a squared error on a linear decoder.*use solver 'fista'"):
            solve(problem, solver, problem.zeros())

    class Known(Group):
        def structure(self) -> Any:
            from groundstate.structure import Groups

            return Groups(index=torch.arange(20).view(10, 2), disjoint=True, weight=torch.ones(10))

    assert "groups; use solver 'fista'" in str(solver.refuses(make_problem(Known())))


def test_it_cannot_be_unrolled() -> None:
    with pytest.raises(ValidationError, match="differentiate"):
        CoordinateDescent(differentiate="unroll")
