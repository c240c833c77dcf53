"""½‖z‖²: value, gradient, form."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from groundstate.structure import Ridge
from groundstate_plugins.regularisers.l2 import L2


@pytest.mark.parametrize("shape", [(6,), (2, 3, 1)])
def test_value_and_gradient(shape: tuple[int, ...]) -> None:
    z = torch.randn(4, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    value = L2().energy(z)
    np.testing.assert_allclose(value.detach(), 0.5 * (z.detach().numpy() ** 2).reshape(4, -1).sum(1), rtol=1e-14)
    (expected,) = torch.autograd.grad(value.sum(), z)
    torch.testing.assert_close(L2().gradient(z), expected)


def test_it_is_smooth_and_tells_its_form() -> None:
    assert L2().prox is None
    assert L2.quadratic
    assert L2().structure() == Ridge()
