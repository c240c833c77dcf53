"""Orthogonal matching pursuit: against scikit-learn's, and where it stops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import orthogonal_mp

from groundstate import infer
from groundstate_plugins.backends import cpu_native
from groundstate_plugins.regularisers.l0 import L0

pytestmark = pytest.mark.skipif(not cpu_native.installed(), reason="numba is not installed")


def made(units: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    d = torch.randn(20, units, generator=draw, dtype=torch.float64)
    return torch.randn(30, 20, generator=draw, dtype=torch.float64), d / d.norm(dim=0)


@pytest.mark.parametrize("scaled", [False, True])
def test_codes_are_those_of_orthogonal_matching_pursuit(scaled: bool) -> None:
    x, d = made()
    if scaled:  # the energy depends on the columns' directions alone
        d = d * torch.linspace(0.5, 2, 40, dtype=torch.float64)
    solution = infer(x, dictionary=d, terms=[L0(weight=0.5)], backend="cpu-native")
    unit = (d / d.norm(dim=0)).numpy()
    counts = (solution.code != 0).sum(1)
    assert counts.tolist() == solution.iterations.tolist()
    assert len(set(counts.tolist())) > 2
    for row in range(len(x)):
        count = int(counts[row])
        expected = orthogonal_mp(unit, x[row].numpy(), n_nonzero_coefs=count) if count else np.zeros(40)
        np.testing.assert_allclose(solution.code[row].numpy() * d.norm(dim=0).numpy(), expected, atol=1e-9)


def test_it_stops_where_one_more_unit_does_not_pay() -> None:
    x, d = made()
    weight = 0.5
    solution = infer(x, dictionary=d, terms=[L0(weight=weight)], backend="cpu-native")
    for row in range(len(x)):
        count = int((solution.code[row] != 0).sum())
        half = [0.5 * float(x[row].square().sum())]
        for size in range(1, count + 2):
            z = orthogonal_mp(d.numpy(), x[row].numpy(), n_nonzero_coefs=size)
            half.append(0.5 * float(((x[row].numpy() - d.numpy() @ z) ** 2).sum()))
        gains = -np.diff(half)
        assert (gains[:count] > weight).all()
        assert gains[count] <= weight


def test_twin_columns_and_a_blank_one_do_no_harm() -> None:
    x, d = made(8)
    d = torch.cat([d, d[:, :2], torch.zeros(20, 1, dtype=torch.float64)], 1)
    solution = infer(x, dictionary=d, terms=[L0(weight=1e-15)], backend="cpu-native")
    best = torch.linalg.lstsq(d[:, :8], x.T).solution
    torch.testing.assert_close(solution.code @ d.T, (d[:, :8] @ best).T)
