"""The kernel for overlapping pools against a quasi-Newton method's minimum and the generic solver."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from scipy.optimize import minimize
from torch import Tensor

from groundstate import infer
from groundstate_plugins.regularisers.group import Group
from groundstate_plugins.regularisers.l2 import L2

pytest.importorskip("numba")
TORUS = {"sheet": (4, 6), "window": (3, 3)}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def dictionary(inputs: int, units: int, seed: int = 1) -> Tensor:
    return torch.nn.functional.normalize(draw(inputs, units, seed=seed), dim=0)


def lowest(x: Tensor, d: Tensor, pools: list[list[int]], level: float) -> float:
    """The energy's minimum by a smoothed quasi-Newton method, from above, to about 1e-6."""
    data, atoms, epsilon = x.numpy(), d.numpy(), 1e-13

    def cost(z: np.ndarray) -> tuple[float, np.ndarray]:
        residual = atoms @ z - data
        value, slope = 0.5 * residual @ residual, atoms.T @ residual
        for pool in pools:
            norm = np.sqrt(z[pool] @ z[pool] + epsilon)
            value += level * norm
            slope[pool] += level * z[pool] / norm
        return value, slope

    options = {"maxiter": 20_000, "maxfun": 40_000, "ftol": 1e-16, "gtol": 1e-10}
    return float(minimize(cost, np.full(atoms.shape[1], 1e-3), jac=True, method="L-BFGS-B", options=options).fun)


def test_the_energy_is_the_minimum() -> None:
    x, d = draw(4, 10), dictionary(10, 12)
    pools = [[i, (i + 1) % 12, (i + 2) % 12] for i in range(12)]
    found = infer(x, dictionary=d, terms=[Group(pools=pools, weight=0.2)], tolerance=1e-8, backend="cpu-native")
    assert found.energy is not None
    for row in range(4):
        assert float(found.energy[row]) == pytest.approx(lowest(x[row], d, pools, 0.2), rel=3e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("ridge", [0.0, 0.2])
@pytest.mark.parametrize("non_negative", [False, True])
def test_codes_are_those_of_the_generic_solver(non_negative: bool, ridge: float, dtype: torch.dtype) -> None:
    x, d = draw(6, 16).to(dtype), dictionary(16, 24).to(dtype)
    terms = [Group(**TORUS, weight=0.15, non_negative=non_negative), *([L2(weight=ridge)] if ridge else [])]
    fast = infer(x, dictionary=d, terms=terms, tolerance=1e-6, backend="cpu-native")
    exact = infer(x.double(), dictionary=d.double(), terms=terms, tolerance=1e-9, max_iterations=20_000)
    assert fast.certificate is not None
    assert float(fast.certificate.relative.max()) <= 1e-6
    torch.testing.assert_close(fast.energy, exact.energy, rtol=1e-5, atol=1e-5, check_dtype=False)
    torch.testing.assert_close(fast.code.double(), exact.code, rtol=1e-2, atol=1e-2)
    # the generic certificate, which knows nothing of the kernel's multipliers, agrees
    generic = infer(x.double(), dictionary=d.double(), terms=terms, start=fast.code.double(), max_iterations=0)
    assert generic.certificate is not None
    assert float(generic.certificate.relative.max()) <= 3e-6


@settings(max_examples=25, deadline=None)
@given(
    inputs=some.integers(1, 9),
    units=some.integers(1, 9),
    kind=some.sampled_from(["plain", "duplicates", "zero atom", "x = 0"]),
    level=some.floats(1e-2, 30),
    non_negative=some.booleans(),
    seed=some.integers(0, 1000),
)
def test_hard_cases_are_certified(
    inputs: int, units: int, kind: str, level: float, non_negative: bool, seed: int
) -> None:
    x, d = draw(3, inputs, seed=seed), draw(inputs, 2 * units, seed=seed + 1)
    if kind == "duplicates":
        d[:, units:] = d[:, :units]
    elif kind == "zero atom":
        d[:, 0] = 0
    elif kind == "x = 0":
        x[0] = 0
    draws = np.random.default_rng(seed)
    pools = [[unit, *(int(u) for u in draws.permutation(2 * units)[:2] if u != unit)] for unit in range(2 * units)]
    weights = [[float(w) for w in draws.uniform(0.3, 2, len(pool))] for pool in pools]
    term = Group(pools=pools, pool_weights=weights, weight=level, non_negative=non_negative)
    found = infer(x, dictionary=d, terms=[term], tolerance=1e-6, backend="cpu-native")
    assert found.certificate is not None
    assert float(found.certificate.relative.max()) <= 1e-6
    # the minimum lies between the energy less the gap and the energy, and the generic solver's energy above it
    exact = infer(x, dictionary=d, terms=[term], tolerance=1e-7, max_iterations=500)
    assert found.energy is not None
    assert exact.energy is not None
    slack = 1e-6 * (0.5 * x.square().sum(1) + 1e-12)
    assert bool((found.energy <= exact.energy + 1.01 * slack).all())
    assert bool((found.energy - found.certificate.value <= exact.energy + 1e-3 * slack).all())
    assert not non_negative or float(found.code.min()) >= 0
    assert kind != "x = 0" or float(found.code[0].abs().max()) == 0


def test_above_the_largest_weight_codes_are_exactly_zero() -> None:
    x, d = draw(5, 16), dictionary(16, 24)
    found = infer(x, dictionary=d, terms=[Group(**TORUS, weight=30.0)], backend="cpu-native")
    assert int(found.code.count_nonzero()) == 0


def test_pools_at_zero_are_exactly_so_and_warm_starts_change_nothing() -> None:
    x, d, term = draw(5, 16), dictionary(16, 24), Group(**TORUS, weight=0.4)
    cold = infer(x, dictionary=d, terms=[term], tolerance=1e-9, backend="cpu-native")
    assert 0.05 < float((cold.code == 0).double().mean()) < 1
    warm = infer(x, dictionary=d, terms=[term], tolerance=1e-9, start=cold.code, backend="cpu-native")
    torch.testing.assert_close(warm.code, cold.code, rtol=0, atol=1e-4)
    alone = infer(x[3:4], dictionary=d, terms=[term], tolerance=1e-9, backend="cpu-native")
    torch.testing.assert_close(alone.code, cold.code[3:4], rtol=0, atol=1e-12)
