"""The set of a learned inhibition matrix and the projection onto it, against independent solvers."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from groundstate_plugins.regularisers.inhibition_set import InhibitionSet

ROW_SUM = 5.0


def random(units: int, seed: int = 0) -> Tensor:
    return torch.randn(units, units, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def everyone(units: int) -> Tensor:
    return ~torch.eye(units, dtype=torch.bool)


def pairs(units: int, share: float, seed: int = 1) -> Tensor:
    drawn = torch.rand(units, units, generator=torch.Generator().manual_seed(seed)) < share
    return (drawn | drawn.T) & everyone(units)


def star(units: int) -> Tensor:
    mask = torch.zeros(units, units, dtype=torch.bool)
    mask[0, 1:] = mask[1:, 0] = True
    return mask


def path(units: int) -> Tensor:
    mask = torch.diag(torch.ones(units - 1), 1).bool()
    return mask | mask.T


def projected(value: Tensor, allowed: Tensor, row_sum: float = ROW_SUM) -> Tensor:
    result = value.clone()
    InhibitionSet(allowed, row_sum).project_(result)
    return result


def assert_inside(value: Tensor, allowed: Tensor, row_sum: float = ROW_SUM) -> None:
    assert torch.equal(value, value.T)
    assert float(value.min()) >= 0
    assert not bool(value[~allowed].any())
    assert float((value.sum(1) - row_sum).max()) <= 1e-12
    assert InhibitionSet(allowed, row_sum).violation(value) <= 1e-12


def by_scipy(value: Tensor, allowed: Tensor, row_sum: float) -> Tensor:
    """The nearest point by sequential quadratic programming over the free entries above the diagonal."""
    units = len(value)
    rows, columns = np.nonzero(np.triu(allowed.numpy()))
    target = 0.5 * (value + value.T).numpy()[rows, columns]
    incidence = np.zeros((units, len(rows)))
    incidence[rows, np.arange(len(rows))] = 1
    incidence[columns, np.arange(len(rows))] = 1
    found = minimize(
        lambda s: 0.5 * ((s - target) ** 2).sum(),
        np.zeros(len(rows)),
        jac=lambda s: s - target,
        bounds=[(0, None)] * len(rows),
        constraints={"type": "ineq", "fun": lambda s: row_sum - incidence @ s, "jac": lambda _: -incidence},
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 2000},
    )
    result = torch.zeros_like(value)
    result[rows, columns] = torch.from_numpy(found.x)
    return result + result.T


def by_dykstra(value: Tensor, allowed: Tensor, row_sum: float, rounds: int = 20_000) -> Tensor:
    """The nearest point by alternating exact projections onto rows' half-spaces, the orthant and the mask."""
    units = len(value)
    current = 0.5 * (value + value.T)
    free = torch.zeros_like(current)
    share = torch.zeros(units, dtype=torch.float64)
    for _ in range(rounds):
        before = current
        whole = current + free
        current = whole.clamp_min(0) * allowed
        free = whole - current
        for row in range(units):
            # the half-space Σ_j S_ij ≤ r in the symmetric matrices: its normal is 1 along the row and the column
            line = current[row] + share[row]
            line[row] = 0
            excess = max(0.0, float(line.sum()) - row_sum) / (units - 1)
            moved = current.clone()
            moved[row] = line - excess
            moved[:, row] = moved[row]
            moved[row, row] = 0
            share[row] = excess
            current = moved
        if float((current - before).abs().max()) < 1e-13:
            break
    return current


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("row_sum", [0.3, 2.0])
def test_the_projection_is_the_nearest_point(seed: int, row_sum: float) -> None:
    value = 2 * random(7, seed)
    allowed = everyone(7) if seed < 3 else pairs(7, 0.4, seed)
    expected = by_scipy(value, allowed, row_sum)
    torch.testing.assert_close(projected(value, allowed, row_sum), expected, rtol=0, atol=1e-6)


def test_the_projection_is_where_alternating_projections_end() -> None:
    value, allowed = random(16) + 0.5, pairs(16, 0.7)
    expected = by_dykstra(value, allowed, 2.0)
    found = projected(value, allowed, 2.0)
    assert float(found.sum(1).max()) == pytest.approx(2.0)  # the bound binds
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


MASKS = {
    "everyone": everyone(64),
    "few pairs": pairs(64, 0.05),
    "one pair": path(64) & (torch.arange(64) < 2) & (torch.arange(64) < 2)[:, None],
    "star": star(64),
    "path": path(64),
    "two sides": (torch.arange(64) < 20)[:, None] ^ (torch.arange(64) < 20)[None, :],
    "nobody": torch.zeros(64, 64, dtype=torch.bool),
}
VALUES = {
    "random": 3 * random(64),
    "a million times too large": 1e6 * ROW_SUM * random(64).abs(),
    "equal": torch.full((64, 64), 1e6, dtype=torch.float64),
    "zero": torch.zeros(64, 64, dtype=torch.float64),
    "negative": -random(64).abs(),
    "spikes": torch.where(random(64) > 2.5, 1e6, 1e-3).double(),
    "many scales": random(64).mul(4).exp(),
    "one row": torch.where(torch.arange(64)[:, None] == 3, 100.0, 0.01).double().expand(64, 64).contiguous(),
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("values", VALUES)
def test_extreme_matrices_come_inside_and_stay(values: str, mask: str) -> None:
    """Inside the set, again the same when projected again, and nearest: M − S lies in the set's normal cone."""
    value, allowed = VALUES[values], MASKS[mask]
    once = projected(value, allowed)
    assert_inside(once, allowed)
    torch.testing.assert_close(projected(once, allowed), once, rtol=0, atol=1e-14)
    away = 0.5 * (value + value.T) - once
    scale = float(value.abs().max()) or 1.0
    for other in (torch.zeros_like(once), projected(random(64, 9), allowed), projected(value.flip(0), allowed)):
        # rounding of the entries of M, once for each entry of S
        assert float((away * (other - once)).sum()) <= 1e-11 * scale * ROW_SUM * len(value)


def test_what_is_inside_stays_as_it_is() -> None:
    inside = random(10).abs() * 0.05 * everyone(10)
    inside = inside + inside.T
    assert torch.equal(projected(inside, everyone(10)), inside)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_same_input_gives_the_same_bits(dtype: torch.dtype) -> None:
    value, allowed = random(40).abs().to(dtype), everyone(40)
    first = projected(value, allowed)
    projected(random(40, 5), allowed)  # nothing of another call is kept
    again = projected(value.clone(), allowed)
    assert first.dtype == dtype
    assert torch.equal(first, again)
    assert torch.equal(first, first.T)
    assert float(first.sum(1).max()) <= ROW_SUM * (1 + 8 * torch.finfo(dtype).eps)


def test_a_matrix_that_is_not_finite_is_left_for_the_learner_to_report() -> None:
    value = random(4)
    value[1, 2] = torch.nan
    assert bool(projected(value, everyone(4)).isnan().any())


@pytest.mark.parametrize(
    ("spoil", "size"),
    [((0, 0), 0.3), ((1, 2), 0.4), ((0, 3), 7.0)],
    ids=["diagonal", "one side alone", "forbidden pair"],
)
def test_the_violation_says_how_far_outside(spoil: tuple[int, int], size: float) -> None:
    allowed = everyone(4)
    allowed[0, 3] = allowed[3, 0] = False
    value = torch.zeros(4, 4, dtype=torch.float64)
    value[spoil] = size
    assert InhibitionSet(allowed, 10.0).violation(value) == pytest.approx(size)
    assert InhibitionSet(allowed, 10.0).violation(torch.zeros(4, 4)) == 0
    assert InhibitionSet(everyone(4), 1.0).violation(0.5 * everyone(4).double()) == pytest.approx(0.5)
    assert InhibitionSet(everyone(4), 9.0).violation(-0.5 * everyone(4).double()) == pytest.approx(0.5)


def test_select_keeps_units_on_both_axes() -> None:
    allowed, kept = pairs(8, 0.5), torch.tensor([6, 1, 3])
    chosen = InhibitionSet(allowed, 2.0).select(0, kept).select(1, kept)
    assert isinstance(chosen, InhibitionSet)
    assert torch.equal(chosen.allowed, allowed[kept][:, kept])
    assert_inside(projected(random(3).abs(), chosen.allowed, 2.0), chosen.allowed, 2.0)


def test_axes_may_be_code_shapes() -> None:
    """S between the units of 4-D codes, (channels, h, w, channels, h, w), projects as its flat form does."""
    value, allowed = random(12), pairs(12, 0.6)
    folded = value.clone().view(3, 2, 2, 3, 2, 2)
    bound = InhibitionSet(allowed.view(3, 2, 2, 3, 2, 2), 1.0)
    bound.project_(folded)
    assert torch.equal(folded.view(12, 12), projected(value, allowed, 1.0))
    kept = torch.tensor([2, 0])
    chosen = bound.select(0, kept).select(3, kept)
    assert isinstance(chosen, InhibitionSet)
    assert chosen.allowed.shape == (2, 2, 2, 2, 2, 2)


def test_the_projection_after_an_ascent_step_is_quick() -> None:
    """A generous limit: about 5 ms for 256 units on one thread of a free machine."""
    allowed = everyone(256)
    value = projected(2 * random(256).abs(), allowed) + 0.01 * random(256).abs()
    seconds = []
    for _ in range(5):
        trial = value.clone()
        start = time.perf_counter()
        InhibitionSet(allowed, ROW_SUM).project_(trial)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.1
