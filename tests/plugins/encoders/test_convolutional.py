"""The convolutional encoder against its definition."""

from __future__ import annotations

import pytest
import torch

from groundstate import Context, InputError, Model
from groundstate_plugins.decoders.convolutional import ConvolutionalDecoder
from groundstate_plugins.encoders.convolutional import ConvolutionalEncoder
from groundstate_plugins.reconstructions.squared_error import SquaredError
from groundstate_plugins.solvers.amortised import Amortised

IMAGE = (2, 9, 11)


def test_a_unit_sees_its_window_through_its_maps_filter() -> None:
    part = ConvolutionalEncoder(maps=3, size=4, stride=2, padding=1)
    shape = part.code_shape(IMAGE)
    assert shape == (3, 4, 5)
    part.build(Context(IMAGE, shape, torch.Generator().manual_seed(0)))
    part.double()
    with torch.no_grad():
        part.bias.copy_(torch.tensor([0.1, -0.2, 0.3]))
        part.gain.copy_(torch.tensor([1.0, 0.5, 2.0]))
    x = torch.randn(2, *IMAGE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    around = torch.nn.functional.pad(x, (1, 1, 1, 1))
    code = part(x)
    for m, row, column in [(0, 0, 0), (1, 3, 4), (2, 2, 1)]:
        window = around[:, :, 2 * row : 2 * row + 4, 2 * column : 2 * column + 4]
        before = (window * part.filters[m]).flatten(1).sum(1) + part.bias[m]
        torch.testing.assert_close(code.pre_activation[:, m, row, column], before)
        torch.testing.assert_close(code.value[:, m, row, column], part.gain[m] * before.clamp_min(0))


def test_it_starts_from_the_decoders_filters() -> None:
    model = Model(
        encoder=ConvolutionalEncoder(size=3),
        decoder=ConvolutionalDecoder(maps=4, size=3),
        terms={"data": SquaredError()},
        solver=Amortised(),
    ).build((1, 8, 8))
    assert torch.equal(model.encoder.filters, model.decoder.filters)  # type: ignore[union-attr]


def test_an_encoder_that_does_not_match_its_decoder_is_refused() -> None:
    model = Model(
        encoder=ConvolutionalEncoder(size=5),
        decoder=ConvolutionalDecoder(maps=4, size=3),
        terms={"data": SquaredError()},
        solver=Amortised(),
    )
    with pytest.raises(InputError, match=r"makes codes of shape \(4, 4, 4\), the decoder takes \(4, 6, 6\)"):
        model.build((1, 8, 8))
