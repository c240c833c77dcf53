"""The convolutional decoder against its definition, as a sum of shifted filters."""

from __future__ import annotations

import pytest
import torch

from groundstate import Context, InputError, Model
from groundstate_plugins.decoders.convolutional import ConvolutionalDecoder
from groundstate_plugins.reconstructions.squared_error import SquaredError
from groundstate_plugins.regularisers.group import Group
from groundstate_plugins.solvers.fista import Fista

IMAGE = (2, 9, 11)


def built(**fields: object) -> ConvolutionalDecoder:
    part = ConvolutionalDecoder(**fields)
    part.build(Context(IMAGE, part.code_shape(IMAGE), torch.Generator().manual_seed(0)))
    return part.double()


@pytest.mark.parametrize(
    "fields", [{"size": 3}, {"size": 4, "stride": 3}, {"size": 4, "stride": 2, "padding": 3}, {"size": 9}]
)
def test_a_unit_adds_its_maps_filter_at_its_place(fields: dict) -> None:
    part = built(maps=3, **fields)
    maps, rows, columns = part.code_shape(IMAGE)
    size, stride, padding = part.config.size, part.config.stride, part.config.padding
    z = torch.zeros(1, maps, rows, columns, dtype=torch.float64)
    for unit in [(0, 0, 0), (1, rows - 1, 0), (2, rows // 2, columns - 1)]:
        z.zero_()[(0, *unit)] = 2.0
        around = torch.zeros(2, IMAGE[1] + 2 * padding, IMAGE[2] + 2 * padding, dtype=torch.float64)
        top, left = unit[1] * stride, unit[2] * stride
        around[:, top : top + size, left : left + size] = 2 * part.filters[unit[0]]
        expected = around[:, padding : padding + IMAGE[1], padding : padding + IMAGE[2]]
        torch.testing.assert_close(part(z)[0], expected)


def test_filters_are_bounded() -> None:
    part = built(maps=3, size=3)
    with torch.no_grad():
        part.filters.mul_(4)
        part.specs["filters"].constraint.project_(part.filters)  # type: ignore[union-attr]
    torch.testing.assert_close(part.filters.flatten(1).norm(dim=1), torch.ones(3, dtype=torch.float64))


def test_images_smaller_than_a_filter_are_refused_in_one_sentence() -> None:
    part = ConvolutionalDecoder(maps=2, size=7)
    with pytest.raises(InputError, match=r"size: filters of 7×7 are larger than images of 5×9$"):
        part.code_shape((1, 5, 9))
    assert ConvolutionalDecoder(maps=2, size=7, padding=1).code_shape((1, 5, 9)) == (2, 1, 5)
    with pytest.raises(InputError, match=r"needs images \(channels, height, width\), not inputs of shape \(64,\)"):
        part.code_shape((64,))
    with pytest.raises(InputError, match="padding: 7 lets filters of size 7 see zeros alone"):
        ConvolutionalDecoder(maps=2, size=7, padding=7).code_shape((1, 9, 9))


def test_group_sparse_codes_over_maps_and_positions_are_optimal() -> None:
    """4-D codes through a solver: no pool can be moved to lower the energy (subgradient condition)."""
    pools = Group(weight=0.3, maps=2, positions=2)
    model = Model(
        decoder=ConvolutionalDecoder(maps=4, size=3),
        terms={"data": SquaredError(), "groups": pools},
        solver=Fista(tolerance=1e-12, max_iterations=4000),
    ).build((1, 8, 8), seed=2)
    x = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    model.double()
    z = model.infer(x).code.requires_grad_()
    assert z.shape == (1, 4, 6, 6)
    (slope,) = torch.autograd.grad(0.5 * (x - model.decode(z)).square().sum(), z)
    index = pools.pools.index
    for pool in index:
        part, pull = z.flatten()[pool].detach(), -slope.flatten()[pool]
        if float(part.norm()) > 0:
            torch.testing.assert_close(pull, 0.3 * part / part.norm(), rtol=1e-3, atol=1e-4)
        else:
            assert float(pull.norm()) <= 0.3 + 1e-4


def test_overlapping_pools_over_positions_take_4d_codes() -> None:
    model = Model(
        decoder=ConvolutionalDecoder(maps=4, size=3),
        terms={
            "data": SquaredError(),
            "groups": Group(weight=0.3, maps=2, maps_stride=1, positions=2, positions_stride=1),
        },
        solver=Fista(tolerance=1e-6, max_iterations=500),
    ).build((1, 8, 8), seed=2)
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(5))
    solution = model.infer(x)
    assert solution.code.shape == (2, 4, 6, 6)
    zero = 0.5 * x.flatten(1).square().sum(1)
    assert solution.energy is not None
    assert bool((solution.energy < zero).all())
