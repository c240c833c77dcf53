"""Native lasso codes: against the reference solver and scikit-learn, in hard cases, for any batching and threads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from sklearn.linear_model import ElasticNet, Lasso
from torch import Tensor

from groundstate import Solution, infer
from groundstate_plugins.regularisers.l1 import L1
from groundstate_plugins.regularisers.l2 import L2


@pytest.fixture(autouse=True)
def same_threads_after() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def native(x: Tensor, d: Tensor, *terms: L1 | L2, tolerance: float = 1e-9, start: Tensor | None = None) -> Solution:
    return infer(x, dictionary=d, terms=terms, tolerance=tolerance, start=start, backend="cpu-native")


def gap_of(x: Tensor, d: Tensor, z: Tensor, level: float, *, non_negative: bool = False, ridge: float = 0.0) -> Tensor:
    """The lasso's duality gap over ½‖x‖², from its textbook formula: the elastic net is a lasso on (x, 0), (D, √ρ)."""
    units = d.shape[1]
    x, d = torch.cat([x, x.new_zeros(len(x), units)], 1), torch.cat([d, ridge**0.5 * torch.eye(units).to(d)])
    r = x - z @ d.T
    c = r @ d
    top = c.amax(1) if non_negative else c.abs().amax(1)
    dual = r * (level / top.clamp_min(level))[:, None]
    primal = 0.5 * r.square().sum(1) + level * z.abs().sum(1)
    return (primal - (0.5 * x.square().sum(1) - 0.5 * (x - dual).square().sum(1))) / (0.5 * x.square().sum(1))


@pytest.mark.parametrize("ridge", [0.0, 0.3])
@pytest.mark.parametrize("non_negative", [False, True])
def test_codes_are_those_of_scikit_learn(non_negative: bool, ridge: float) -> None:
    x, d, level = draw(20, 30), draw(30, 40, seed=1), 3.0
    found = native(x, d, L1(weight=level, non_negative=non_negative), *([L2(weight=ridge)] if ridge else []))
    kwargs = {"fit_intercept": False, "positive": non_negative, "tol": 1e-12, "max_iter": 100_000}
    total = level / 30 + ridge / 30
    for row, code in zip(x, found.code, strict=True):
        model = ElasticNet(total, l1_ratio=level / 30 / total, **kwargs) if ridge else Lasso(level / 30, **kwargs)
        torch.testing.assert_close(code, torch.from_numpy(model.fit(d.numpy(), row.numpy()).coef_), atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("ridge", [0.0, 0.1])
@pytest.mark.parametrize("non_negative", [False, True])
def test_the_certificate_is_true(non_negative: bool, ridge: float, dtype: torch.dtype) -> None:
    x, d = draw(50, 16, dtype=dtype), torch.nn.functional.normalize(draw(16, 40, seed=1, dtype=dtype), dim=0)
    terms = [L1(weight=0.2, non_negative=non_negative), *([L2(weight=ridge)] if ridge else [])]
    found = native(x, d, *terms, tolerance=1e-6)
    own = gap_of(x.double(), d.double(), found.code.double(), 0.2, non_negative=non_negative, ridge=ridge)
    assert found.certificate is not None
    assert float(own.max()) <= 1e-6
    torch.testing.assert_close(found.certificate.relative.double(), own, rtol=1e-3, atol=1e-9)
    generic = infer(x, dictionary=d, terms=terms, tolerance=1e-6)
    assert generic.energy is not None
    torch.testing.assert_close(found.energy, generic.energy, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("non_negative", [False, True])
def test_supports_as_large_as_the_input_are_exact(non_negative: bool, twice: bool) -> None:
    x, d = draw(20, 40), torch.nn.functional.normalize(draw(40, 160, seed=1), dim=0)
    d = torch.cat([d, d], 1) if twice else d
    found = native(x, d, L1(weight=0.01, non_negative=non_negative), tolerance=1e-10)
    assert float((found.code != 0).double().sum(1).mean()) > 30
    assert float(gap_of(x, d, found.code, 0.01, non_negative=non_negative).max()) <= 1.1e-10


@settings(max_examples=60, deadline=None)
@given(
    inputs=some.integers(1, 9),
    units=some.integers(1, 24),
    samples=some.integers(1, 5),
    kind=some.sampled_from(["plain", "duplicates", "zero atom", "alike", "x = 0"]),
    level=some.floats(1e-3, 30),
    non_negative=some.booleans(),
    seed=some.integers(0, 1000),
)
def test_hard_cases_are_certified(
    inputs: int, units: int, samples: int, kind: str, level: float, non_negative: bool, seed: int
) -> None:
    x, d = draw(samples, inputs, seed=seed), draw(inputs, units, seed=seed + 1)
    if kind == "duplicates":
        d = torch.cat([d, d, -d], 1)
    elif kind == "zero atom":
        d[:, units // 2] = 0
    elif kind == "alike":
        d = d[:, :1] + 0.05 * d
    elif kind == "x = 0":
        x[0] = 0
    found = native(x, d, L1(weight=level, non_negative=non_negative), tolerance=1e-8)
    assert bool(found.code.isfinite().all())
    gap = gap_of(x, d, found.code, level, non_negative=non_negative)
    assert float(gap.nan_to_num(0).max()) <= 1.1e-8
    assert not non_negative or float(found.code.min()) >= 0
    if kind == "zero atom":
        assert not bool(found.code[:, units // 2].any())


def test_a_code_does_not_depend_on_its_batch_or_the_threads() -> None:
    x, d = draw(300, 16), draw(16, 40, seed=1)
    torch.set_num_threads(1)
    together = native(x, d, L1(weight=1.0)).code
    torch.set_num_threads(2)
    torch.testing.assert_close(native(x, d, L1(weight=1.0)).code, together, rtol=1e-9, atol=1e-12)
    alone = torch.cat([native(x[row : row + 1], d, L1(weight=1.0)).code for row in range(5)])
    torch.testing.assert_close(alone, together[:5], rtol=1e-9, atol=1e-12)


def test_a_warm_start_ends_at_the_same_code() -> None:
    x, d = draw(30, 16), draw(16, 40, seed=1)
    cold = native(x, d, L1(weight=1.0)).code
    for start in (cold, cold + 0.1, draw(30, 40, seed=2)):
        torch.testing.assert_close(native(x, d, L1(weight=1.0), start=start).code, cold, rtol=1e-4, atol=1e-5)


def test_a_sample_that_is_not_finite_spoils_no_other() -> None:
    x, d = draw(4, 16), draw(16, 40, seed=1)
    clean = native(x, d, L1(weight=1.0)).code
    x[1, 3] = torch.nan
    found = native(x, d, L1(weight=1.0))
    assert bool(found.code[1].isnan().all())
    torch.testing.assert_close(found.code[[0, 2, 3]], clean[[0, 2, 3]])
    assert found.certificate is not None
    assert found.certificate.relative.isnan().tolist() == [False, True, False, False]
