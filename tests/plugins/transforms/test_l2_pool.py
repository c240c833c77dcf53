"""L2 pooling against a loop over windows and against torch's own power-average pooling."""

from __future__ import annotations

import itertools
from math import sqrt

import pytest
import torch
from pydantic import ValidationError

from groundstate.errors import InputError
from groundstate_plugins.transforms.l2_pool import L2Pool


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(
    ("fields", "shape"),
    [
        ({"maps": 2, "positions": 2}, (4, 6, 6)),
        ({"maps": 4, "maps_stride": 2, "positions": (3, 2), "positions_stride": (2, 1)}, (8, 7, 6)),
        ({"positions": 2, "positions_stride": 3}, (3, 9, 10)),
        ({"positions": 2}, (3, 7, 5)),  # windows are cut at the far edges
    ],
)
def test_each_pool_is_the_norm_of_its_window(fields: dict, shape: tuple[int, ...]) -> None:
    pool, x = L2Pool(**fields), normal(2, *shape)
    pooled = pool(x)
    assert pooled.shape[1:] == pool.output_shape(shape)
    window, stride = pool._windows()
    for place in itertools.product(*(range(side) for side in pooled.shape[1:])):
        part = x[(slice(None), *(slice(p * s, p * s + w) for p, s, w in zip(place, stride, window, strict=True)))]
        torch.testing.assert_close(pooled[(slice(None), *place)], part.flatten(1).norm(dim=1))


def test_it_is_torchs_power_average_pooling_where_windows_fit() -> None:
    x = normal(2, 3, 8, 8)
    torch.testing.assert_close(L2Pool(positions=2)(x), torch.nn.LPPool2d(2, 2)(x))
    flat = normal(2, 8)
    torch.testing.assert_close(L2Pool(maps=2)(flat), torch.nn.LPPool1d(2, 2)(flat[:, None])[:, 0])


def test_blank_pools_have_gradient_zero() -> None:
    x = torch.zeros(1, 2, 4, 4, requires_grad=True)
    L2Pool(maps=2, positions=2)(x).sum().backward()
    assert x.grad is not None
    assert not bool(x.grad.any())


def test_every_unit_stands_in_a_pool() -> None:
    ones = torch.ones(1, 4, 7, 7)
    pooled = L2Pool(maps=2, positions=3)(ones)
    assert float(pooled.square().sum()) == pytest.approx(ones.numel())
    assert float(pooled[0, 0, 0, 0]) == pytest.approx(sqrt(18))


@pytest.mark.parametrize(
    ("fields", "shape", "message"),
    [
        ({"positions": 5}, (4, 4, 6), "positions: a pool of 5 is longer than the code's 4"),
        ({"maps": 5}, (4, 4, 6), "maps: a pool of 5 is longer than the code's 4"),
        ({"maps": 3}, (4, 4, 6), "pools of 3 every 3 do not divide the code's 4"),
        ({"positions": 2}, (12,), "positions: these codes are flat"),
        ({}, (3, 4), "not of shape"),
    ],
)
def test_pools_that_do_not_fit_are_refused_in_one_sentence(fields: dict, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        L2Pool(**fields).output_shape(shape)


def test_a_pool_of_nothing_is_refused() -> None:
    with pytest.raises(ValidationError, match="greater than 0"):
        L2Pool(maps=0)
