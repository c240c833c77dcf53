"""Parameters: the sets they stay in, and what pruning makes of how they learn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from groundstate.parameters import Constraint, NonNegative, NormBound, ParameterSpec, select_units


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def projected(constraint: Constraint, value: Tensor) -> Tensor:
    result = value.clone()
    constraint.project_(result)
    return result


@pytest.mark.parametrize("dims", [(0,), (1,), (0, 1), (0, 2)])
@pytest.mark.parametrize("radius", [0.3, 1.0, 5.0])
def test_the_ball_shrinks_what_is_outside_and_leaves_the_rest(dims: tuple[int, ...], radius: float) -> None:
    value = normal(4, 5, 3)
    found = projected(NormBound(dims, radius), value).numpy()
    norm = np.sqrt((value.numpy() ** 2).sum(axis=dims, keepdims=True))
    np.testing.assert_allclose(found, value.numpy() * np.minimum(1, radius / norm), rtol=1e-12)


@pytest.mark.parametrize("radius", [0.3, 1.0, 5.0])
def test_the_sphere_keeps_directions_and_sets_norms(radius: float) -> None:
    value = normal(4, 5)
    found = projected(NormBound((0,), radius, sphere=True), value).numpy()
    np.testing.assert_allclose(np.linalg.norm(found, axis=0), radius, rtol=1e-12)
    np.testing.assert_allclose(found / radius, value.numpy() / np.linalg.norm(value.numpy(), axis=0), rtol=1e-12)


@pytest.mark.parametrize("sphere", [False, True])
@pytest.mark.parametrize("radius", [0.3, 50.0])
@pytest.mark.parametrize("size", [0.0, 1e-42, 1e-30])
def test_columns_near_zero_stay_finite(size: float, radius: float, sphere: bool) -> None:
    value = torch.full((3, 2), size, dtype=torch.float32)
    found = projected(NormBound((0,), radius, sphere=sphere), value)
    assert bool(torch.isfinite(found).all())
    if size == 0 or not sphere:
        assert torch.equal(found, value)


@pytest.mark.parametrize(
    "constraint", [NormBound((0,), 0.7), NormBound((0, 1), 2.0), NonNegative()], ids=["columns", "all", "orthant"]
)
@given(seed=st.integers(0, 10_000), size=st.floats(1e-3, 1e3))
def test_the_projection_on_a_convex_set_is_its_nearest_point(constraint: Constraint, seed: int, size: float) -> None:
    """⟨v − p, q − p⟩ ≤ 0 for every q of the set."""
    value = size * normal(5, 4, seed=seed)
    found = projected(constraint, value)
    assert constraint.violation(found) <= 1e-12 * size
    for other in (projected(constraint, normal(5, 4, seed=seed + 1)), torch.zeros_like(value)):
        assert float(((value - found) * (other - found)).sum()) <= 1e-10 * size**2


def test_violations_are_in_units_of_the_entries() -> None:
    value = torch.tensor([[3.0, 0.3], [4.0, 0.4]], dtype=torch.float64)
    assert NormBound((0,), 2.0).violation(value) == pytest.approx(3.0)
    assert NormBound((0,), 5.0).violation(value) == 0
    assert NormBound((0,), 2.0, sphere=True).violation(value) == pytest.approx(3.0)
    assert NormBound((0,), 5.0, sphere=True).violation(value) == pytest.approx(4.5)
    assert NonNegative().violation(value) == 0
    assert NonNegative().violation(-value) == 4.0


def test_only_bounded_sets_say_that_they_are() -> None:
    assert NormBound((0,)).bounded
    assert not NonNegative().bounded


def test_select_units_takes_them_on_every_named_axis_in_their_order() -> None:
    value, units = normal(4, 3, 4), torch.tensor([2, 0])
    assert torch.equal(select_units(value, (0, 2), units), value[[2, 0]][:, :, [2, 0]])
    assert torch.equal(select_units(value, (), units), value)


@dataclass(frozen=True)
class Mask(Constraint):
    """Zero where allowed is 0."""

    allowed: Tensor

    def project_(self, value: Tensor) -> None:
        value.mul_(self.allowed)

    def violation(self, value: Tensor) -> float:
        return float((value * (1 - self.allowed)).abs().max())

    def select(self, dim: int, units: Tensor) -> Constraint:
        return Mask(select_units(self.allowed, (dim,), units))


def test_a_pruned_spec_selects_its_constraint_on_every_axis_and_keeps_the_rest() -> None:
    allowed, units = (normal(4, 4) > 0).double(), torch.tensor([3, 1])
    spec = ParameterSpec("ascend", 0.25, Mask(allowed), (0, 1)).select(units)
    assert isinstance(spec.constraint, Mask)
    assert torch.equal(spec.constraint.allowed, allowed[[3, 1]][:, [3, 1]])
    assert (spec.direction, spec.rate, spec.unit_dims) == ("ascend", 0.25, (0, 1))
    bound = NormBound((0,), 2.0)
    assert ParameterSpec(constraint=bound, unit_dims=(1,)).select(units).constraint == bound
    assert ParameterSpec(unit_dims=(1,)).select(units) == ParameterSpec(unit_dims=(1,))
