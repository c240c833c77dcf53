"""Plain gradient descent takes nothing for itself; the step is tested in tests/core/test_learning.py."""

from __future__ import annotations

import torch

from groundstate.data import Batch
from groundstate.learning import Learning
from groundstate.model import Model
from groundstate_plugins.decoders.linear import LinearDecoder
from groundstate_plugins.learners.gradient import Gradient
from groundstate_plugins.reconstructions.squared_error import SquaredError
from groundstate_plugins.regularisers.l1 import L1
from groundstate_plugins.solvers.fista import Fista


def test_one_step_of_sgd_is_the_residual_times_the_code() -> None:
    """∂/∂D of the mean of ½‖x − Dz‖² at fixed z is −(x − Dz)zᵀ, averaged (envelope theorem)."""
    model = Model(
        terms={"data": SquaredError(), "sparsity": L1(weight=0.2)},
        decoder=LinearDecoder(units=6, constraint="none"),
        solver=Fista(),
    ).build((4,))
    x = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    before = model.get_parameter("decoder.dictionary").detach().clone()
    learning = Learning(model, Gradient(optimiser="sgd"))
    assert learning.taken == frozenset()
    z = learning.step(Batch({"x": x}), rate=0.1).solution.code
    expected = before + 0.1 * (x - z @ before.T).T @ z / len(x)
    torch.testing.assert_close(model.get_parameter("decoder.dictionary").detach(), expected)
