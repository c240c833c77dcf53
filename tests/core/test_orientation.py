"""Orientation maps: Gabor filters of known tuning, a pinwheel drawn by hand, and what topology asks of a torus."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from groundstate.orientation import OrientationMap, tuning, turn


def gabor(orientation: float, frequency: float, size: int = 12, phase: float = 0.0, spread: float = 2.5) -> Tensor:
    """A grating whose wave vector points from the columns' axis towards the rows', under a Gaussian."""
    row, column = torch.meshgrid(*[torch.arange(size, dtype=torch.float64) - (size - 1) / 2] * 2, indexing="ij")
    along = column * math.cos(orientation) + row * math.sin(orientation)
    return torch.exp(-(row**2 + column**2) / (2 * spread**2)) * torch.cos(2 * math.pi * frequency * along + phase)


@pytest.mark.parametrize("phase", [0.0, 0.7, math.pi / 2])
def test_gabor_filters_are_tuned_to_their_grating(phase: float) -> None:
    for frequency in (0.12, 0.2, 0.3):
        angles = torch.linspace(0, math.pi, 25, dtype=torch.float64)[:-1]
        found = tuning(torch.stack([gabor(float(angle), frequency, 16, phase) for angle in angles]))
        assert float(turn(angles, found.orientation).abs().max()) < math.radians(1.5)
        assert float((found.frequency - frequency).abs().max()) < 0.01


def test_tuning_does_not_depend_on_sign_scale_or_mean_and_keeps_the_shape() -> None:
    filters = torch.stack([gabor(0.4, 0.15), gabor(2.0, 0.25)])
    first = tuning(filters)
    for other in (-filters, 7 * filters, filters + 3, filters.float()):
        torch.testing.assert_close(tuning(other), first, rtol=1e-5, atol=1e-5)
    assert tuning(filters.view(1, 2, 12, 12)).orientation.shape == (1, 2)
    empty = tuning(torch.zeros(1, 5, 6))
    assert (float(empty.orientation), float(empty.frequency)) == (0, 0)


def test_orientations_turn_the_shorter_way_with_period_pi() -> None:
    degrees = torch.tensor([[10.0, 170.0], [170.0, 10.0], [0.0, 45.0], [100.0, 20.0]], dtype=torch.float64)
    found = torch.rad2deg(turn(*torch.deg2rad(degrees).T))
    torch.testing.assert_close(found, torch.tensor([-20.0, 20.0, 45.0, -80.0], dtype=torch.float64))


def sheet(orientation: Tensor, *, wrap: bool = True) -> OrientationMap:
    return OrientationMap(orientation % math.pi, torch.ones_like(orientation), wrap)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_pinwheel_is_found_in_its_place_with_its_sign(sign: int) -> None:
    row, column = torch.meshgrid(*[torch.arange(8, dtype=torch.float64)] * 2, indexing="ij")
    around = sign * 0.5 * torch.atan2(row - 2.4, column - 5.6)
    found = sheet(around, wrap=False).pinwheels()
    expected = torch.zeros(7, 7, dtype=torch.int64)
    expected[2, 5] = sign
    assert torch.equal(found, expected)


def test_on_a_torus_pinwheels_add_up_to_zero() -> None:
    generator = torch.Generator().manual_seed(0)
    for shape in ((16, 16), (5, 7), (2, 3), (1, 9)):
        for step in (None, math.pi / 4, math.pi / 2):  # angles on a grid: many differences are just a right angle
            angle = math.pi * torch.rand(shape, generator=generator, dtype=torch.float64)
            found = sheet(angle if step is None else step * torch.round(angle / step)).pinwheels()
            assert found.shape == shape
            assert int(found.sum()) == 0


def test_without_order_a_third_of_the_squares_are_pinwheels_and_neighbours_are_any_pair() -> None:
    # four independent angles: the steps round a square add up to a whole turn with probability 1/3
    generator = torch.Generator().manual_seed(1)
    angle = math.pi * torch.rand(60, 60, generator=generator, dtype=torch.float64)
    chance = OrientationMap(angle, angle, wrap=True)
    assert float(chance.pinwheels().abs().double().mean()) == pytest.approx(1 / 3, abs=0.03)
    assert chance.orientation_ratio() == pytest.approx(1, abs=0.03)
    assert chance.frequency_ratio() == pytest.approx(1, abs=0.03)
    assert math.degrees(chance.orientation_difference()) == pytest.approx(45, abs=1)


def test_a_smooth_map_loses_its_order_when_shuffled() -> None:
    row, column = torch.meshgrid(*[2 * math.pi * torch.arange(16, dtype=torch.float64) / 16] * 2, indexing="ij")
    # the zeros of a complex field that varies slowly are its pinwheels
    field = (torch.sin(row) + 0.3 * torch.cos(column)) + 1j * (torch.sin(column) + 0.3 * torch.cos(row))
    ordered = OrientationMap(0.5 * field.angle() % math.pi, field.abs())
    number = ordered.pinwheels()
    assert int((number == 1).sum()) == int((number == -1).sum()) == 2
    assert ordered.orientation_ratio() < 0.35
    assert ordered.frequency_ratio() < 0.5
    mixed = ordered.shuffled(torch.Generator().manual_seed(0))
    assert torch.equal(mixed.orientation.flatten().sort().values, ordered.orientation.flatten().sort().values)
    assert mixed.orientation_ratio() > 0.9
    assert int(mixed.pinwheels().abs().sum()) > 50


def test_neighbours_are_counted_once_and_not_across_an_edge() -> None:
    line = torch.tensor([[0.0, 0.1, 0.3, 0.6]], dtype=torch.float64)
    pairs = np.abs(np.subtract.outer(line[0].numpy(), line[0].numpy()))[np.triu_indices(4, 1)]
    open_, ring = (OrientationMap(line, line, wrap) for wrap in (False, True))
    assert open_.frequency_ratio() == pytest.approx((0.1 + 0.2 + 0.3) / 3 / pairs.mean())
    assert ring.frequency_ratio() == pytest.approx((0.1 + 0.2 + 0.3 + 0.6) / 4 / pairs.mean())
