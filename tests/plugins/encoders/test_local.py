"""The locally connected encoder is the transpose of the decoder with the same filters."""

from __future__ import annotations

import pytest
import torch

from groundstate import Context, InputError
from groundstate_plugins.decoders.local import LocalDecoder
from groundstate_plugins.encoders.local import LocalEncoder

IMAGE = (2, 9, 11)
FIELDS = [
    {"maps": 2, "size": 3},
    {"size": 4, "stride": 2, "block": 3},
    {"maps": 2, "size": 4, "stride": 2, "padding": 1},
]


@pytest.mark.parametrize("fields", FIELDS)
def test_without_a_nonlinearity_it_is_the_decoders_transpose(fields: dict) -> None:
    decoder, encoder = LocalDecoder(**fields), LocalEncoder(**fields, activation="identity")
    shape = decoder.code_shape(IMAGE)
    decoder.build(Context(IMAGE, shape, torch.Generator().manual_seed(0)))
    encoder.build(Context(IMAGE, shape, torch.Generator().manual_seed(1), atoms=decoder.atoms()))
    assert torch.equal(encoder.filters, decoder.filters)
    x = torch.randn(3, *IMAGE, generator=torch.Generator().manual_seed(2))
    z = torch.randn(3, *shape, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close((encoder(x).value * z).sum(), (x * decoder(z)).sum())


def test_each_unit_has_a_bias_and_a_gain() -> None:
    part = LocalEncoder(size=3, block=2)
    shape = part.code_shape(IMAGE)
    part.build(Context(IMAGE, shape, torch.Generator()))
    with torch.no_grad():
        part.filters.zero_()
        part.bias[0, 2, 3], part.gain[0, 2, 3] = 0.5, 3.0
    code = part(torch.ones(1, *IMAGE)).value.detach()
    assert code.nonzero().tolist() == [[0, 0, 2, 3]]
    assert float(code[0, 0, 2, 3]) == 1.5


def test_a_sheet_that_is_not_the_decoders_is_refused() -> None:
    part = LocalEncoder(size=3)
    with pytest.raises(InputError, match="the same size, stride, padding, maps and block"):
        part.build(Context(IMAGE, (1, 14, 18), torch.Generator()))
