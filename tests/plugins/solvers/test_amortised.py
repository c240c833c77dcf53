"""Amortised inference: the encoder's output, with its gradient, is the code."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from groundstate.components import State
from groundstate.data import Batch
from groundstate.model import Model
from groundstate_plugins.decoders.linear import LinearDecoder
from groundstate_plugins.encoders.recurrent import Recurrent
from groundstate_plugins.reconstructions.squared_error import SquaredError
from groundstate_plugins.regularisers.l1 import L1
from groundstate_plugins.solvers.amortised import Amortised


def model() -> Model:
    return Model(
        encoder=Recurrent(steps=2),
        decoder=LinearDecoder(units=5),
        terms={"data": SquaredError(), "sparsity": L1(weight=0.1)},
        solver=Amortised(),
    ).build((8,))


def test_the_code_is_the_encoders_and_keeps_its_graph() -> None:
    it, x = model(), torch.rand(3, 8, generator=torch.Generator().manual_seed(0))
    assert it.encoder is not None
    solution = it.infer_batch(Batch({"x": x}), certify=False)
    assert torch.equal(solution.code, it.encoder(x))
    assert solution.iterations.tolist() == [0, 0, 0]
    (gradient,) = torch.autograd.grad(solution.code.sum(), [it.encoder.feedforward])
    assert bool(gradient.any())


def test_it_is_certified_like_any_other_code() -> None:
    it, x = model(), torch.rand(3, 8, generator=torch.Generator().manual_seed(0))
    solution = it.infer(x)
    assert solution.certificate is not None
    assert solution.certificate.kind == "gap"
    assert bool((solution.certificate.value > 0).all())


def test_a_step_changes_nothing() -> None:
    solver = Amortised()
    start = torch.ones(2, 3)
    state = solver.init(None, start)  # type: ignore[arg-type]
    assert isinstance(state, State)
    assert solver.step(None, state).code is start  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [{"max_iterations": 3}, {"start": "zeros"}, {"differentiate": "unroll"}])
def test_what_would_not_be_amortised_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Amortised(**wrong)
