"""The locally connected decoder against a loop over its units, and against convolution where all filters agree."""

from __future__ import annotations

import pytest
import torch

from groundstate import Context, InputError
from groundstate_plugins.decoders.convolutional import ConvolutionalDecoder
from groundstate_plugins.decoders.local import LocalDecoder

IMAGE = (2, 9, 11)


def built(**fields: object) -> LocalDecoder:
    part = LocalDecoder(**fields)
    part.build(Context(IMAGE, part.code_shape(IMAGE), torch.Generator().manual_seed(0)))
    return part.double()


@pytest.mark.parametrize("fields", [{"size": 3}, {"size": 4, "stride": 2, "block": 3}, {"size": 4, "padding": 2}])
def test_a_unit_adds_its_own_filter_at_its_place(fields: dict) -> None:
    part = built(maps=2, **fields)
    shape = part.code_shape(IMAGE)
    assert part.filters.shape[:3] == shape
    size, stride, padding, block = (getattr(part.config, name) for name in ("size", "stride", "padding", "block"))
    for unit in [(0, 0, 0), (1, shape[1] - 1, 1), (1, 1, shape[2] - 1), (0, 2, 4)]:
        z = torch.zeros(1, *shape, dtype=torch.float64)
        z[(0, *unit)] = 2.0
        around = torch.zeros(2, IMAGE[1] + 2 * padding, IMAGE[2] + 2 * padding, dtype=torch.float64)
        top, left = unit[1] // block * stride, unit[2] // block * stride
        around[:, top : top + size, left : left + size] = 2 * part.filters[unit]
        expected = around[:, padding : padding + IMAGE[1], padding : padding + IMAGE[2]]
        torch.testing.assert_close(part(z)[0], expected)


def test_with_the_same_filter_everywhere_it_is_a_convolution() -> None:
    local, shared = built(maps=3, size=3), ConvolutionalDecoder(maps=3, size=3)
    shape = shared.code_shape(IMAGE)
    shared.build(Context(IMAGE, shape, torch.Generator().manual_seed(1)))
    shared.double()
    with torch.no_grad():
        local.filters.copy_(shared.filters[:, None, None].expand_as(local.filters))
    z = torch.randn(4, *shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    torch.testing.assert_close(local(z), shared(z))


def test_each_filter_is_bounded() -> None:
    part = built(maps=1, size=3, block=2, constraint="sphere")
    torch.testing.assert_close(part.filters.flatten(3).norm(dim=3), torch.ones(1, 14, 18, dtype=torch.float64))


def test_images_smaller_than_a_filter_are_refused() -> None:
    with pytest.raises(InputError, match="size: filters of 12×12 are larger than images of 8×8"):
        LocalDecoder(size=12).code_shape((1, 8, 8))
