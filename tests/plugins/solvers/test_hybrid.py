"""Hybrid: the encoder's prediction, then a few iterations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from groundstate.data import Batch
from groundstate.errors import InputError
from groundstate.inference import solve
from groundstate.model import Model
from groundstate.problem import Problem
from groundstate_plugins.decoders.linear import LinearDecoder
from groundstate_plugins.encoders.linear import LinearEncoder
from groundstate_plugins.reconstructions.squared_error import SquaredError
from groundstate_plugins.regularisers.l1 import L1
from groundstate_plugins.solvers.fista import Fista
from groundstate_plugins.solvers.hybrid import Hybrid

Make = Callable[..., Any]


def test_it_is_fista_from_the_given_start(make_problem: Make) -> None:
    problem = make_problem()
    start = 0.1 * torch.ones(6, 20, dtype=torch.float64)
    options = {"max_iterations": 7, "tolerance": 0.0}
    one, other = (solve(problem, solver(**options), start) for solver in (Hybrid, Fista))
    assert torch.equal(one.code, other.code)
    assert one.iterations.tolist() == [7] * 6


def test_it_starts_from_the_encoder_and_improves_on_it() -> None:
    model = Model(
        encoder=LinearEncoder(activation="identity"),
        decoder=LinearDecoder(units=20),
        terms={"data": SquaredError(), "sparsity": L1(weight=0.2)},
        solver=Hybrid(max_iterations=5, tolerance=0.0),
    ).build((12,))
    x = torch.randn(8, 12, generator=torch.Generator().manual_seed(0))
    states: list[torch.Tensor] = []
    solution = model.infer(x, callback=lambda i, rows, state, certificate: states.append(state.previous))
    assert model.encoder is not None
    with torch.no_grad():
        predicted = model.encoder(x).value
    assert torch.equal(states[0], predicted)
    before = Problem(model.energy, Batch({"x": x}), (20,)).value(predicted).detach()
    assert solution.energy is not None
    assert bool((solution.energy < before).all())


def test_without_an_encoder_it_says_what_is_missing() -> None:
    model = Model(
        decoder=LinearDecoder(units=4), terms={"data": SquaredError(), "s": L1(weight=0.2)}, solver=Hybrid()
    ).build((12,))
    with pytest.raises(InputError, match=r"no encoder; add \[model\.encoder\]"):
        model.infer(torch.zeros(2, 12))


@pytest.mark.parametrize("wrong", [{"start": "zeros"}, {"max_iterations": 0}])
def test_what_would_not_be_hybrid_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Hybrid(**wrong)
