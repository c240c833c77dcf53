"""The solver that chooses: greedy coordinate descent with inhibition, FISTA otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from groundstate.inference import solve
from groundstate_plugins.solvers.auto import Auto
from groundstate_plugins.solvers.coordinate_descent import CoordinateDescent
from groundstate_plugins.solvers.fista import Fista

Make = Callable[..., Any]


def test_it_chooses_by_the_problem(make_problem: Make, inhibited: Any, no_matrix: Any) -> None:
    assert isinstance(Auto().choose(make_problem()), Fista)
    assert isinstance(Auto().choose(make_problem(decoder=no_matrix)), Fista)
    assert isinstance(Auto().choose(make_problem(inhibited())), CoordinateDescent)
    assert isinstance(Auto().choose(make_problem(inhibited(), decoder=no_matrix)), Fista)
    assert isinstance(Auto(differentiate="unroll").choose(make_problem(inhibited())), Fista)


@pytest.mark.parametrize("chosen", [Fista, CoordinateDescent])
def test_it_solves_as_the_chosen_one_does(make_problem: Make, inhibited: Any, chosen: Any) -> None:
    terms = (inhibited(),) if chosen is CoordinateDescent else ()
    problem = make_problem(*terms, samples=20)
    options = {"tolerance": 1e-6, "check_every": 2}
    found, expected = (solve(problem, solver(**options), problem.zeros()) for solver in (Auto, chosen))
    assert torch.equal(found.code, expected.code)
    assert torch.equal(found.iterations, expected.iterations)
