"""The linear encoder: one matrix and a nonlinearity."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from groundstate.components import Context
from groundstate.errors import InputError
from groundstate.parameters import NonNegative, NormBound
from groundstate.structure import LinearMap
from groundstate_plugins.encoders.linear import LinearEncoder


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def built(dictionary: Tensor | None = None, code: tuple[int, ...] = (4,), **fields: Any) -> LinearEncoder:
    encoder = LinearEncoder(**fields)
    linear = None if dictionary is None else LinearMap(matrix=dictionary.float())
    encoder.build(Context((2, 3), code, torch.Generator().manual_seed(0), decoder=linear))
    encoder.double()
    for name in encoder.specs:  # values that no symmetry hides
        encoder.get_parameter(name).data.copy_(0.5 * normal(*encoder.get_parameter(name).shape, seed=len(name)).abs())
    return encoder


FORMULAS = {
    "relu": lambda e, x: torch.clamp(x @ e.feedforward.T + e.bias, min=0),
    "identity": lambda e, x: x @ e.feedforward.T + e.bias,
    "tanh": lambda e, x: torch.tanh(x @ e.feedforward.T + e.bias),
    "soft-threshold": lambda e, x: (
        torch.sign(x @ e.feedforward.T) * torch.clamp((x @ e.feedforward.T).abs() - e.bias, min=0)
    ),
}


@pytest.mark.parametrize("gain", [False, True])
@pytest.mark.parametrize("activation", FORMULAS)
def test_the_formula_and_its_gradients(activation: Any, gain: bool) -> None:
    encoder, x = built(activation=activation, gain=gain), normal(7, 2, 3, seed=3)
    code = encoder(x)
    expected = FORMULAS[activation](encoder, x.flatten(1)) * (encoder.gain if gain else 1)
    torch.testing.assert_close(code.value, expected)
    before = x.flatten(1) @ encoder.feedforward.T + (0 if activation == "soft-threshold" else encoder.bias)
    torch.testing.assert_close(code.pre_activation, before)
    names = list(encoder.specs)

    def function(*values: Tensor) -> Tensor:
        named = dict(zip(names, values, strict=True))
        result: Tensor = torch.func.functional_call(encoder, named, x).value
        return result

    assert torch.autograd.gradcheck(function, tuple(encoder.get_parameter(name) for name in names))


def test_it_starts_from_the_dictionary_or_at_random() -> None:
    def start(dictionary: Tensor | None, **fields: Any) -> Tensor:
        encoder = LinearEncoder(**fields)
        linear = None if dictionary is None else LinearMap(matrix=dictionary)
        encoder.build(Context((6,), (4,), torch.Generator().manual_seed(0), decoder=linear))
        return encoder.feedforward.detach()

    d = normal(6, 4).float()
    assert torch.equal(start(d), d.T)
    assert torch.equal(start(d, initialise="random"), start(None))
    assert not torch.equal(start(None), d.T)


def test_constraints_of_its_parameters() -> None:
    assert built(bound_rows=0.5).specs["feedforward"].constraint == NormBound((1,), 0.5)
    assert built().specs["feedforward"].constraint is None
    assert isinstance(built(activation="soft-threshold").specs["bias"].constraint, NonNegative)
    assert built().specs["bias"].constraint is None


def test_units_come_from_the_config_where_no_decoder_tells() -> None:
    assert LinearEncoder(units=7).code_shape((5,)) == (7,)
    assert LinearEncoder().code_shape((5,)) is None


@pytest.mark.parametrize(
    ("code", "fields", "says"), [((4,), {"units": 5}, "5 units.*decoder 4"), ((4, 2, 2), {}, "flat codes")]
)
def test_a_code_that_does_not_fit_is_an_input_error(code: Any, fields: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        LinearEncoder(**fields).build(Context((6,), code, torch.Generator()))


def test_pruning_keeps_rows() -> None:
    encoder, x, kept = built(gain=True, units=4), normal(3, 6), torch.tensor([3, 0])
    before = encoder(x).value
    encoder.select(kept)
    assert torch.equal(encoder(x).value, before[:, kept])
    assert encoder.config.units == 2
