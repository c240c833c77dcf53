"""The recurrent encoder: T steps, which at the start are T steps of ISTA."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from groundstate.components import Context
from groundstate.data import Batch
from groundstate.errors import InputError
from groundstate.model import Model
from groundstate.parameters import NonNegative, NormBound
from groundstate.problem import Problem
from groundstate.structure import L1 as L1Form
from groundstate.structure import LinearMap
from groundstate_plugins.decoders.linear import LinearDecoder
from groundstate_plugins.encoders.recurrent import Recurrent
from groundstate_plugins.reconstructions.squared_error import SquaredError
from groundstate_plugins.regularisers.l1 import L1
from groundstate_plugins.regularisers.l2 import L2
from groundstate_plugins.solvers.amortised import Amortised
from groundstate_plugins.solvers.ista import Ista


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def built(**fields: Any) -> Recurrent:
    """On a random dictionary of 6 × 4, λ = 0.1; with values that no symmetry hides."""
    encoder = Recurrent(**{"bound_rows": None} | fields)
    d = normal(6, 4).float()
    forms = (L1Form(weight=0.1),)
    encoder.build(Context((6,), (4,), torch.Generator(), decoder=LinearMap(matrix=d), penalties=forms))
    encoder.double()
    for name in encoder.specs:
        shift = 0.1 * normal(*encoder.get_parameter(name).shape, seed=len(name)).abs()
        encoder.get_parameter(name).data.add_(shift)
    return encoder


def by_hand(encoder: Recurrent, x: Tensor) -> Tensor:
    """The recurrence as the paper writes it: z⁰ = 0, T times z ← f(E x + R z − b)."""
    config, z = encoder.config, x.new_zeros(len(x), 4)
    for t in range(config.steps):
        e, b = encoder.feedforward, encoder.threshold
        r = encoder.recurrent
        if config.untied:
            e, b, r = e[t], b[t], r[max(t - 1, 0)] if config.steps > 1 else torch.zeros(4, 4).to(x)
        before = x @ e.T + z @ r.T
        if config.activation == "relu":
            z = torch.clamp(before - b, min=0)
        else:
            z = torch.sign(before) * torch.clamp(before.abs() - b, min=0)
    return z


@pytest.mark.parametrize("activation", ["relu", "soft-threshold"])
@pytest.mark.parametrize("untied", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_the_recurrence_and_its_gradients(activation: Any, untied: bool, steps: int) -> None:
    encoder, x = built(activation=activation, untied=untied, steps=steps), normal(5, 6, seed=2)
    torch.testing.assert_close(encoder(x), by_hand(encoder, x))
    names = [name for name in encoder.specs if encoder.get_parameter(name).numel()]

    def function(*values: Tensor) -> Tensor:
        result: Tensor = torch.func.functional_call(encoder, dict(zip(names, values, strict=True)), x)
        return result

    assert torch.autograd.gradcheck(function, tuple(encoder.get_parameter(name) for name in names))


@pytest.mark.parametrize("steps", [1, 2, 11])
@pytest.mark.parametrize("untied", [False, True])
@pytest.mark.parametrize("non_negative", [False, True])
def test_it_starts_as_steps_of_ista_on_the_energy(steps: int, untied: bool, non_negative: bool) -> None:
    """Also with a weight on the data and a ridge, which are folded in."""
    activation = "relu" if non_negative else "soft-threshold"
    model = Model(
        encoder=Recurrent(steps=steps, activation=activation, untied=untied, bound_rows=None),
        decoder=LinearDecoder(units=20),
        terms={
            "data": SquaredError(weight=2.0),
            "sparsity": L1(weight=0.3, non_negative=non_negative),
            "ridge": L2(weight=0.4),
        },
        solver=Amortised(),
    ).build((12,))
    x = normal(5, 12)
    model.double()
    problem = Problem(model.energy, Batch({"x": x}), (20,))
    solver = Ista()
    with torch.no_grad():
        state = solver.init(problem, problem.zeros())
        for _ in range(steps):
            state = solver.step(problem, state)
        torch.testing.assert_close(model.encode(x), state.code, rtol=1e-5, atol=1e-6)


def test_rates_are_divided_by_the_number_of_uses() -> None:
    assert {spec.rate for spec in built(steps=5).specs.values()} == {0.2}
    assert {spec.rate for spec in built(steps=5, untied=True).specs.values()} == {1.0}
    assert {spec.rate for spec in built(steps=5, rate=0.7).specs.values()} == {0.7}


@pytest.mark.parametrize(("steps", "bound"), [(1, None), (2, 1.25), (11, 0.125)])
def test_the_papers_bound_on_the_rows(steps: int, bound: float | None) -> None:
    spec = built(steps=steps, bound_rows="paper").specs["feedforward"]
    assert spec.constraint == (None if bound is None else NormBound((1,), bound))
    untied = built(steps=steps, bound_rows="paper", untied=True).specs["feedforward"]
    assert untied.constraint == (None if bound is None else NormBound((2,), bound))
    assert built(steps=steps, bound_rows=0.3).specs["feedforward"].constraint == NormBound((1,), 0.3)


def test_where_the_bound_is_shorter_than_istas_step_it_starts_with_a_shorter_step() -> None:
    """E, R and b still belong together: E = αDᵀ, R = I − αDᵀD, b = αλ with α = 0.125."""
    encoder = Recurrent()
    d = torch.linalg.qr(normal(6, 4))[0].float()
    forms = (L1Form(weight=0.1),)
    encoder.build(Context((6,), (4,), torch.Generator(), decoder=LinearMap(matrix=d), penalties=forms))
    torch.testing.assert_close(encoder.feedforward.detach(), 0.125 * d.T)
    torch.testing.assert_close(encoder.recurrent.detach(), torch.eye(4) - 0.125 * d.T @ d)
    torch.testing.assert_close(encoder.threshold.detach(), torch.full((4,), 0.0125))


def test_step_and_threshold_may_be_given() -> None:
    encoder = Recurrent(step=0.05, threshold=0.4, bound_rows=None)
    d = normal(6, 4).float()
    encoder.build(Context((6,), (4,), torch.Generator(), decoder=LinearMap(matrix=d)))
    torch.testing.assert_close(encoder.feedforward.detach(), 0.05 * d.T)
    torch.testing.assert_close(encoder.threshold.detach(), torch.full((4,), 0.02))


def test_signed_codes_have_thresholds_that_stay_non_negative() -> None:
    assert isinstance(built(activation="soft-threshold").specs["threshold"].constraint, NonNegative)
    assert built().specs["threshold"].constraint is None


def test_without_a_dictionary_it_starts_from_a_random_one() -> None:
    encoder = Recurrent(units=4, bound_rows=None)
    assert encoder.code_shape((6,)) == (4,)
    encoder.build(Context((6,), (4,), torch.Generator().manual_seed(0)))
    e = encoder.feedforward.detach()
    norm = e.norm(dim=1)
    torch.testing.assert_close(norm, norm[:1].expand(4))
    expected = torch.eye(4) - e @ e.T / norm[0]  # α(D/α)ᵀ(D/α)·α with unit columns: EEᵀ/α
    torch.testing.assert_close(encoder.recurrent.detach(), expected)


@pytest.mark.parametrize("untied", [False, True])
def test_pruned_units_were_as_good_as_silent(untied: bool) -> None:
    """Units without input and connections can go, and the others' codes stay."""
    encoder, x, kept = built(untied=untied, steps=4, units=4), normal(5, 6), torch.tensor([3, 0])
    gone = torch.tensor([1, 2])
    for name, spec in encoder.specs.items():
        for dim in spec.unit_dims:
            encoder.get_parameter(name).data.index_fill_(dim, gone, 0.0)
    before = encoder(x)
    encoder.select(kept)
    assert encoder.config.units == 2
    torch.testing.assert_close(encoder(x), before[:, kept])


def test_codes_that_are_not_flat_are_an_input_error() -> None:
    with pytest.raises(InputError, match="flat codes"):
        Recurrent().build(Context((6,), (4, 2, 2), torch.Generator()))
