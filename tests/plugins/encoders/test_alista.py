"""Analytic weights against a numerical minimiser, the unrolled steps against the paper's formula, in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import LinearConstraint, minimize
from torch import Tensor

from groundstate.components import Context
from groundstate.errors import InputError
from groundstate.structure import LinearMap
from groundstate_plugins.encoders.alista import Alista, analytic_weights

INPUTS, UNITS = 6, 10


def dictionary(inputs: int = INPUTS) -> Tensor:
    d = torch.randn(inputs, UNITS, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return d / d.norm(dim=0)


def built(**fields: object) -> Alista:
    encoder = Alista(**fields)
    decoder = LinearMap(matrix=dictionary())
    encoder.build(Context((INPUTS,), (UNITS,), torch.Generator(), decoder=decoder))
    return encoder.double()


def test_the_analytic_weights_minimise_the_coherence_of_each_column() -> None:
    d = dictionary()
    found = analytic_weights(d).numpy()
    np.testing.assert_allclose((found * d.numpy()).sum(0), 1, rtol=1e-10)
    gram = (d @ d.T).numpy()
    for unit in range(UNITS):
        column = d[:, unit].numpy()
        best = minimize(
            lambda w: w @ gram @ w,
            column,
            jac=lambda w: 2 * gram @ w,
            constraints=LinearConstraint(column[None], 1, 1),
            method="trust-constr",
            options={"gtol": 1e-12, "maxiter": 2000},
        )
        np.testing.assert_allclose(found[:, unit], best.x, atol=1e-6)


def test_weights_of_a_dictionary_with_dependent_rows_keep_the_constraint() -> None:
    d = dictionary()
    d[1] = d[0]
    np.testing.assert_allclose((analytic_weights(d) * d).sum(0), 1, rtol=1e-8)


def test_a_step_is_that_of_the_paper() -> None:
    """Liu et al. 2019, eq. 15, with support selection as in their code: in the top share and above the threshold."""
    encoder = built(steps=4, selection=0.1, selection_most=0.3, first=0.3, last=0.1)
    x = torch.randn(7, INPUTS, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    d, w = dictionary().numpy(), analytic_weights(dictionary()).numpy()
    z = np.zeros((7, UNITS))
    for t, theta in enumerate(0.3 * (1 / 3) ** np.linspace(0, 1, 4)):
        v = z - (z @ d.T - x.numpy()) @ w
        shrunk = np.sign(v) * np.maximum(np.abs(v) - theta, 0)
        count = round(min(0.1 * (t + 1), 0.3) * UNITS)
        least = np.sort(np.abs(v), axis=1)[:, -count][:, None]
        z = np.where((np.abs(v) >= least) & (np.abs(v) > theta), v, shrunk)
    np.testing.assert_allclose(encoder(x).detach().numpy(), z, atol=1e-7)


def test_without_selection_each_entry_is_shrunk() -> None:
    encoder = built(steps=1, selection=0.0, first=0.2)
    x = torch.randn(3, INPUTS, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    v = x @ analytic_weights(dictionary())
    expected = v.sign() * (v.abs() - 0.2).clamp_min(0)
    torch.testing.assert_close(encoder(x), expected, atol=1e-7, rtol=0)


def test_it_recovers_a_sparse_code_of_an_incoherent_dictionary() -> None:
    d = torch.linalg.qr(torch.randn(20, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).Q
    encoder = Alista(steps=30, first=0.5, last=1e-4, selection=0.0)
    encoder.build(Context((20,), (20,), torch.Generator(), decoder=LinearMap(matrix=d)))
    z = torch.zeros(1, 20, dtype=torch.float64)
    z[0, [2, 7]] = torch.tensor([1.0, -2.0], dtype=torch.float64)
    torch.testing.assert_close(encoder.double()(z @ d.T), z, atol=1e-3, rtol=0)


def test_no_dictionary_is_refused() -> None:
    with pytest.raises(InputError, match="belong to a dictionary"):
        Alista().build(Context((INPUTS,), (UNITS,), torch.Generator()))
