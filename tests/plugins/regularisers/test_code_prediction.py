"""½‖z − f(x)‖²: value, gradient, and who follows whom in inference and in learning."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from groundstate.components import Code, needs
from groundstate.data import Batch
from groundstate.errors import InputError
from groundstate.learning import Learning
from groundstate.model import Model
from groundstate.problem import Problem
from groundstate_plugins.decoders.linear import LinearDecoder
from groundstate_plugins.encoders.linear import LinearEncoder
from groundstate_plugins.learners.gradient import Gradient
from groundstate_plugins.reconstructions.squared_error import SquaredError
from groundstate_plugins.regularisers.code_prediction import CodePrediction
from groundstate_plugins.regularisers.l1 import L1
from groundstate_plugins.solvers.fista import Fista

INPUTS, UNITS = 6, 5


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def psd(weight: float = 0.7, **extra: Any) -> Model:
    terms = {"data": SquaredError(), "prediction": CodePrediction(weight=weight), **extra}
    model = Model(
        encoder=LinearEncoder(activation="identity"),
        decoder=LinearDecoder(units=UNITS),
        terms=terms,
        solver=Fista(tolerance=1e-10, max_iterations=1000),
    )
    return model.build((INPUTS,), seed=3).double()


def predicted(model: Model, x: Tensor) -> Tensor:
    encoded = model.run_encoder(x)
    assert encoded is not None
    return encoded.value


@pytest.mark.parametrize("shape", [(5,), (2, 3, 1)])
def test_the_energy_is_half_the_squared_distance(shape: tuple[int, ...]) -> None:
    z, prediction = normal(4, *shape), normal(4, *shape, seed=1)
    expected = 0.5 * ((z - prediction).numpy().reshape(4, -1) ** 2).sum(1)
    np.testing.assert_allclose(CodePrediction().energy(z, prediction), expected, rtol=1e-14)


def test_the_gradient_against_autograd_and_finite_differences() -> None:
    z, prediction = normal(3, 5).requires_grad_(), normal(3, 5, seed=1)
    term = CodePrediction()
    assert torch.autograd.gradcheck(lambda at: term.energy(at, prediction), z)
    (found,) = torch.autograd.grad(term.energy(z, prediction).sum(), z)
    torch.testing.assert_close(term.gradient(z.detach(), prediction), found)
    assert needs(term.gradient) == needs(term.energy) == ("z", "prediction")


def test_the_code_is_drawn_to_the_prediction() -> None:
    """Without a sparsity term the minimum is (DᵀD + ρI)⁻¹(Dᵀx + ρ f(x))."""
    model, x = psd(), normal(4, INPUTS, seed=2)
    d = model.decoder.dictionary.detach()  # type: ignore[union-attr]
    prediction = predicted(model, x).detach()
    expected = torch.linalg.solve(d.T @ d + 0.7 * torch.eye(UNITS), (x @ d + 0.7 * prediction).T).T
    torch.testing.assert_close(model.infer(x).code, expected, rtol=1e-8, atol=1e-8)
    near = psd(weight=1e4).infer(x).code
    torch.testing.assert_close(near, prediction, rtol=0, atol=1e-3)


def test_inference_takes_the_prediction_as_a_constant() -> None:
    model = psd()
    batch = Batch({"x": normal(4, INPUTS)})
    problem = Problem(model.energy, batch, (UNITS,), encoded=Code(predicted(model, batch.x)))
    z = normal(4, UNITS, seed=5)
    value, gradient = problem.smooth(z)
    assert not gradient.requires_grad
    for unit in range(UNITS):
        nudge = 1e-6 * torch.eye(UNITS, dtype=torch.float64)[unit]
        slope = (problem.smooth_value(z + nudge) - problem.smooth_value(z - nudge)) / 2e-6
        torch.testing.assert_close(gradient[:, unit], slope.detach(), rtol=1e-6, atol=1e-8)
    assert value.shape == (4,)


def test_the_encoder_follows_the_code_in_learning() -> None:
    """Its gradient is that of the mean of ½‖z* − f(x)‖² with z* held; the prediction nears the code by training."""
    model = psd(sparsity=L1(weight=0.1))
    x = normal(30, INPUTS, seed=7)
    learner = Learning(model, Gradient(optimiser="sgd"))
    z = model.infer(x).code
    before = {name: value.detach().clone() for name, value in model.encoder.named_parameters()}  # type: ignore[union-attr]
    loss = 0.7 * 0.5 * (z - predicted(model, x)).square().sum(1).mean()
    expected = torch.autograd.grad(loss, list(model.encoder.parameters()))  # type: ignore[union-attr]
    learner.step(Batch({"x": x}), rate=1e-3)
    for gradient, (name, value) in zip(expected, model.encoder.named_parameters(), strict=True):  # type: ignore[union-attr]
        torch.testing.assert_close(before[name] - value.detach(), 1e-3 * gradient, rtol=1e-5, atol=1e-10)

    def distance() -> float:
        return float((model.infer(x).code - predicted(model, x)).square().sum().detach())

    first = distance()
    for _ in range(30):
        learner.step(Batch({"x": x}), rate=0.2)
    assert distance() < 0.5 * first


def test_without_an_encoder_the_error_says_what_to_add() -> None:
    model = Model(
        decoder=LinearDecoder(units=UNITS), terms={"data": SquaredError(), "p": CodePrediction()}, solver=Fista()
    )
    model.build((INPUTS,))
    with pytest.raises(InputError, match=r"'prediction'.*\[model\.encoder\]"):
        model.infer(torch.randn(2, INPUTS, generator=torch.Generator().manual_seed(0)))
