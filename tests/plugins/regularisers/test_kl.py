"""The divergence from the standard normal against torch's own, alone and beside a solver that iterates."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from groundstate.components import Code, Encoder, Solver
from groundstate.data import Batch, TensorSource
from groundstate.errors import InputError
from groundstate.evaluate import evaluate
from groundstate.learning import Learning, PhaseConfig
from groundstate.model import Model
from groundstate_plugins.decoders.linear import LinearDecoder
from groundstate_plugins.encoders.gaussian import GaussianEncoder
from groundstate_plugins.encoders.linear import LinearEncoder
from groundstate_plugins.learners.gradient import Gradient
from groundstate_plugins.reconstructions.squared_error import SquaredError
from groundstate_plugins.regularisers.kl import GaussianKL
from groundstate_plugins.regularisers.l1 import L1
from groundstate_plugins.solvers.amortised import Amortised
from groundstate_plugins.solvers.fista import Fista
from groundstate_plugins.solvers.hybrid import Hybrid

INPUTS, UNITS = 6, 5


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def model(solver: Solver, encoder: Encoder | None = None) -> Model:
    terms = {"data": SquaredError(), "sparsity": L1(weight=0.1), "divergence": GaussianKL(weight=0.3)}
    made = Model(encoder=encoder or GaussianEncoder(), decoder=LinearDecoder(units=UNITS), terms=terms, solver=solver)
    return made.build((INPUTS,), seed=1).double()


@pytest.mark.parametrize("shape", [(UNITS,), (2, 3, 3)])
def test_it_is_the_divergence_of_the_two_gaussians(shape: tuple[int, ...]) -> None:
    mean, log_variance = normal(4, *shape), normal(4, *shape, seed=1)
    expected = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 1.0)).flatten(1).sum(1)
    code = Code(torch.zeros_like(mean), mean=mean, log_variance=log_variance)
    torch.testing.assert_close(GaussianKL().energy(code), expected)
    torch.testing.assert_close(GaussianKL().metrics(code)["bits"], expected / math.log(2))


EXACT = {"tolerance": 1e-9, "max_iterations": 3000}
NAMED = {"amortised": Amortised(), "hybrid": Hybrid(**EXACT), "fista": Fista(**EXACT)}


@pytest.mark.parametrize("solver", NAMED.values(), ids=NAMED)
def test_inference_sees_what_the_encoder_shares_as_a_constant(solver: Solver) -> None:
    """At the solver's own points too: the divergence adds the same to the energy of any code, and moves none."""
    one, x = model(solver), normal(7, INPUTS)
    encoded = one.run_encoder(x)
    assert encoded is not None
    solution = one.infer(x)
    without = Model(
        encoder=one.encoder,
        decoder=one.decoder,
        terms={name: term for name, term in one.energy.terms.items() if name != "divergence"},
        solver=solver,
    )
    without.shapes = one.shapes
    bare = without.infer(x)
    torch.testing.assert_close(solution.code, bare.code, atol=1e-5, rtol=0)
    assert solution.energy is not None
    assert bare.energy is not None
    torch.testing.assert_close(solution.energy - bare.energy, 0.3 * GaussianKL().energy(encoded), atol=1e-5, rtol=0)


@pytest.mark.parametrize("solver", [Amortised(), Hybrid(max_iterations=3)], ids=["amortised", "hybrid"])
def test_learning_moves_the_encoder_down_the_divergence(solver: Solver) -> None:
    one, batch = model(solver), Batch({"x": 3 * normal(50, INPUTS)})
    learner = Learning(one, Gradient())
    generator = torch.Generator().manual_seed(0)
    learner.start_phase(PhaseConfig(epochs=1, terms=["divergence"]))
    first = learner.step(batch, rate=0.02, generator=generator).energies["divergence"]
    for _ in range(100):
        last = learner.step(batch, rate=0.02, generator=generator).energies["divergence"]
    assert float(last) < 0.1 * float(first)


def test_a_split_is_evaluated_on_seeded_draws() -> None:
    one, source = model(Amortised()), TensorSource(x=normal(40, INPUTS))
    figures = [evaluate(one, source, seed=seed) for seed in (0, 0, 1)]
    assert figures[0] == figures[1]
    assert figures[0]["energy/data"] != figures[2]["energy/data"]
    assert figures[0]["divergence/bits"] == pytest.approx(figures[0]["energy/divergence"] / 0.3 / math.log(2))


def test_an_encoder_that_shares_no_variance_is_refused_in_a_sentence() -> None:
    with pytest.raises(InputError, match=r"shares none; choose \[model.encoder\] type = 'gaussian'"):
        model(Amortised(), LinearEncoder()).infer(normal(2, INPUTS))
