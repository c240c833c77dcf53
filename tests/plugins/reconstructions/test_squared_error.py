"""½‖x − decoded‖², per sample."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from groundstate.structure import LeastSquares
from groundstate_plugins.reconstructions.squared_error import SquaredError


@pytest.mark.parametrize("shape", [(6,), (2, 3), (1, 2, 3)])
def test_it_sums_over_all_entries_of_a_sample(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    x, decoded = rng.normal(size=(2, 4, *shape))
    value = SquaredError().energy(torch.from_numpy(x), torch.from_numpy(decoded))
    np.testing.assert_allclose(value, 0.5 * ((x - decoded) ** 2).reshape(4, -1).sum(1), rtol=1e-14)


def test_the_gradient_against_finite_differences() -> None:
    x, decoded = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.autograd.gradcheck(SquaredError().energy, (x.requires_grad_(), decoded.requires_grad_()))
    assert torch.autograd.gradgradcheck(SquaredError().energy, (x, decoded))


def test_it_tells_its_form() -> None:
    assert SquaredError().structure() == LeastSquares()
    assert SquaredError.quadratic
    assert SquaredError().formula() == "½‖x − D z‖²"
