"""Filters by gradient over their unit's mean square code, against the formula and on local filters."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from groundstate.data import Batch
from groundstate.errors import InputError
from groundstate.learning import Learning
from groundstate.model import Model
from groundstate_plugins.decoders.convolutional import ConvolutionalDecoder
from groundstate_plugins.decoders.linear import LinearDecoder
from groundstate_plugins.decoders.local import LocalDecoder
from groundstate_plugins.learners.scaled_gradient import ScaledGradient
from groundstate_plugins.reconstructions.squared_error import SquaredError
from groundstate_plugins.regularisers.group import Group
from groundstate_plugins.regularisers.l1 import L1
from groundstate_plugins.solvers.fista import Fista


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_two_steps_are_those_of_the_formula() -> None:
    model = Model(
        terms={"data": SquaredError(weight=2.0), "sparsity": L1(weight=0.2)},
        decoder=LinearDecoder(units=6, constraint="none"),
        solver=Fista(),
    ).build((4,))
    d = model.get_parameter("decoder.dictionary").detach().clone()
    learning = Learning(model, ScaledGradient(step=0.3, momentum=0.6))
    assert learning.taken == {"decoder.dictionary"}
    gradient, square = torch.zeros_like(d), torch.zeros(6)
    for number in (1, 2):
        x = normal(30, 4, seed=number)
        z = learning.step(Batch({"x": x}), rate=1.0).solution.code
        gradient = 0.6 * gradient - 0.4 * 2 * (x - z @ d.T).T @ z / 30
        square = 0.9 * square + 0.1 * z.square().mean(0)
        scale = square / (1 - 0.9**number)
        d = d - 0.3 * gradient / (1 - 0.6**number) / (scale + 0.1 * scale.mean())
        torch.testing.assert_close(model.get_parameter("decoder.dictionary").detach(), d)


def test_local_filters_learn_and_stay_on_the_sphere() -> None:
    model = Model(
        terms={"data": SquaredError(), "groups": Group(weight=0.1, sheet=(8, 8), window=(3, 3), smoothing=1e-3)},
        decoder=LocalDecoder(size=4, stride=2, block=2, constraint="sphere"),
        solver=Fista(max_iterations=50),
    ).build((1, 10, 10))
    learning = Learning(model, ScaledGradient())
    x = torch.nn.functional.avg_pool2d(normal(200, 1, 12, 12), 3, 1)
    before = model.infer(x).energy
    for first in range(0, 200, 20):
        learning.step(Batch({"x": x[first : first + 20]}), rate=1e-3)
    after = model.infer(x).energy
    assert before is not None
    assert after is not None
    assert float(after.mean()) < 0.95 * float(before.mean())
    norms = model.get_parameter("decoder.filters").detach().flatten(3).norm(dim=3)
    torch.testing.assert_close(norms, torch.ones_like(norms))


def test_filters_that_units_share_are_refused() -> None:
    model = Model(
        terms={"data": SquaredError(), "sparsity": L1()}, decoder=ConvolutionalDecoder(maps=3, size=3), solver=Fista()
    ).build((1, 8, 8))
    with pytest.raises(InputError, match="every unit has a filter of its own"):
        Learning(model, ScaledGradient())
