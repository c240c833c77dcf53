"""The hard cases of the contract, one small test or more for each: what is hard is a plugin, never a branch of the core.

Systems that come later (variational, convolutional, nested, restoration) stand here as plugins of a few lines.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv_transpose2d

from groundstate.components import Code, Context, Decoder, Encoder, Reconstruction, Regulariser, Solver, Task, Term
from groundstate.data import Batch, TensorSource
from groundstate.errors import InputError
from groundstate.inference import Certificate, Problem, State, solve
from groundstate.learning import Learner, LearningConfig, PhaseConfig, learned_parameters
from groundstate.model import Model
from groundstate.parameters import NonNegative, NormBound
from groundstate.stack import Layer, Stack
from groundstate.testing.prox import lower
from groundstate_plugins.decoders.linear import LinearDecoder
from groundstate_plugins.encoders.linear import LinearEncoder
from groundstate_plugins.encoders.recurrent import Recurrent
from groundstate_plugins.reconstructions.squared_error import SquaredError
from groundstate_plugins.regularisers import overlapping
from groundstate_plugins.regularisers.code_prediction import CodePrediction
from groundstate_plugins.regularisers.group import Group
from groundstate_plugins.regularisers.l1 import L1
from groundstate_plugins.regularisers.lateral_inhibition import LateralInhibition
from groundstate_plugins.regularisers.tree_group import TreeGroup
from groundstate_plugins.solvers.amortised import Amortised
from groundstate_plugins.solvers.coordinate_descent import CoordinateDescent
from groundstate_plugins.solvers.fista import Fista
from groundstate_plugins.solvers.hybrid import Hybrid
from groundstate_plugins.solvers.ista import Ista
from groundstate_plugins.tasks.cross_entropy import CrossEntropy

INPUTS, UNITS, SAMPLES = 10, 16, 8


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def coding(terms: dict[str, Term], solver: Solver[Any], **parts: Any) -> Model:
    """A float64 model of flat codes."""
    parts.setdefault("decoder", LinearDecoder(units=UNITS))
    classes = parts.pop("classes", None)
    model = Model(terms={"error": SquaredError(), **terms}, solver=solver, **parts)
    return model.build((INPUTS,), classes=classes, seed=3).double()


def problem_of(model: Model, x: Tensor, **fields: Any) -> Problem:
    return Problem(model.energy, Batch({"x": x}), model.shapes.code_shape, **fields)


def energies_on_the_way(model: Model, x: Tensor, start: Tensor | None = None) -> Tensor:
    """The energy of each sample after each iteration, (iterations, samples), with no sample leaving."""
    problem = problem_of(model, x)
    values: list[Tensor] = []

    def note(iteration: int, rows: Tensor, state: State, certificate: Certificate | None) -> None:
        values.append(problem.value(state.code))

    assert model.solver.config.tolerance == 0
    solve(problem, model.solver, problem.zeros() if start is None else start, callback=note)
    return torch.stack(values)


def never_rises(values: Tensor) -> bool:
    return bool((values[1:] <= values[:-1] + 1e-12 * values[0]).all())


# -- lateral inhibition: the prox depends on z; not convex; the order of units matters ------------------


def test_inhibition_majorises_descends_and_is_certified_by_a_residual() -> None:
    inhibition = LateralInhibition(rule="constant", strength=0.4, sparsity=0.05)
    model = coding({"inhibition": inhibition}, Ista(tolerance=0, max_iterations=150))
    x = normal(SAMPLES, INPUTS)
    assert problem_of(model, x).curvature() == pytest.approx(2 * 0.4 * (UNITS - 1))
    assert never_rises(energies_on_the_way(model, x, 0.1 * normal(SAMPLES, UNITS, seed=1)))
    model.solver = CoordinateDescent(order="greedy", tolerance=1e-7, max_iterations=500)
    solution = model.infer(x)
    assert solution.certificate is not None
    assert solution.certificate.kind == "residual"
    assert float(solution.certificate.relative.max()) < 1e-6


def test_greedy_order_does_not_care_how_units_are_numbered() -> None:
    x, shuffled = normal(SAMPLES, INPUTS), torch.randperm(UNITS, generator=torch.Generator().manual_seed(0))
    codes = {}
    for order in ("greedy", "cyclic"):
        inhibition = LateralInhibition(rule="constant", strength=0.8, sparsity=0.05)
        model = coding({"inhibition": inhibition}, CoordinateDescent(order=order, tolerance=1e-9, max_iterations=500))
        plain = model.encode(x)
        model.select(shuffled)
        codes[order] = (plain[:, shuffled], model.encode(x))
    torch.testing.assert_close(*codes["greedy"], atol=1e-6, rtol=0)
    assert not torch.allclose(*codes["cyclic"], atol=1e-2)


# -- learned S: a minimiser would set S = 0 ------------------------------------------------------------


def test_a_learned_inhibition_ascends_inside_its_set_and_separates_what_fires_together() -> None:
    model = coding(
        {"inhibition": LateralInhibition(learn=True, row_sum=1.5, sparsity=0.05, non_negative=True)},
        CoordinateDescent(tolerance=1e-6),
    )
    x = normal(60, INPUTS)
    learner = Learner(model, LearningConfig(ascent_rate=0.5))
    learner.start_phase(PhaseConfig(epochs=1, freeze=["decoder"]))
    matrix = model.terms["inhibition"].get_parameter("matrix")
    before = model.encode(x)
    together = before.T @ before / len(x)
    pair = together.fill_diagonal_(0).argmax()
    for _ in range(40):
        learner.step(Batch({"x": x}), rate=1e-3)
        learned = matrix.detach()
        assert bool((learned >= 0).all())
        assert torch.equal(learned, learned.T)
        assert not learned.diagonal().any()
        assert float(learned.sum(1).max()) <= 1.5 * (1 + 1e-12)
    assert float(learned.flatten()[pair]) > 0.1  # it started at 0
    after = model.encode(x)
    assert float((after.T @ after / len(x)).flatten()[pair]) < float(together.flatten()[pair]) / 3


class Rivalry(Regulariser):
    """Σ_i w_i |z_i| with w ≥ 0 ascending, without a bound."""

    def build(self, context: Context) -> None:
        self.declare("strength", torch.zeros(context.units), direction="ascend", constraint=NonNegative())

    def energy(self, z: Tensor) -> Tensor:
        return z.abs() @ self.get_parameter("strength")


def test_ascent_without_a_bound_is_refused() -> None:
    with pytest.raises(InputError, match="ascends the energy without a bound"):
        Learner(coding({"rivalry": Rivalry()}, Fista()), LearningConfig())


# -- overlapping pools: no closed prox; slow if restarted every step --------------------------------------


def test_overlapping_pools_keep_their_multipliers_between_steps_and_reach_the_gap(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sweeps: list[int] = []
    plain = overlapping.Ascent.sweep
    monkeypatch.setattr(overlapping.Ascent, "sweep", lambda self: (sweeps.append(1), plain(self))[1])
    groups = Group(sheet=(4, 4), window=(3, 3), weight=0.05)
    model = coding({"groups": groups}, Fista(tolerance=1e-6, max_iterations=500, check_every=1000))
    x = normal(SAMPLES, INPUTS)
    problem = problem_of(model, x)
    counts = []

    def note(*_: Any) -> None:
        counts.append(len(sweeps))
        sweeps.clear()

    solution = solve(problem, model.solver, problem.zeros(), callback=note)
    assert solution.certificate is not None
    assert solution.certificate.kind == "gap"
    assert float(solution.certificate.relative.max()) <= 1e-6
    assert counts[0] > 5  # from nothing
    assert sorted(counts[-100:])[50] == 1  # from the last step's
    kept = problem.memories["groups"].value
    assert kept is not None
    chosen = problem.select(torch.tensor([3, 1]))
    torch.testing.assert_close(chosen.memories["groups"].value, kept[[3, 1]])


# -- two proxes: composing them is not the prox of the sum ------------------------------------------------

PAIRS: dict[str, tuple[dict[str, Callable[[], Term]], bool]] = {
    "L1, disjoint groups": ({"a": lambda: Group(size=4), "b": lambda: L1(weight=0.7)}, True),
    "L1, overlapping groups": (
        {"a": lambda: L1(weight=0.4), "b": lambda: Group(sheet=(4, 4), window=(2, 2), weight=0.5)},
        True,
    ),
    "non-negative, tree": (
        {"a": lambda: TreeGroup(branching=[4, 3]), "b": lambda: L1(weight=0.2, non_negative=True)},
        True,
    ),
    "two families of groups": (
        {"a": lambda: Group(size=4), "b": lambda: Group(pools=[[i, (i + 5) % 16, (i + 10) % 16] for i in range(16)])},
        False,
    ),
    "groups and a tree": ({"a": lambda: Group(size=8, weight=0.6), "b": lambda: TreeGroup(branching=[4, 3])}, False),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_two_proxes_are_the_prox_of_their_sum(pair: str) -> None:
    terms, composed = PAIRS[pair]
    made = {name: term() for name, term in terms.items()}
    model = coding(made, Fista())
    problem = problem_of(model, normal(3, INPUTS), tolerance=1e-9)
    assert problem.split.composed == composed
    v = 2 * normal(3, UNITS, seed=4)
    non_negative = any(term.non_negative for term in made.values())

    def cost(u: Tensor) -> Tensor:
        return 0.6 * problem.penalty(u) + 0.5 * (u - v).square().sum(1)

    u = problem.prox(v, 0.6, v)
    assert bool((u == 0).any())
    assert bool((u != 0).any())
    found = lower(cost, [u, v, u + 0.1 * normal(3, UNITS, seed=5)], non_negative=non_negative)
    assert bool((cost(u) <= cost(found) + 1e-7).all())
    torch.testing.assert_close(problem._dykstra(v, 0.6, v), u, atol=1e-4, rtol=0)
    if not composed:
        one, other = (term.prox for term in made.values())
        assert one is not None
        assert other is not None
        wrong = other(one(v, 0.6 * made["a"].config.weight), 0.6 * made["b"].config.weight)
        assert float((cost(wrong) - cost(u)).max()) > 1e-3


@pytest.mark.parametrize("pair", PAIRS)
def test_two_norms_are_certified_by_one_gap(pair: str) -> None:
    terms, _ = PAIRS[pair]
    made = {name: term() for name, term in terms.items()}
    problem = problem_of(coding(made, Fista()), 3 * normal(4, INPUTS))
    solution = solve(problem, Fista(tolerance=1e-5, max_iterations=1000), problem.zeros())
    assert solution.certificate is not None
    assert solution.certificate.kind == "gap"
    assert float(solution.certificate.relative.max()) <= 1e-5
    assert bool((problem.certificate(problem.zeros()).relative > 1e-3).any())


# -- a term with only an energy ------------------------------------------------------------------------------


class Hoyer(Regulariser):
    """(‖z‖₁/‖z‖₂)², smoothed at 0 (Hoyer 2004)."""

    def energy(self, z: Tensor) -> Tensor:
        square = z.square()
        return (square + 1e-3).sqrt().sum(1).square() / (square.sum(1) + 0.1)


@pytest.mark.parametrize("solver", [Ista, Fista])
def test_an_energy_alone_is_enough(solver: type[Solver[Any]]) -> None:
    model = coding({"hoyer": Hoyer(weight=0.1)}, solver(tolerance=0, max_iterations=200))
    x, start = 30 * normal(SAMPLES, INPUTS), normal(SAMPLES, UNITS, seed=2)
    problem = problem_of(model, x)
    assert problem.split.smooth == ("error", "hoyer")
    assert not problem.lipschitz().certain  # so the step is found by backtracking
    values = energies_on_the_way(model, x, start)
    assert never_rises(values)
    assert float((values[-1] / values[0]).max()) < 0.1


# -- DrSAE: the encoder is a solver with learned matrices; phases switch the task on ----------------------------


def test_phases_switch_the_task_of_a_drsae_on() -> None:
    terms: dict[str, Term] = {"sparsity": L1(weight=0.05), "task": CrossEntropy(normalise=True)}
    model = coding(terms, Amortised(), encoder=Recurrent(steps=4), classes=3)
    batch = Batch({"x": normal(SAMPLES, INPUTS), "y": torch.arange(SAMPLES) % 3})
    learner = Learner(model, LearningConfig(rate=1e-2))
    start = {name: value.clone() for name, value in model.state_dict().items()}

    def moved() -> set[str]:
        return {name.split(".")[1] for name, value in model.state_dict().items() if not torch.equal(value, start[name])}

    learner.start_phase(PhaseConfig(epochs=1, terms=["error", "sparsity"]))
    first = learner.step(batch, rate=1e-2)
    assert set(first.energies) == {"error", "sparsity"}
    assert {"feedforward", "recurrent", "threshold"} <= moved()
    assert "task" not in moved()
    learner.start_phase(PhaseConfig(epochs=1))
    results = [learner.step(batch, rate=1e-2) for _ in range(40)]
    assert "task" in moved()
    assert float(results[-1].energies["task"]) < 0.7 * float(results[0].energies["task"])


# -- predictive sparse decomposition: the encoder and z* both learn ---------------------------------------------


def test_predictions_and_codes_approach_each_other() -> None:
    model = coding(
        {"sparsity": L1(weight=0.05), "prediction": CodePrediction(weight=1.0)},
        Hybrid(max_iterations=20, tolerance=1e-6),
        encoder=LinearEncoder(activation="identity", initialise="random"),
    )
    x = normal(64, INPUTS)
    assert model.encoder is not None
    learner = Learner(model, LearningConfig())
    start = {name: value.clone() for name, value in model.state_dict().items()}
    results = [learner.step(Batch({"x": x}), rate=1e-2) for _ in range(60)]
    predicted, inferred = model.encoder(x), results[-1].solution.code
    problem = problem_of(model, x, prediction=predicted.detach())
    assert bool((problem.value(model.encode(x)) <= problem.value(predicted.detach()) + 1e-12).all())
    assert not inferred.requires_grad  # the encoder learns by its prediction alone
    assert float(results[-1].energies["prediction"]) < 0.3 * float(results[0].energies["prediction"])
    changed = {name.split(".")[0] for name, value in model.state_dict().items() if not torch.equal(value, start[name])}
    assert changed == {"encoder", "decoder"}


# -- the task's gradient through z* -----------------------------------------------------------------------------


class Probe(Task):
    """⟨y, z⟩: what a task's gradient with respect to the code comes down to."""

    def energy(self, z: Tensor, y: Tensor) -> Tensor:
        return (z * y).sum(1)


@pytest.mark.parametrize("mode", ["unroll", "implicit"])
@pytest.mark.parametrize(
    "penalty",
    [
        lambda: L1(weight=0.1),
        lambda: Group(size=4, weight=0.1),
        lambda: Group(sheet=(4, 4), window=(2, 2), weight=0.05),
    ],
    ids=["l1", "disjoint", "overlapping"],
)
def test_a_tasks_gradient_goes_through_the_code(mode: Any, penalty: Callable[[], Term]) -> None:
    iterations = 400 if mode == "unroll" else 3000
    solver = Ista(tolerance=1e-13, max_iterations=iterations, differentiate=mode)
    model = coding(
        {"penalty": penalty(), "task": Probe()}, solver, decoder=LinearDecoder(units=UNITS, constraint="none")
    )
    assert model.decoder is not None
    dictionary = next(model.decoder.parameters())
    with torch.no_grad():
        dictionary.copy_(normal(INPUTS, UNITS, seed=6) / INPUTS**0.5)
    batch = Batch({"x": normal(2, INPUTS), "y": normal(2, UNITS, seed=7)})
    inferring = model.energy.weights("inference")

    def task() -> Tensor:
        solution = model.infer_batch(batch, weights=inferring, certify=False)
        return (solution.code * batch.fields["y"]).sum()

    task().backward()
    assert dictionary.grad is not None
    direction = normal(INPUTS, UNITS, seed=8)
    with torch.no_grad():
        dictionary.add_(1e-4 * direction)
        above = float(task())
        dictionary.sub_(2e-4 * direction)
        below = float(task())
    expected = (above - below) / 2e-4
    assert abs(expected) > 0.05
    assert float((dictionary.grad * direction).sum()) == pytest.approx(expected, rel=2e-3)


# -- variational: z is random, the regulariser needs mean and variance --------------------------------------------


class Gaussian(Encoder):
    """A draw from a Gaussian whose mean and log variance are linear in x."""

    def build(self, context: Context) -> None:
        self.declare("heads", 0.3 * context.randn(context.inputs, 2 * context.units))

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Code:
        mean, log_variance = (x @ self.get_parameter("heads")).chunk(2, 1)
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype)
        return Code(mean + (0.5 * log_variance).exp() * noise, mean, log_variance)


class Divergence(Regulariser):
    """½Σ(μ² + σ² − 1 − log σ²)."""

    def energy(self, code: Code) -> Tensor:
        assert code.mean is not None
        assert code.log_variance is not None
        return 0.5 * (code.mean.square() + code.log_variance.exp() - 1 - code.log_variance).sum(1)


def variational() -> Model:
    return coding({"rate": Divergence(weight=0.1, acts="learning")}, Amortised(), encoder=Gaussian())


def test_a_variational_code_shares_its_moments_and_its_draws_are_seeded() -> None:
    batch, config = Batch({"x": normal(SAMPLES, INPUTS)}), LearningConfig(rate=1e-2)

    def run(learner: Learner, steps: range) -> dict[str, Tensor]:
        for step in steps:
            learner.step(batch, rate=1e-2, generator=torch.Generator().manual_seed(step))
        return {name: value.clone() for name, value in learner.model.state_dict().items()}

    whole = run(Learner(variational(), config), range(6))
    cut = Learner(variational(), config)
    weights, state = run(cut, range(3)), cut.state()
    resumed = Learner(variational(), config)
    resumed.model.load_state_dict(weights)
    resumed.load_state(state)
    continued = run(resumed, range(3, 6))
    assert all(torch.equal(continued[name], value) for name, value in whole.items())
    point = cut.model.point(batch, cut.model.infer_batch(batch, certify=False))
    rate = cut.model.energy.values(point, {"rate": 1.0})["rate"]
    code = point.code
    assert code.mean is not None
    assert code.log_variance is not None
    expected = torch.distributions.kl_divergence(
        torch.distributions.Normal(code.mean, (0.5 * code.log_variance).exp()), torch.distributions.Normal(0.0, 1.0)
    ).sum(1)
    torch.testing.assert_close(rate, expected)


# -- convolutional; local without shared weights: codes with maps, a decoder that is no matrix ----------------------


class Convolution(Decoder):
    """Transposed convolution of 3 maps with 3 × 3 filters: codes (3, h, w), pictures (1, h + 2, w + 2)."""

    linear = True

    def code_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return 3, input_shape[1] - 2, input_shape[2] - 2

    def build(self, context: Context) -> None:
        filters = context.randn(3, 1, 3, 3)
        self.declare("filters", filters, constraint=NormBound((1, 2, 3)), unit_dims=(0,))

    def forward(self, z: Tensor) -> Tensor:
        return conv_transpose2d(z, self.get_parameter("filters"))


class Untied(Decoder):
    """Each place of the code, (3, h, w), has 3 filters of its own, 3 × 3."""

    linear = True

    def code_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return 3, input_shape[1] - 2, input_shape[2] - 2

    def build(self, context: Context) -> None:
        self.shape = context.input_shape[1:]
        places = context.units // 3
        self.declare("filters", context.randn(3, places, 9), constraint=NormBound((2,)), unit_dims=(0,))

    def forward(self, z: Tensor) -> Tensor:
        patches = torch.einsum("bmp,mpq->bqp", z.flatten(2), self.get_parameter("filters"))
        return nn.functional.fold(patches, self.shape, kernel_size=3)


@pytest.mark.parametrize("decoder", [Convolution, Untied])
@pytest.mark.parametrize("solver", [Ista, Fista])
def test_codes_with_maps_on_a_decoder_without_a_matrix(decoder: type[Decoder], solver: type[Solver[Any]]) -> None:
    groups = Group(maps=3, positions=2, positions_stride=1, weight=0.1, non_negative=True)
    model = Model(
        decoder=decoder(),
        terms={"error": SquaredError(), "groups": groups},
        solver=solver(tolerance=0, max_iterations=60),
    )
    model.build((1, 8, 7), seed=1).double()
    x = normal(3, 1, 8, 7).abs()
    problem = problem_of(model, x)
    assert model.shapes.code_shape == (3, 6, 5)
    assert problem.linear is None
    assert model.decoder is not None
    units = torch.eye(90, dtype=torch.float64).view(90, 3, 6, 5)
    matrix = model.decoder(units).detach().flatten(1)
    largest = float(torch.linalg.matrix_norm(matrix, 2) ** 2)
    assert problem.lipschitz().value == pytest.approx(largest, rel=0.1)  # by power iteration
    assert never_rises(energies_on_the_way(model, x))
    model.solver = Fista(tolerance=1e-4, max_iterations=2000)
    solution = model.infer(x)
    assert solution.certificate is not None
    assert float(solution.certificate.relative.max()) <= 1e-4
    assert bool((solution.code >= 0).all())
    learner = Learner(model, LearningConfig())
    energies = [float(learner.step(Batch({"x": x}), rate=1e-2).energies["error"]) for _ in range(10)]
    assert energies[-1] < energies[0]


# -- a stack: layer 2's data is layer 1's pooled code ---------------------------------------------------------------


class Pool(nn.Module):
    """L2 norms of pairs of units."""

    def forward(self, z: Tensor) -> Tensor:
        return (z.view(len(z), -1, 2).square().sum(2) + 1e-6).sqrt()


def test_a_layer_learns_from_the_pooled_codes_of_the_one_below() -> None:
    def layer(inputs: int, units: int) -> Model:
        model = Model(
            encoder=LinearEncoder(units=units),
            decoder=LinearDecoder(units=units),
            terms={"error": SquaredError(), "sparsity": L1(weight=0.01)},
            solver=Amortised(),
        )
        return model.build((inputs,), seed=units)

    data = TensorSource(x=normal(40, INPUTS).float(), y=torch.arange(40))
    first = layer(INPUTS, 12)
    stack = Stack([Layer(first, Pool())])
    features = stack.source(data)
    assert features.input_shape == (6,)
    rows = torch.tensor([5, 2])
    torch.testing.assert_close(features.read(rows).x, Pool()(first.encode(data.read(rows).x)))
    assert features.read(rows).fields["y"].tolist() == [5, 2]
    second = layer(6, 4)
    learner = Learner(second, LearningConfig())
    below = [parameter.clone() for parameter in first.parameters()]
    for batch in features.batches(20):
        learner.step(batch, rate=1e-2)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), below, strict=True))
    stack.append(Layer(second))
    with pytest.raises(InputError, match="inputs of shape"):
        stack.append(Layer(layer(7, 4)))
    stack(data.read(rows).x).square().sum().backward()  # fine-tuning opens them all
    assert first.encoder is not None
    assert any(parameter.grad is not None and bool(parameter.grad.any()) for parameter in first.encoder.parameters())


# -- pruning and growing: shapes change in mid-run -------------------------------------------------------------------


def test_pruning_slices_everything_that_has_an_axis_of_units() -> None:
    terms: dict[str, Term] = {
        "groups": Group(size=4, weight=0.02),
        "inhibition": LateralInhibition(learn=True, row_sum=1.0, sparsity=0.01),
        "task": CrossEntropy(),
    }
    model = coding(terms, Amortised(), encoder=Recurrent(steps=3, activation="soft-threshold"), classes=3)
    batch = Batch({"x": normal(SAMPLES, INPUTS), "y": torch.arange(SAMPLES) % 3})
    learner = Learner(model, LearningConfig(ascent_optimiser="adam"))
    for _ in range(3):
        learner.step(batch, rate=1e-2)
    keep = torch.tensor([0, 1, 2, 6, 7, 9, 14])
    parameters = {item.name: (item.parameter.detach().clone(), item.spec) for item in learner.learned}
    state = learner.state()
    learner.select(keep)
    assert model.shapes.code_shape == (7,)
    for item in learner.learned:
        old, spec = parameters[item.name]
        for dim in spec.unit_dims:
            old = old.index_select(dim, keep)
        torch.testing.assert_close(item.parameter.detach(), old)
        moments = state[f"{item.name}/exp_avg"]
        for dim in spec.unit_dims:
            moments = moments.index_select(dim, keep)
        assert torch.equal(learner.state()[f"{item.name}/exp_avg"], moments)
    assert model.terms["groups"].config.pools == [[0, 1, 2], [3, 4], [5], [6]]
    learner.step(batch, rate=1e-2)  # and goes on
    assert float(model.terms["inhibition"].get_parameter("matrix").detach().sum(1).max()) <= 1 + 1e-12


def test_growing_is_a_selection_that_names_units_twice() -> None:
    model = coding({"sparsity": L1(weight=0.02)}, Fista(), encoder=None)
    learner = Learner(model, LearningConfig())
    batch = Batch({"x": normal(SAMPLES, INPUTS)})
    learner.step(batch, rate=1e-2)
    learner.select(torch.cat([torch.arange(UNITS), torch.tensor([3, 5])]))
    assert model.encode(batch.x).shape == (SAMPLES, UNITS + 2)
    learner.step(batch, rate=1e-2)


# -- restoration: a mask, another data term -----------------------------------------------------------------------------


class MaskedError(Reconstruction):
    """½‖mask ∘ (x − decoded)‖²."""

    quadratic = True

    def energy(self, x: Tensor, decoded: Tensor, mask: Tensor) -> Tensor:
        return 0.5 * (mask * (x - decoded)).square().sum(1)


def test_missing_values_do_not_count() -> None:
    model = Model(
        decoder=LinearDecoder(units=UNITS),
        terms={"error": MaskedError(), "sparsity": L1(weight=0.1)},
        solver=Fista(tolerance=1e-9, max_iterations=5000),
    )
    model.build((INPUTS,), seed=3).double()
    mask = (torch.arange(INPUTS) % 3 > 0).double().expand(SAMPLES, -1)
    x = normal(SAMPLES, INPUTS)
    code = model.infer(torch.where(mask > 0, x, 1e3), mask=mask).code
    visible = coding({"sparsity": L1(weight=0.1)}, Fista(tolerance=1e-12, max_iterations=5000))
    assert visible.decoder is not None
    with torch.no_grad():
        next(visible.decoder.parameters()).mul_(mask[0][:, None])
    torch.testing.assert_close(code, visible.encode(mask * x), atol=1e-5, rtol=0)
    with pytest.raises(InputError, match="asks for 'mask', which nothing provides"):
        model.infer(x)


# -- nested reconstructions of one code ---------------------------------------------------------------------------------


class Nested(Reconstruction):
    """Σ_k ½‖x − decode(first k units)‖²: the first units must do alone (Matryoshka)."""

    quadratic = True

    def energy(self, x: Tensor, z: Tensor, decode: Callable[[Tensor], Tensor]) -> Tensor:
        errors = [x - decode(z * (torch.arange(z.shape[1]) < k)) for k in (4, 8, 16)]
        return torch.stack([0.5 * error.square().sum(1) for error in errors]).sum(0)


def test_a_term_may_decode_parts_of_the_code() -> None:
    model = Model(
        decoder=LinearDecoder(units=UNITS),
        terms={"nested": Nested(), "sparsity": L1(weight=0.05)},
        solver=Fista(tolerance=1e-8, max_iterations=5000),
    )
    model.build((INPUTS,), seed=3).double()
    x = normal(SAMPLES, INPUTS)
    solution = model.infer(x)
    assert solution.certificate is not None
    assert float(solution.certificate.relative.max()) <= 1e-8
    first = solution.code * (torch.arange(UNITS) < 4)
    alone = coding({"sparsity": L1(weight=0.05)}, Fista(tolerance=1e-8, max_iterations=5000)).encode(x)
    error = (x - model.decode(first)).square().sum(1).mean()
    assert float(error) < float((x - model.decode(alone * (torch.arange(UNITS) < 4))).square().sum(1).mean())
    energies = Learner(model, LearningConfig()).step(Batch({"x": x}), rate=1e-2).energies
    assert set(energies) == {"nested", "sparsity"}


# -- another machine: S and D are parameters like any other, and ascent is a gradient -------------------------------------


def test_the_gradients_of_two_halves_average_to_that_of_the_whole_batch() -> None:
    model = coding(
        {"inhibition": LateralInhibition(learn=True, row_sum=1.0, sparsity=0.05)},
        CoordinateDescent(tolerance=1e-10, max_iterations=2000),
    )
    learner = Learner(model, LearningConfig())
    with torch.no_grad():
        matrix = model.terms["inhibition"].get_parameter("matrix")
        matrix.copy_(0.05 * (1 - torch.eye(UNITS)))
    x = normal(SAMPLES, INPUTS)
    weights = {stage: model.energy.weights(stage) for stage in ("inference", "learning")}

    def gradients(rows: slice) -> dict[str, Tensor]:
        batch = Batch({"x": x[rows]})
        solution = model.infer_batch(batch, weights=weights["inference"], certify=False)
        model.zero_grad()
        model.energy.total(model.point(batch, solution), weights["learning"]).mean().backward()
        found = {item.name: item.parameter.grad for item in learned_parameters(model)}
        return {name: gradient.clone() for name, gradient in found.items() if gradient is not None}

    whole, one, other = gradients(slice(None)), gradients(slice(0, 4)), gradients(slice(4, 8))
    directions = {item.spec.direction for item in learner.learned}
    assert directions == {"descend", "ascend"}
    assert len(whole) == 2
    for name, gradient in whole.items():
        assert bool(gradient.any())
        torch.testing.assert_close(0.5 * (one[name] + other[name]), gradient, atol=1e-7, rtol=0)
