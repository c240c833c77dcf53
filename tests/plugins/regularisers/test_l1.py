"""‖z‖₁: value, prox, dual norm."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from torch import Tensor

from groundstate.structure import L1 as L1Form
from groundstate.structure import Ridge
from groundstate_plugins.regularisers.l1 import L1


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(6,), (2, 3, 1)])
def test_the_energy_is_the_sum_of_absolute_values(shape: tuple[int, ...]) -> None:
    z = normal(4, *shape)
    np.testing.assert_allclose(L1().energy(z), np.abs(z.numpy()).reshape(4, -1).sum(1), rtol=1e-14)


def test_the_gradient_against_finite_differences() -> None:
    z = normal(3, 5)
    assert float(z.abs().min()) > 1e-3
    assert torch.autograd.gradcheck(L1().energy, z.requires_grad_())


@settings(max_examples=50)
@given(v=st.floats(-5, 5), step=st.floats(0, 3), non_negative=st.booleans(), as_tensor=st.booleans())
def test_the_prox_against_a_numerical_minimiser(v: float, step: float, non_negative: bool, as_tensor: bool) -> None:
    span = (0.0 if non_negative else -6.0, 6.0)

    def objective(u: float) -> float:
        return step * abs(u) + 0.5 * (u - v) ** 2

    best = minimize_scalar(objective, bounds=span, method="bounded", options={"xatol": 1e-10})
    given_step = torch.tensor([[step]], dtype=torch.float64) if as_tensor else step
    found = float(L1(non_negative=non_negative).prox(torch.tensor([[v]], dtype=torch.float64), given_step))
    assert span[0] <= found <= span[1]
    assert objective(found) <= best.fun + 1e-12
    assert found == pytest.approx(best.x, abs=1e-6)


@pytest.mark.parametrize("non_negative", [False, True])
def test_the_prox_is_firmly_non_expansive(non_negative: bool) -> None:
    term, (v, w) = L1(non_negative=non_negative), normal(2, 100, 8)
    moved = term.prox(v, 0.7) - term.prox(w, 0.7)
    assert bool((moved.square().sum(1) <= (moved * (v - w)).sum(1) + 1e-12).all())


@pytest.mark.parametrize("non_negative", [False, True])
def test_the_dual_norm_is_the_largest_product_over_the_unit_ball(non_negative: bool) -> None:
    """A linear function is largest at a corner of the ball {‖u‖₁ ≤ 1} (of its part u ≥ 0), or at 0."""
    c = normal(5, 6)
    corners = torch.cat([torch.zeros(1, 6), torch.eye(6), torch.zeros(6, 6) if non_negative else -torch.eye(6)])
    expected = (c @ corners.double().T).amax(1)
    torch.testing.assert_close(L1(non_negative=non_negative).dual_norm(c), expected)
    assert L1(non_negative=True).dual_norm(-c.abs()).tolist() == [0.0] * 5


@pytest.mark.parametrize("signs", [(False, False), (True, False), (False, True)])
def test_applied_one_after_the_other_two_are_their_sum(signs: tuple[bool, bool]) -> None:
    v = normal(20, 6)
    one, other = (L1(non_negative=sign) for sign in signs)
    assert other.prox_after([one.structure()])
    joint = L1(non_negative=any(signs))
    torch.testing.assert_close(other.prox(one.prox(v, 0.3), 0.4), joint.prox(v, 0.7))


def test_it_follows_nothing_but_its_kind() -> None:
    assert L1().prox_after([])
    assert not L1().prox_after([None])
    assert not L1().prox_after([L1Form(), Ridge()])


def test_it_tells_its_form() -> None:
    assert L1().structure() == L1Form()
    assert L1(non_negative=True).structure() == L1Form(non_negative=True)
    assert (L1().non_negative, L1(non_negative=True).non_negative) == (False, True)
    assert L1().formula() == "‖z‖₁"
    assert "z ≥ 0" in L1(non_negative=True).formula()
