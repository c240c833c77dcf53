"""Before learning, FISTA of Beck & Teboulle 2009, in NumPy; and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from groundstate.components import Context
from groundstate.errors import InputError
from groundstate.structure import L1, LeastSquares, LinearMap
from groundstate_plugins.encoders.unrolled_fista import UnrolledFista

INPUTS, UNITS, WEIGHT = 6, 10, 0.3


def dictionary() -> Tensor:
    d = torch.randn(INPUTS, UNITS, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return d / d.norm(dim=0)


def built(steps: int, data: float = 1.0) -> UnrolledFista:
    encoder = UnrolledFista(steps=steps)
    penalties = (LeastSquares(weight=data), L1(weight=data * WEIGHT))
    decoder = LinearMap(matrix=dictionary())
    encoder.build(Context((INPUTS,), (UNITS,), torch.Generator(), decoder=decoder, penalties=penalties))
    return encoder.double()


def fista(x: np.ndarray, d: np.ndarray, steps: int) -> np.ndarray:
    """Section 4 of the paper, a constant step."""
    bound = np.linalg.norm(d, 2) ** 2
    z = y = np.zeros((len(x), d.shape[1]))
    t = 1.0
    for _ in range(steps):
        v = y - (y @ d.T - x) @ d / bound
        following = np.sign(v) * np.maximum(np.abs(v) - WEIGHT / bound, 0)
        t_next = (1 + np.sqrt(1 + 4 * t * t)) / 2
        y = following + (t - 1) / t_next * (following - z)
        z, t = following, t_next
    return z


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("data", [1.0, 3.0])
def test_it_starts_as_fista(steps: int, data: float) -> None:
    x = torch.randn(7, INPUTS, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = built(steps, data)(x).detach().numpy()
    np.testing.assert_allclose(found, fista(x.numpy(), dictionary().numpy(), steps), atol=1e-6)


def test_its_iterates_end_in_its_code_and_all_parameters_learn() -> None:
    encoder = built(4)
    x = torch.randn(7, INPUTS, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    codes = list(encoder.iterates(x))
    assert len(codes) == 4
    torch.testing.assert_close(codes[-1], encoder(x))
    encoder(x).square().sum().backward()
    # the first momentum is 0 and has no momentum to pass; its gradient is there all the same
    assert all(value.grad is not None and bool(value.grad.abs().sum() > 0) for value in encoder.parameters())


def test_without_units_that_were_pruned() -> None:
    encoder = built(3)
    kept = torch.tensor([0, 3, 4])
    encoder.select(kept)
    x = torch.randn(2, INPUTS, dtype=torch.float64)
    assert encoder(x).shape == (2, 3)


def test_no_dictionary_is_refused() -> None:
    with pytest.raises(InputError, match="unrolled for a dictionary"):
        UnrolledFista().build(Context((INPUTS,), (UNITS,), torch.Generator()))
