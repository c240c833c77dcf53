"""No encoder: zeros."""

from __future__ import annotations

import torch

from groundstate.components import Context
from groundstate_plugins.encoders.none import NoEncoder


def test_it_predicts_zeros_of_the_codes_shape_dtype_and_number() -> None:
    encoder = NoEncoder()
    encoder.build(Context((6,), (4, 2, 2), torch.Generator()))
    code = encoder(torch.ones(3, 6, dtype=torch.float64))
    assert torch.equal(code, torch.zeros(3, 4, 2, 2, dtype=torch.float64))
    encoder.select(torch.tensor([0, 2]))
    assert encoder(torch.ones(3, 6)).shape == (3, 2, 2, 2)
    assert list(encoder.declared()) == []
