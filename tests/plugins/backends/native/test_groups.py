"""Native codes under disjoint groups: against the generic solver, and their gap by its textbook formula."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from torch import Tensor

from groundstate import infer
from groundstate_plugins.regularisers.group import Group
from groundstate_plugins.regularisers.l2 import L2


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gap_of(x: Tensor, d: Tensor, z: Tensor, level: float, size: int, *, non_negative: bool) -> Tensor:
    """P(z) − D(θ) of the group lasso, over ½‖x‖²."""
    r = x - z @ d.T
    c = r @ d
    c = c.clamp_min(0) if non_negative else c
    top = c.view(len(x), -1, size).norm(dim=2).amax(1)
    dual = r * (level / top.clamp_min(level))[:, None]
    primal = 0.5 * r.square().sum(1) + level * z.view(len(x), -1, size).norm(dim=2).sum(1)
    return (primal - (0.5 * x.square().sum(1) - 0.5 * (x - dual).square().sum(1))) / (0.5 * x.square().sum(1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("ridge", [0.0, 0.2])
@pytest.mark.parametrize("non_negative", [False, True])
def test_codes_are_those_of_the_generic_solver(non_negative: bool, ridge: float, dtype: torch.dtype) -> None:
    x, d = draw(20, 16).to(dtype), torch.nn.functional.normalize(draw(16, 24, seed=1), dim=0).to(dtype)
    terms = [Group(size=4, weight=0.4, non_negative=non_negative), *([L2(weight=ridge)] if ridge else [])]
    fast = infer(x, dictionary=d, terms=terms, tolerance=1e-6, backend="cpu-native")
    exact = infer(x.double(), dictionary=d.double(), terms=terms, tolerance=1e-11, max_iterations=20_000)
    assert fast.certificate is not None
    assert float(fast.certificate.relative.max()) <= 1e-6
    torch.testing.assert_close(fast.code.double(), exact.code, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(fast.energy, exact.energy, rtol=1e-5, atol=1e-5, check_dtype=False)
    assert not bool((fast.iterations == 10_000).any())  # a kernel's iterations


@settings(max_examples=40, deadline=None)
@given(
    inputs=some.integers(1, 9),
    groups=some.integers(1, 6),
    size=some.integers(1, 4),
    kind=some.sampled_from(["plain", "duplicates", "zero atom", "x = 0"]),
    level=some.floats(1e-2, 30),
    non_negative=some.booleans(),
    seed=some.integers(0, 1000),
)
def test_hard_cases_are_certified(
    inputs: int, groups: int, size: int, kind: str, level: float, non_negative: bool, seed: int
) -> None:
    x, d = draw(3, inputs, seed=seed), draw(inputs, groups * size, seed=seed + 1)
    if kind == "duplicates":
        d = torch.cat([d, d], 1)
    elif kind == "zero atom":
        d[:, 0] = 0
    elif kind == "x = 0":
        x[0] = 0
    terms = [Group(size=size, weight=level, non_negative=non_negative)]
    found = infer(x, dictionary=d, terms=terms, tolerance=1e-6, backend="cpu-native")
    gap = gap_of(x, d, found.code, level, size, non_negative=non_negative)
    assert float(gap.nan_to_num(0).max()) <= 1.1e-6
    assert not non_negative or float(found.code.min()) >= 0
