"""Online dictionary learning against scikit-learn, a numerical minimiser and the formulas of Mairal et al. 2010."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.decomposition import MiniBatchDictionaryLearning
from torch import Tensor

from groundstate.components import Regulariser
from groundstate.data import Batch
from groundstate.errors import InputError
from groundstate.learning import Learning, PhaseConfig
from groundstate.model import Model
from groundstate.parameters import NormBound
from groundstate_plugins.decoders.linear import LinearDecoder
from groundstate_plugins.encoders.linear import LinearEncoder
from groundstate_plugins.learners.online_dictionary import OnlineDictionary, descend_columns
from groundstate_plugins.reconstructions.squared_error import SquaredError
from groundstate_plugins.regularisers.code_prediction import CodePrediction
from groundstate_plugins.regularisers.l1 import L1
from groundstate_plugins.regularisers.lateral_inhibition import LateralInhibition
from groundstate_plugins.solvers.auto import Auto
from groundstate_plugins.solvers.fista import Fista

INPUTS, UNITS = 12, 20


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def data(samples: int = 600) -> Tensor:
    """Sparse sums of hidden atoms, with a little noise."""
    atoms = torch.randn(INPUTS, UNITS, generator=draw(1))
    codes = torch.randn(samples, UNITS, generator=draw(2)) * (torch.rand(samples, UNITS, generator=draw(3)) < 0.15)
    x = codes @ (atoms / atoms.norm(dim=0)).T + 0.02 * torch.randn(samples, INPUTS, generator=draw(4))
    return x.double()


def learning(learner: OnlineDictionary | None = None, *, constraint: str = "ball", **extra: Any) -> Learning:
    encoder = extra.pop("encoder", None)
    solver = extra.pop("solver", Fista(tolerance=1e-8, max_iterations=2000))
    terms = {"data": SquaredError(), "sparsity": L1(weight=0.1)} | extra
    decoder = LinearDecoder(units=UNITS, constraint=constraint)
    model = Model(terms=terms, decoder=decoder, encoder=encoder, solver=solver).build((INPUTS,)).double()
    return Learning(model, learner if learner is not None else OnlineDictionary())


def train(one: Learning, x: Tensor, steps: range, size: int = 100) -> None:
    for step in steps:
        rows = torch.arange(step * size, (step + 1) * size) % len(x)
        one.step(Batch({"x": x[rows]}), rate=1e-2, generator=draw(step))


def matrix(one: Learning) -> Tensor:
    return one.model.get_parameter("decoder.dictionary").detach()


@pytest.mark.parametrize("constraint", [None, NormBound((0,)), NormBound((0,), sphere=True)])
def test_passes_over_the_columns_reach_the_minimum(constraint: NormBound | None) -> None:
    """Against L-BFGS, or SLSQP with the norms as constraints, from the same point."""
    n, units = 4, 5
    z = torch.randn(50, units, generator=draw(0), dtype=torch.float64)
    x = torch.randn(50, n, generator=draw(1), dtype=torch.float64)
    a, b = z.T @ z, x.T @ z
    start = torch.randn(n, units, generator=draw(2), dtype=torch.float64)
    start /= start.norm(dim=0)

    def value(flat: np.ndarray) -> float:
        d = flat.reshape(n, units)
        return float(0.5 * np.trace(d.T @ d @ a.numpy()) - np.trace(d.T @ b.numpy()))

    d = start.clone()
    descend_columns(d, a, b, constraint, passes=2000)
    kind = "eq" if constraint is not None and constraint.sphere else "ineq"
    bounds = {"type": kind, "fun": lambda flat: 1 - (flat.reshape(n, units) ** 2).sum(0)}
    constraints = () if constraint is None else (bounds,)
    found = minimize(
        value, start.numpy().ravel(), constraints=constraints, method="SLSQP", options={"ftol": 1e-14, "maxiter": 1000}
    )
    assert value(d.numpy().ravel()) == pytest.approx(found.fun, abs=1e-6)


@pytest.mark.parametrize("forgetting", [0.0, 1.0, 2.5])
def test_the_sums_fade_as_the_paper_says(forgetting: float) -> None:
    one = learning(OnlineDictionary(forgetting=forgetting))
    a = torch.zeros(UNITS, UNITS, dtype=torch.float64)
    b = torch.zeros(INPUTS, UNITS, dtype=torch.float64)
    for batch in range(1, 5):
        x = data()[batch * 100 : (batch + 1) * 100]
        z = one.step(Batch({"x": x}), rate=1.0).solution.code
        keep = (1 - 1 / batch) ** forgetting if batch > 1 else 0.0
        a, b = keep * a + z.T @ z, keep * b + x.T @ z
    state = one.learner.state()
    torch.testing.assert_close(state["a"], a)
    torch.testing.assert_close(state["b"], b)


def test_it_ends_no_higher_than_scikit_learn() -> None:
    x, size, rounds = data(), 100, 30
    one = learning()
    start = matrix(one).clone()
    train(one, x, range(rounds), size)
    theirs = MiniBatchDictionaryLearning(
        UNITS, alpha=0.1, batch_size=size, dict_init=start.T.numpy().copy(), random_state=0
    )
    for step in range(rounds):
        first = step * size % len(x)
        theirs.partial_fit(x[first : first + size].numpy())
    ours = one.model.infer(x).energy
    with torch.no_grad():
        one.model.get_parameter("decoder.dictionary").copy_(torch.from_numpy(theirs.components_.T.copy()))
    other = one.model.infer(x).energy
    assert ours is not None
    assert other is not None
    assert float(ours.mean()) <= 1.02 * float(other.mean())


def test_an_encoder_and_a_learned_inhibition_go_on_beside_it() -> None:
    one = learning(
        encoder=LinearEncoder(),
        prediction=CodePrediction(acts="learning"),
        inhibition=LateralInhibition(sparsity=0.1, strength=0.01, learn=True, row_sum=1.0),
        solver=Auto(tolerance=1e-4),
    )
    before = {item.name: item.parameter.detach().clone() for item in one.learned}
    train(one, data(), range(4))
    moved = {item.name for item in one.learned if not torch.equal(before[item.name], item.parameter.detach())}
    assert {"encoder.feedforward", "decoder.dictionary", "terms.inhibition.matrix"} <= moved
    for item in one.learned:
        if item.spec.constraint is not None:
            assert item.spec.constraint.violation(item.parameter.detach()) <= 1e-6


def test_it_stays_where_nothing_asks_it_to_move() -> None:
    one = learning()
    before = matrix(one).clone()
    one.start_phase(PhaseConfig(epochs=1, freeze=["decoder"]))
    train(one, data(), range(2))
    one.start_phase(PhaseConfig(epochs=1, weights={"data": 0}))
    train(one, data(), range(2))
    assert torch.equal(matrix(one), before)
    assert not bool(one.learner.state()["a"].any())
    one.start_phase(PhaseConfig(epochs=1))
    train(one, data(), range(2))
    assert not torch.equal(matrix(one), before)


def test_an_atom_without_use_starts_again_from_an_input() -> None:
    one = learning(OnlineDictionary(replace_after=3))
    with torch.no_grad():
        matrix(one)[:, 4] = 0  # no code uses it
    x = data()
    train(one, x, range(2))
    assert not bool(matrix(one)[:, 4].any())
    train(one, x, range(2, 3))
    atom = matrix(one)[:, 4]
    assert float(atom.norm()) == pytest.approx(1)
    inputs = x / x.norm(dim=1, keepdim=True)
    assert float((inputs @ atom).max()) == pytest.approx(1)
    train(one, x, range(3, 8))
    assert float(one.learner.state()["a"][4, 4]) > 0


def test_pruning_slices_the_sums() -> None:
    one = learning()
    train(one, data(), range(3))
    units = torch.tensor([0, 3, 5, 19])
    before = one.learner.state()
    one.select(units)
    after = one.learner.state()
    assert torch.equal(after["a"], before["a"][units][:, units])
    assert torch.equal(after["b"], before["b"][:, units])
    train(one, data(), range(3, 5))
    assert matrix(one).shape == (INPUTS, 4)


def test_a_resume_with_another_learner_before_begins_its_sums_anew() -> None:
    one = learning()
    train(one, data(), range(2))
    one.learner.load_state({})
    assert not bool(one.learner.state()["a"].any())
    train(one, data(), range(2))


class Second(Regulariser):
    """Another term on what is decoded."""

    def energy(self, decoded: Tensor) -> Tensor:
        return decoded.square().sum(1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: learning(second=Second()), "knows nothing of the energy 'second', which depends on it"),
        (lambda: learning(solver=Fista(differentiate="unroll")), "set it to 'none', or use the gradient"),
        (
            lambda: Learning(
                Model(terms={"sparsity": L1()}, decoder=LinearDecoder(units=3), solver=Fista()).build((2,)),
                OnlineDictionary(),
            ),
            "needs a squared error",
        ),
        (
            lambda: Learning(
                Model(terms={"sparsity": L1()}, encoder=LinearEncoder(units=3), solver=Fista()).build((2,)),
                OnlineDictionary(),
            ),
            "needs a linear decoder",
        ),
    ],
)
def test_models_that_it_cannot_learn_are_refused(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        make()
    assert "\n" not in str(error.value)
