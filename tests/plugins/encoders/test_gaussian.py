"""The Gaussian encoder: what it shares, what it draws, and where it gives the mean."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from groundstate.components import Code, Context
from groundstate_plugins.encoders.gaussian import GaussianEncoder

INPUTS, UNITS = 7, 4


def built(seed: int = 0, **fields: object) -> GaussianEncoder:
    encoder = GaussianEncoder(**fields)
    encoder.build(Context((INPUTS,), (UNITS,), torch.Generator().manual_seed(seed)))
    return encoder.double()


def inputs(samples: int) -> Tensor:
    return torch.randn(samples, INPUTS, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def test_its_heads_are_those_of_a_plain_network() -> None:
    encoder = built(hidden=[6])
    below = nn.Sequential(nn.Linear(INPUTS, 6), nn.ReLU()).double()
    below[0].load_state_dict({"weight": encoder.hidden0, "bias": encoder.hidden0_bias})
    x = inputs(5)
    for name in ("mean", "log_variance"):
        head = nn.Linear(6, UNITS).double()
        head.load_state_dict({"weight": getattr(encoder, name), "bias": getattr(encoder, f"{name}_bias")})
        torch.testing.assert_close(getattr(encoder(x), name), head(below(x)))


def test_the_draw_has_the_mean_and_the_variance_that_it_shares() -> None:
    encoder = built(log_variance=0.5)
    x = inputs(1).expand(40_000, INPUTS)
    code: Code = encoder(x, torch.Generator().manual_seed(0))
    assert code.mean is not None
    assert code.log_variance is not None
    torch.testing.assert_close(code.value.mean(0), code.mean[0], atol=0.03, rtol=0)
    torch.testing.assert_close(code.value.var(0), code.log_variance[0].exp(), atol=0, rtol=0.03)


def test_without_a_generator_it_gives_the_mean_and_with_one_a_seeded_draw() -> None:
    encoder, x = built(), inputs(3)
    quiet = encoder(x)
    assert torch.equal(quiet.value, quiet.mean)
    draws = [encoder(x, torch.Generator().manual_seed(seed)).value for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], quiet.value)


def test_the_gradient_goes_through_the_draw() -> None:
    """z = μ + σε, so that ∂z/∂μ = 1 and ∂z/∂log σ² = ½σε."""
    encoder = built()
    code: Code = encoder(inputs(3), torch.Generator().manual_seed(3))
    parts = (encoder.mean_bias, encoder.log_variance_bias)
    by_mean, by_log_variance = torch.autograd.grad(code.value.sum(), parts)
    torch.testing.assert_close(by_mean, torch.full_like(by_mean, 3.0))
    torch.testing.assert_close(by_log_variance, 0.5 * (code.value - code.mean).sum(0))


@pytest.mark.parametrize("fields", [{"hidden": [0]}, {"units": 0}])
def test_a_layer_without_units_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        GaussianEncoder(**fields)
