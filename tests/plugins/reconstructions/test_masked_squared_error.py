"""½‖m ∘ (x − decoded)‖²: value, and codes against each sample solved alone on its known entries."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso
from torch import Tensor

from groundstate import Batch, Problem, structure
from groundstate.api import FixedDictionary
from groundstate.energy import Energy
from groundstate.inference import solve
from groundstate_plugins.backends.cpu_native import CpuNative
from groundstate_plugins.reconstructions.masked_squared_error import MaskedSquaredError
from groundstate_plugins.regularisers.l1 import L1
from groundstate_plugins.solvers.auto import Auto

WEIGHT = 0.1


def made(fraction: float) -> tuple[Tensor, Tensor, Tensor]:
    """x (20, 16), a mask of it and a dictionary (16, 24) with unit columns."""
    draw = torch.Generator().manual_seed(3)
    x = torch.randn(20, 16, generator=draw, dtype=torch.float64)
    mask = (torch.rand(20, 16, generator=draw) < fraction).double()
    d = torch.randn(16, 24, generator=draw, dtype=torch.float64)
    return x, mask, d / d.norm(dim=0)


def problem(x: Tensor, mask: Tensor, d: Tensor) -> Problem:
    terms = {"data": MaskedSquaredError(), "sparsity": L1(weight=WEIGHT)}
    return Problem(Energy(terms, FixedDictionary(d)), Batch({"x": x, "mask": mask}), (24,), tolerance=1e-10)


@pytest.mark.parametrize("shape", [(6,), (2, 3)])
def test_it_sums_over_the_known_entries_of_a_sample(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    x, decoded = rng.normal(size=(2, 4, *shape))
    mask = (rng.random((4, *shape)) < 0.5).astype(float)
    found = MaskedSquaredError().energy(*map(torch.from_numpy, (x, decoded, mask)))
    expected = [0.5 * ((a - b)[m == 1] ** 2).sum() for a, b, m in zip(x, decoded, mask, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-13)


@pytest.mark.parametrize("fraction", [0.9, 0.3])
def test_codes_are_those_of_each_samples_known_entries_alone(fraction: float) -> None:
    x, mask, d = made(fraction)
    posed = problem(x, mask, d)
    solution = solve(posed, Auto(tolerance=1e-10, max_iterations=20_000), posed.zeros(), backend=CpuNative())
    assert solution.certificate is not None
    assert solution.certificate.kind == "gap"
    assert float(solution.certificate.relative.max()) <= 1e-10
    for row in range(len(x)):
        known = mask[row] == 1
        count = int(known.sum())
        lasso = Lasso(alpha=WEIGHT / count, fit_intercept=False, tol=1e-12, max_iter=100_000)
        lasso.fit(d[known].numpy(), x[row, known].numpy())
        np.testing.assert_allclose((solution.code[row] @ d.T).numpy()[known], d[known].numpy() @ lasso.coef_, atol=1e-4)
        value = 0.5 * float((x[row, known] - d[known] @ torch.from_numpy(lasso.coef_)).square().sum())
        assert float(solution.energy[row]) == pytest.approx(value + WEIGHT * np.abs(lasso.coef_).sum(), abs=1e-8)


def test_missing_entries_change_nothing() -> None:
    x, mask, d = made(0.5)
    filled = torch.where(mask == 1, x, torch.tensor(1e3, dtype=torch.float64))
    codes = [
        solve(problem(one, mask, d), Auto(tolerance=1e-8, max_iterations=5_000), torch.zeros(20, 24).double()).code
        for one in (x, filled)
    ]
    torch.testing.assert_close(*codes)


@pytest.mark.parametrize("soft", [False, True])
def test_the_closed_form_has_the_value_and_gradient_of_the_energy(soft: bool) -> None:
    x, mask, d = made(0.5)
    mask = mask * 0.5 if soft else mask
    posed = problem(x, mask, d)
    z = torch.randn(20, 24, generator=torch.Generator().manual_seed(5), dtype=torch.float64, requires_grad=True)
    value = MaskedSquaredError().energy(x, z @ d.T, mask)
    (slope,) = torch.autograd.grad(value.sum(), z)
    assert posed.linear is not None
    found, gradient = posed.smooth(z.detach())
    torch.testing.assert_close(found, value.detach())
    torch.testing.assert_close(gradient, slope)


def test_no_kernel_takes_what_the_samples_do_not_share() -> None:
    assert problem(*made(0.5)).structure is None
    assert MaskedSquaredError().structure() == structure.MaskedLeastSquares()
