"""The learning step: infer, descend, ascend, project; phases; and a state that resumes bit for bit."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from groundstate.components import Context, Decoder, Regulariser
from groundstate.data import Batch
from groundstate.errors import InputError, RunError
from groundstate.learning import Learning, PhaseConfig, check_finite, learned_parameters
from groundstate.model import Model
from groundstate.parameters import Constraint, NormBound
from groundstate_plugins.decoders.linear import LinearDecoder
from groundstate_plugins.encoders.recurrent import Recurrent
from groundstate_plugins.learners.gradient import Gradient
from groundstate_plugins.reconstructions.squared_error import SquaredError
from groundstate_plugins.regularisers.l1 import L1
from groundstate_plugins.solvers.amortised import Amortised
from groundstate_plugins.solvers.fista import Fista
from groundstate_plugins.tasks.cross_entropy import CrossEntropy

INPUTS, UNITS, CLASSES = 10, 6, 3


class Rivalry(Regulariser):
    """|z|ᵀS|z| whose S ascends."""

    rivals: Tensor

    def __init__(self, constraint: Constraint | None, rate: float = 1.0, **fields: Any) -> None:
        super().__init__(**fields)
        self.constraint, self.rate = constraint, rate

    def build(self, context: Context) -> None:
        start = torch.zeros(context.units, context.units)
        self.declare("rivals", start, direction="ascend", rate=self.rate, constraint=self.constraint, unit_dims=(0, 1))

    def energy(self, z: Tensor) -> Tensor:
        return ((z.abs() @ self.rivals) * z.abs()).sum(1)


def drsae(**extra: Any) -> Model:
    terms: dict[str, Any] = {
        "data": SquaredError(),
        "sparsity": L1(weight=0.05),
        "task": CrossEntropy(normalise=True),
    }
    model = Model(
        encoder=Recurrent(steps=3),
        decoder=LinearDecoder(units=UNITS),
        terms=terms | extra,
        solver=Amortised(),
    )
    return model.build((INPUTS,), classes=CLASSES, seed=2)


def batch(seed: int = 0, size: int = 20) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(size, INPUTS, generator=generator)
    return Batch({"x": x, "y": torch.randint(CLASSES, (size,), generator=generator)})


def copies(model: Model) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def moved(before: dict[str, Tensor], model: Model) -> set[str]:
    return {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}


def train(learner: Learning, steps: range) -> None:
    for step in steps:
        learner.step(batch(step), rate=0.01)


# -- one step ---------------------------------------------------------------------------------------


def test_a_step_moves_each_parameter_down_its_own_gradient() -> None:
    """With plain gradient descent and no constraint hit, W ← W − rate·multiplier·∂E/∂W, E the batch's mean."""
    model = drsae()
    learner = Learning(model, Gradient(optimiser="sgd"))
    data, before = batch(), copies(model)
    solution = model.infer_batch(data, certify=False)
    weights = model.energy.weights("learning")
    loss = model.energy.total(model.point(data, solution), weights).mean()
    names = [item.name for item in learner.learned]
    gradients = torch.autograd.grad(loss, [item.parameter for item in learner.learned])
    result = learner.step(data, rate=1e-3)
    assert float(sum(result.energies.values())) == pytest.approx(float(loss.detach()), rel=1e-5)
    expected = {}
    for item, gradient in zip(learner.learned, gradients, strict=True):
        value = before[item.name] - 1e-3 * item.spec.rate * gradient
        if item.spec.constraint is not None:
            item.spec.constraint.project_(value)
        expected[item.name] = value
    assert set(names) == set(before)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-7)


def test_rate_multipliers_reach_the_optimiser() -> None:
    learner = Learning(drsae(), Gradient())
    learner.step(batch(), rate=0.03)
    rates = {id(p): group["lr"] for group in learner.optimisers["descend"].param_groups for p in group["params"]}
    for item in learner.learned:
        factor = 1 / 3 if item.name.startswith("encoder") else 1.0
        assert rates[id(item.parameter)] == pytest.approx(0.03 * factor)


def test_training_lowers_the_energy_and_keeps_every_constraint() -> None:
    model = drsae()
    learner = Learning(model, Gradient())
    first = sum(float(value) for value in learner.step(batch(), rate=0.02).energies.values())
    for _ in range(100):
        last = learner.step(batch(), rate=0.02).energies
        for item in learner.learned:
            if item.spec.constraint is not None:
                assert item.spec.constraint.violation(item.parameter.detach()) <= 1e-6
    assert sum(float(value) for value in last.values()) < 0.7 * first


def test_with_an_optimised_code_the_decoder_descends_the_envelope_gradient() -> None:
    """∂/∂D min_z E = −(x − Dz*)z*ᵀ: the code is a constant in the gradient."""
    model = Model(
        decoder=LinearDecoder(units=UNITS, constraint="none"),
        terms={"data": SquaredError(), "sparsity": L1(weight=0.05)},
        solver=Fista(tolerance=1e-10, max_iterations=2000),
    ).build((INPUTS,), seed=2)
    model.double()
    data = batch().to(torch.device("cpu"), torch.float64)
    d = model.decoder.dictionary.detach().clone()  # type: ignore[union-attr]
    z = model.infer(data.x).code
    Learning(model, Gradient(optimiser="sgd")).step(data, rate=0.1)
    expected = d + 0.1 * (data.x - z @ d.T).T @ z / len(data)
    torch.testing.assert_close(model.decoder.dictionary.detach(), expected)  # type: ignore[union-attr]


def test_several_descents_on_one_batch_infer_once_when_the_code_is_a_constant() -> None:
    model = Model(
        decoder=LinearDecoder(units=UNITS),
        terms={"data": SquaredError(), "sparsity": L1(weight=0.05)},
        solver=Fista(),
    ).build((INPUTS,), seed=2)
    calls = 0
    infer = model.infer_batch

    def counted(*args: Any, **fields: Any) -> Any:
        nonlocal calls
        calls += 1
        return infer(*args, **fields)

    model.infer_batch = counted  # type: ignore[method-assign]
    learner = Learning(model, Gradient(descend_steps=3))
    learner.step(batch(), rate=0.01)
    assert calls == 1
    assert float(learner.state()["decoder.dictionary/step"]) == 3


def test_a_clipped_gradient_has_at_most_that_norm() -> None:
    model = drsae()
    learner = Learning(model, Gradient(optimiser="sgd", clip=1e-3))
    learner.step(batch(), rate=1.0)
    norms = [item.parameter.grad.norm() for item in learner.learned if item.parameter.grad is not None]
    assert float(torch.stack(norms).norm()) == pytest.approx(1e-3, rel=1e-4)


# -- ascent -----------------------------------------------------------------------------------------


def test_an_ascending_parameter_climbs_and_is_projected() -> None:
    """∂E/∂S = mean |z||z|ᵀ, added, then cut to the ball."""
    model = drsae(rivalry=Rivalry(NormBound((0, 1), 0.5), weight=2.0))
    learner = Learning(model, Gradient(ascent_rate=0.1))
    data = batch()
    z = model.encode(data.x).abs()
    learner.step(data, rate=1e-3)
    rivals = model.terms["rivalry"].rivals.detach()
    expected = 0.1 * 2.0 * z.T @ z / len(data)
    NormBound((0, 1), 0.5).project_(expected)
    torch.testing.assert_close(rivals, expected)
    for step in range(30):
        learner.step(batch(step), rate=1e-3)
    assert float(model.terms["rivalry"].rivals.detach().norm()) == pytest.approx(0.5, rel=1e-5)


def test_ascent_waits_for_its_turn() -> None:
    model = drsae(rivalry=Rivalry(NormBound((0, 1))))
    learner = Learning(model, Gradient(ascend_every=3))
    sizes = []
    for step in range(6):
        learner.step(batch(step), rate=1e-3)
        sizes.append(float(model.terms["rivalry"].rivals.detach().norm()))
    assert sizes[0] == sizes[1] == 0
    assert sizes[2] == sizes[3] == sizes[4] > 0
    assert sizes[5] > sizes[4]


def test_ascent_without_a_bound_is_refused() -> None:
    with pytest.raises(InputError, match=r"terms\.rivalry\.rivals ascends.*bounded constraint"):
        Learning(drsae(rivalry=Rivalry(None)), Gradient())


# -- phases -----------------------------------------------------------------------------------------


def test_a_phases_terms_alone_learn() -> None:
    model = drsae()
    learner = Learning(model, Gradient())
    learner.start_phase(PhaseConfig(epochs=1, terms=["data", "sparsity"]))
    before = copies(model)
    result = learner.step(batch(), rate=0.01)
    assert set(result.energies) == {"data", "sparsity"}
    assert moved(before, model) == {name for name in before if not name.startswith("terms.task")}
    learner.start_phase(PhaseConfig(epochs=1))
    assert set(learner.step(batch(), rate=0.01).energies) == {"data", "sparsity", "task"}


def test_a_phases_weights_replace_the_terms_own() -> None:
    model = drsae()
    learner = Learning(model, Gradient(optimiser="sgd"))
    plain = learner.step(batch(), rate=1e-12).energies
    learner.start_phase(PhaseConfig(epochs=1, weights={"sparsity": 0.5}))
    heavier = learner.step(batch(), rate=1e-12).energies
    assert float(heavier["sparsity"]) == pytest.approx(10 * float(plain["sparsity"]), rel=1e-4)
    assert float(heavier["data"]) == pytest.approx(float(plain["data"]), rel=1e-4)


def test_frozen_parameters_stay_and_thaw_in_the_next_phase() -> None:
    model = drsae()
    learner = Learning(model, Gradient())
    learner.start_phase(PhaseConfig(epochs=1, freeze=["decoder", "encoder.recurrent"]))
    before = copies(model)
    train(learner, range(3))
    still = set(before) - moved(before, model)
    assert still == {"decoder.dictionary", "encoder.recurrent"}
    learner.start_phase(PhaseConfig(epochs=1))
    train(learner, range(1))
    assert moved(before, model) == set(before)


def test_freezing_what_is_not_there_names_what_is() -> None:
    learner = Learning(drsae(), Gradient())
    with pytest.raises(InputError, match=r"'decodr'.*decoder\.dictionary"):
        learner.start_phase(PhaseConfig(epochs=1, freeze=["decodr"]))


def test_the_rate_follows_schedule_warmup_and_the_phases_own() -> None:
    learner = Learning(drsae(), Gradient(rate=0.1))
    assert learner.rate(0.7) == 0.1
    learner.start_phase(PhaseConfig(epochs=4, schedule="cosine", rate=0.2))
    assert [learner.rate(p) for p in (0, 0.5, 1)] == pytest.approx([0.2, 0.1, 0.0])
    assert learner.rate(1 / 3) == pytest.approx(0.2 * 0.5 * (1 + math.cos(math.pi / 3)))
    learner.start_phase(PhaseConfig(epochs=4, warmup=2))
    assert [learner.rate(0, done) for done in (0, 1, 2, 3)] == pytest.approx([5e-5, 0.05005, 0.1, 0.1])


# -- state ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimiser", ["adam", "adamw", "sgd"])
def test_a_learner_resumes_bit_for_bit(optimiser: Any) -> None:
    config = Gradient(optimiser=optimiser, ascent_optimiser="adam", ascend_every=2)

    def fresh() -> Model:
        return drsae(rivalry=Rivalry(NormBound((0, 1), 0.5), rate=0.5))

    whole = fresh()
    train(Learning(whole, config), range(7))

    first = fresh()
    learner = Learning(first, config)
    train(learner, range(3))
    weights, state = copies(first), {name: value.clone() for name, value in learner.state().items()}

    second = fresh()
    second.load_state_dict(weights)
    learner = Learning(second, config)
    learner.load_state(state)
    assert learner.steps == 3
    train(learner, range(3, 7))
    for name, value in second.state_dict().items():
        assert torch.equal(value, whole.state_dict()[name]), name


def test_the_state_names_each_tensor_by_its_parameter() -> None:
    learner = Learning(drsae(), Gradient())
    assert set(learner.state()) == {"steps"}
    learner.step(batch(), rate=0.01)
    state = learner.state()
    names = [item.name for item in learned_parameters(learner.model)]
    assert set(state) == {"steps"} | {f"{n}/{key}" for n in names for key in ("step", "exp_avg", "exp_avg_sq")}
    assert all(
        value.shape == learner.model.state_dict()[name[:-8]].shape
        for name, value in state.items()
        if name.endswith("/exp_avg")
    )


def test_pruning_slices_parameters_and_the_optimisers_state() -> None:
    model = drsae(rivalry=Rivalry(NormBound((0, 1), 0.5)))
    learner = Learning(model, Gradient(ascent_optimiser="adam"))
    train(learner, range(3))
    before, state, kept = copies(model), learner.state(), torch.tensor([5, 0, 2])
    learner.select(kept)
    assert model.shapes.code_shape == (3,)
    dims = {
        "decoder.dictionary": (1,),
        "encoder.feedforward": (0,),
        "encoder.recurrent": (0, 1),
        "encoder.threshold": (0,),
        "terms.task.weight": (1,),
        "terms.task.bias": (),
        "terms.rivalry.rivals": (0, 1),
    }
    assert set(dims) == set(before)
    after = learner.state()
    for name, axes in dims.items():
        parts = [(model.state_dict()[name], before[name])]
        parts += [(after[f"{name}/{key}"], state[f"{name}/{key}"]) for key in ("exp_avg", "exp_avg_sq")]
        for new, old in parts:
            for axis in axes:
                old = old.index_select(axis, kept)
            assert torch.equal(new, old)
        assert torch.equal(after[f"{name}/step"], state[f"{name}/step"])
    assert int(after["steps"]) == 3
    learner.step(batch(9), rate=0.01)
    assert float(learner.state()["decoder.dictionary/step"]) == 4
    assert isinstance(model.decoder, Decoder)
    assert model.decoder.config.units == 3


def test_pruning_keeps_what_a_phase_froze() -> None:
    model = drsae()
    learner = Learning(model, Gradient())
    learner.start_phase(PhaseConfig(epochs=1, freeze=["decoder"]))
    learner.select(torch.arange(4))
    before = copies(model)
    train(learner, range(1))
    assert "decoder.dictionary" not in moved(before, model)


def test_pruning_every_unit_is_refused() -> None:
    with pytest.raises(InputError, match="at least one"):
        Learning(drsae(), Gradient()).select(torch.tensor([], dtype=torch.int64))


def test_an_energy_that_is_not_finite_names_the_term_and_the_step() -> None:
    check_finite({"data": torch.tensor(1.0)}, 7)
    with pytest.raises(RunError, match=r"energy\.data became nan at step 7.*learning\.rate"):
        check_finite({"data": torch.tensor(math.nan)}, 7)
