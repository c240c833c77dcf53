"""The hard cases of the contract: each is a plugin or a config, none needs a branch in the core.

Where the full system comes later, a tiny plugin of it stands here.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.linear_model import Lasso
from torch import Tensor, nn
from torch.nn import functional

from groundstate.components import Code, Context, Decoder, Encoder, Reconstruction, Regulariser, Solver, Task, Term
from groundstate.data import Batch, TensorSource
from groundstate.errors import InputError
from groundstate.inference import solve
from groundstate.learning import Learning, PhaseConfig
from groundstate.model import Model
from groundstate.problem import Problem
from groundstate.stack import Layer, Stack
from groundstate_plugins.decoders.linear import LinearDecoder
from groundstate_plugins.encoders.linear import LinearEncoder
from groundstate_plugins.encoders.recurrent import Recurrent
from groundstate_plugins.learners.gradient import Gradient
from groundstate_plugins.reconstructions.squared_error import SquaredError
from groundstate_plugins.regularisers.code_prediction import CodePrediction
from groundstate_plugins.regularisers.group import Group
from groundstate_plugins.regularisers.inhibition_set import InhibitionSet
from groundstate_plugins.regularisers.l1 import L1
from groundstate_plugins.regularisers.lateral_inhibition import LateralInhibition
from groundstate_plugins.regularisers.tree_inhibition import TreeInhibition
from groundstate_plugins.solvers.amortised import Amortised
from groundstate_plugins.solvers.coordinate_descent import CoordinateDescent
from groundstate_plugins.solvers.fista import Fista
from groundstate_plugins.solvers.hybrid import Hybrid
from groundstate_plugins.solvers.ista import Ista
from groundstate_plugins.tasks.cross_entropy import CrossEntropy

INPUTS, UNITS, CLASSES = 8, 9, 3


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def model(
    solver: Solver[Any],
    *,
    encoder: Encoder | None = None,
    decoder: Decoder | None = None,
    shape: Sequence[int] = (INPUTS,),
    **terms: Term,
) -> Model:
    """A built model in float64 with a squared error, unless the terms bring their own reconstruction."""
    if not any(isinstance(term, Reconstruction) for term in terms.values()):
        terms = {"data": SquaredError(), **terms}
    made = Model(encoder=encoder, decoder=decoder or LinearDecoder(units=UNITS), terms=terms, solver=solver)
    return made.build(shape, classes=CLASSES, seed=4).double()


def energies(problem: Problem, solver: Solver[Any], iterations: int = 40) -> list[Tensor]:
    """The energy at zeros and after each iteration."""
    with torch.no_grad():
        state = solver.init(problem, problem.zeros())
        found = [problem.value(state.code)]
        for _ in range(iterations):
            state = solver.step(problem, state)
            found.append(problem.value(state.code))
    return found


def assert_never_rises(found: list[Tensor]) -> None:
    for before, after in itertools.pairwise(found):
        assert bool((after <= before + 1e-12 * (1 + before.abs())).all())
    assert bool((found[-1] < found[0]).all())


def labels(samples: int) -> Tensor:
    return torch.arange(samples) % CLASSES


# -- lateral inhibition -----------------------------------------------------------------------------


def test_lateral_inhibition_by_greedy_coordinates_and_by_majorising_steps() -> None:
    """The prox depends on z: it is asked for the current code; the certificate is a residual."""
    term = LateralInhibition(sparsity=0.1, rule="constant", strength=0.5)
    one = model(CoordinateDescent(tolerance=1e-10), inhibition=term)
    x = normal(6, INPUTS)
    greedy = one.infer(x)
    assert greedy.certificate is not None
    assert greedy.certificate.kind == "residual"
    assert float(greedy.certificate.relative.max()) <= 1e-10
    for solver in (CoordinateDescent(block=1), CoordinateDescent(order="cyclic"), Ista()):
        assert_never_rises(energies(Problem(one.energy, Batch({"x": x}), (UNITS,)), solver))


def test_a_learned_matrix_ascends_inside_its_set() -> None:
    term = LateralInhibition(sparsity=0.05, learn=True, row_sum=0.8, non_negative=True)
    learner = Learning(model(CoordinateDescent(), inhibition=term), Gradient(ascent_rate=0.2))
    batch = Batch({"x": normal(40, INPUTS).abs()})
    z = learner.model.encode(batch.x)
    learner.step(batch, rate=1e-3)
    expected = 0.2 * z.T @ z / 40
    InhibitionSet(~torch.eye(UNITS, dtype=torch.bool), 0.8).project_(expected)
    torch.testing.assert_close(term.matrix.detach(), expected)
    for _ in range(20):
        learner.step(batch, rate=1e-3)
    assert float(term.matrix.detach().sum(1).max()) == pytest.approx(0.8)


class Boundless(Regulariser):
    """An ascending parameter that nothing bounds."""

    def build(self, context: Context) -> None:
        self.declare("scale", torch.ones(context.units), direction="ascend")

    def energy(self, z: Tensor) -> Tensor:
        return (z.abs() * self.get_parameter("scale")).sum(1)


def test_ascent_without_a_bound_is_refused() -> None:
    with pytest.raises(InputError, match=r"terms\.boundless\.scale ascends the energy without a bound"):
        Learning(model(Fista(), boundless=Boundless()), Gradient())


# -- proxes -----------------------------------------------------------------------------------------


def shrink(v: Tensor, norms: Sequence[tuple[float, Sequence[int]]]) -> Tensor:
    """argmin_u Σ λ‖u_P‖₂ + ½‖u − v‖², by projected gradient ascent on the dual: u = v − Σ p_P, ‖p_P‖ ≤ λ."""
    parts = [np.zeros(v.shape) for _ in norms]
    overlap = max(sum(unit in pool for _, pool in norms) for unit in range(v.shape[1]))
    for _ in range(4000):
        u = v.numpy() - sum(parts)
        for part, (size, pool) in zip(parts, norms, strict=True):
            pool = list(pool)
            part[:, pool] += u[:, pool] / overlap
            part[:, pool] *= np.minimum(1, size / np.maximum(np.linalg.norm(part[:, pool], axis=1), 1e-300))[:, None]
    return torch.from_numpy(v.numpy() - sum(parts))


def prox_of(*terms: Term) -> tuple[Problem, Tensor, Tensor]:
    """A problem with these terms, what its prox makes of a random v, and v; with step 0.5."""
    named = {f"penalty{number}": term for number, term in enumerate(terms)}
    one = model(Fista(), **named)
    problem = Problem(one.energy, Batch({"x": normal(5, INPUTS)}), (UNITS,), tolerance=1e-9)
    v = normal(5, UNITS, seed=3)
    return problem, problem.prox(v, 0.5, torch.zeros_like(v)), v


ROWS = [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
COLUMNS = [[0, 3, 6], [1, 4, 7], [2, 5, 8]]


def test_overlapping_pools_have_an_inner_prox_that_is_warm_started() -> None:
    """Windows of a torus; what the prox remembers belongs to the problem and follows its samples."""
    term = Group(weight=0.6, sheet=(3, 3), window=(2, 2))
    problem, found, v = prox_of(term)
    assert problem.split.composed
    torus = [[3 * ((i + a) % 3) + (j + b) % 3 for a in (0, 1) for b in (0, 1)] for i in range(3) for j in range(3)]
    torch.testing.assert_close(found, shrink(v, [(0.3, pool) for pool in torus]), rtol=0, atol=1e-4)
    memory = problem.memories["penalty0"].value
    assert memory is not None
    assert len(memory) == 5
    chosen = problem.select(torch.tensor([4, 1])).memories["penalty0"].value
    assert torch.equal(chosen, memory[[4, 1]])


def test_l1_with_disjoint_pools_composes_exactly() -> None:
    problem, found, v = prox_of(Group(weight=0.8, size=3), L1(weight=0.2))
    assert problem.split.composed
    assert problem.split.proxed == ("penalty1", "penalty0")  # soft threshold first, whatever the config's order
    norms = [(0.4, pool) for pool in ROWS] + [(0.1, [unit]) for unit in range(UNITS)]
    torch.testing.assert_close(found, shrink(v, norms), rtol=0, atol=1e-9)


def test_l1_with_overlapping_pools_is_the_prox_of_their_sum() -> None:
    _, found, v = prox_of(L1(weight=0.2), Group(weight=0.6, pools=[*ROWS, *COLUMNS]))
    norms = [(0.3, pool) for pool in ROWS + COLUMNS] + [(0.1, [unit]) for unit in range(UNITS)]
    torch.testing.assert_close(found, shrink(v, norms), rtol=0, atol=1e-4)


def test_proxes_that_do_not_compose_go_through_dykstra() -> None:
    """Rows and columns of a sheet cross; applying one after the other is not the prox of the sum."""
    rows, columns = Group(weight=0.6, pools=ROWS), Group(weight=0.6, pools=COLUMNS)
    problem, found, v = prox_of(L1(weight=0.2), rows, columns)
    assert not problem.split.composed
    norms = [(0.3, pool) for pool in ROWS + COLUMNS] + [(0.1, [unit]) for unit in range(UNITS)]
    expected = shrink(v, norms)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    naive = columns.prox(rows.prox(L1().prox(v, 0.1), 0.3), 0.3)
    assert float((naive - expected).abs().max()) > 1e-2


class LogCosh(Regulariser):
    """Σ_i log cosh z_i, and nothing but that."""

    def energy(self, z: Tensor) -> Tensor:
        return (z + functional.softplus(-2 * z)).sum(1) - UNITS * float(np.log(2))


def test_a_term_with_only_an_energy_goes_by_autograd_and_backtracking() -> None:
    one = model(Fista(tolerance=1e-9, max_iterations=3000), smooth=LogCosh(weight=0.7), sparsity=L1(weight=0.01))
    x = normal(2, INPUTS)
    problem = Problem(one.energy, Batch({"x": x}), (UNITS,))
    assert not problem.lipschitz().certain
    assert_never_rises(energies(problem, Fista()))
    assert_never_rises(energies(problem, Ista()))
    d = one.decoder.dictionary.detach().numpy()  # type: ignore[union-attr]
    found = one.infer(x)
    for row in range(2):

        def objective(parts: np.ndarray, row: int = row) -> float:
            # z = p − q with p, q ≥ 0 makes ‖z‖₁ linear
            z = parts[:UNITS] - parts[UNITS:]
            smooth = 0.5 * ((x[row].numpy() - d @ z) ** 2).sum() + 0.7 * np.log(np.cosh(z)).sum()
            return float(smooth + 0.01 * parts.sum())

        best = minimize(objective, np.full(2 * UNITS, 0.1), bounds=[(0, None)] * (2 * UNITS), tol=1e-14)
        assert found.energy is not None
        assert float(found.energy[row]) == pytest.approx(best.fun, rel=1e-5)
        assert float(found.energy[row]) <= best.fun + 1e-9


# -- encoders ---------------------------------------------------------------------------------------


def test_drsae_is_a_recurrent_encoder_whose_task_a_phase_switches_on() -> None:
    one = model(Amortised(), encoder=Recurrent(steps=4), sparsity=L1(weight=0.05), task=CrossEntropy(normalise=True))
    learner = Learning(one, Gradient())
    batch = Batch({"x": normal(12, INPUTS).abs(), "y": labels(12)})
    learner.start_phase(PhaseConfig(epochs=1, terms=["data", "sparsity"]))
    weight = one.terms["task"].weight.detach().clone()
    assert set(learner.step(batch, rate=0.01).energies) == {"data", "sparsity"}
    assert torch.equal(one.terms["task"].weight, weight)
    learner.start_phase(PhaseConfig(epochs=1))
    result = learner.step(batch, rate=0.01)
    assert set(result.energies) == {"data", "sparsity", "task"}
    assert not torch.equal(one.terms["task"].weight, weight)
    assert result.solution.code.requires_grad  # back-propagates through the T steps


def test_predictive_sparse_decomposition_is_a_hybrid_solver_with_code_prediction() -> None:
    one = model(
        Hybrid(max_iterations=10),
        encoder=LinearEncoder(activation="identity"),
        sparsity=L1(weight=0.1),
        prediction=CodePrediction(weight=0.5),
    )
    x = normal(30, INPUTS)
    encoded = one.run_encoder(x)
    assert encoded is not None
    problem = Problem(one.energy, Batch({"x": x}), (UNITS,), encoded=encoded)
    solution = one.infer(x)
    assert solution.energy is not None
    assert bool((solution.energy < problem.value(encoded.value.detach())).all())
    assert int(solution.iterations.max()) <= 10
    learner = Learning(one, Gradient())
    first = learner.step(Batch({"x": x}), rate=0.01).energies["prediction"]
    for _ in range(40):
        last = learner.step(Batch({"x": x}), rate=0.01).energies["prediction"]
    assert float(last) < 0.5 * float(first)


class Gaussian(Encoder):
    """Mean and log-variance of a code by two matrices; the code is a draw."""

    def build(self, context: Context) -> None:
        for name in ("mean", "log_variance"):
            self.declare(name, 0.3 * context.randn(context.units, context.inputs), unit_dims=(0,))

    def forward(self, x: Tensor, generator: torch.Generator | None) -> Code:
        mean, log_variance = (x @ self.get_parameter(name).T for name in ("mean", "log_variance"))
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype)
        return Code(mean + (0.5 * log_variance).exp() * noise, mean=mean, log_variance=log_variance)


class Divergence(Regulariser):
    """½Σ(μ² + σ² − 1 − log σ²), of what the encoder shares; the code itself does not enter."""

    def energy(self, code: Code) -> Tensor:
        assert code.mean is not None
        assert code.log_variance is not None
        return 0.5 * (code.mean.square() + code.log_variance.exp() - 1 - code.log_variance).sum(1)


def test_a_variational_code_is_a_seeded_draw_whose_divergence_asks_for_its_mean() -> None:
    def step(seed: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        one = model(Amortised(), encoder=Gaussian(), divergence=Divergence(weight=0.3, acts="learning"))
        learner = Learning(one, Gradient())
        generator = torch.Generator().manual_seed(seed)
        result = learner.step(Batch({"x": normal(10, INPUTS)}), rate=0.01, generator=generator)
        return result.energies, one.state_dict()

    found, parameters = step(1)
    again, same = step(1)
    other, different = step(2)
    assert found == again
    assert all(torch.equal(same[name], value) for name, value in parameters.items())
    assert found["data"] != other["data"]
    assert found["divergence"] == other["divergence"]
    assert not torch.equal(different["encoder.mean"], parameters["encoder.mean"])

    one = model(Amortised(), encoder=Gaussian(), divergence=Divergence(weight=0.3, acts="learning"))
    x = normal(10, INPUTS)
    mean, log_variance = x @ one.encoder.mean.T, x @ one.encoder.log_variance.T  # type: ignore[union-attr, operator]
    draw = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    unit = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    expected = 0.3 * torch.distributions.kl_divergence(draw, unit).sum(1).mean()
    torch.testing.assert_close(found["divergence"], expected.detach())


# -- the task through the code ----------------------------------------------------------------------


@pytest.mark.parametrize("path", ["unroll", "implicit"])
def test_a_tasks_gradient_reaches_the_decoder_through_the_code(path: Any) -> None:
    """The task acts in learning alone: its gradient in D is only the one through z*, here by finite differences."""
    solver = Fista(tolerance=1e-13 if path == "implicit" else 0, max_iterations=400, differentiate=path)
    one = model(solver, decoder=LinearDecoder(units=5, constraint="none"), sparsity=L1(weight=0.1), task=CrossEntropy())
    with torch.no_grad():
        one.terms["task"].weight.copy_(normal(*one.terms["task"].weight.shape, seed=6))
    batch = Batch({"x": normal(3, INPUTS), "y": labels(3)})

    def loss() -> Tensor:
        solution = one.infer_batch(batch, certify=False)
        return one.energy.total(one.point(batch, solution), {"task": 1.0}).mean()

    dictionary = one.decoder.dictionary  # type: ignore[union-attr]
    (found,) = torch.autograd.grad(loss(), dictionary)
    assert float(found.abs().max()) > 1e-3
    for place in [(0, 0), (3, 2), (7, 4)]:
        values = []
        for nudge in (1e-5, -2e-5):
            with torch.no_grad():
                dictionary[place] += nudge
            values.append(float(loss().detach()))
        with torch.no_grad():
            dictionary[place] += 1e-5
        assert float(found[place]) == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-5, abs=1e-8)


# -- codes that are not flat ------------------------------------------------------------------------


class ConvolutionalDecoder(Decoder):
    """Maps, each the sum of its codes times a shared filter."""

    linear = True

    def code_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (3, input_shape[1] - 2, input_shape[2] - 2)

    def build(self, context: Context) -> None:
        self.declare("filters", 0.3 * context.randn(3, 1, 3, 3), unit_dims=(0,))

    def forward(self, z: Tensor) -> Tensor:
        return functional.conv_transpose2d(z, self.get_parameter("filters"))


class LocalDecoder(ConvolutionalDecoder):
    """The same with a filter of its own at every place: no weights are shared."""

    def build(self, context: Context) -> None:
        channels, height, width = context.code_shape
        self.declare("filters", 0.3 * context.randn(channels, 9, height, width), unit_dims=(0,))

    def forward(self, z: Tensor) -> Tensor:
        patches = (z[:, :, None] * self.get_parameter("filters")).sum(1).flatten(2)
        height, width = z.shape[2] + 2, z.shape[3] + 2
        return functional.fold(patches, (height, width), 3)


@pytest.mark.parametrize("decoder", [ConvolutionalDecoder, LocalDecoder])
def test_a_decoder_that_is_no_matrix_takes_the_generic_solver(decoder: type[Decoder]) -> None:
    """Power iteration bounds its curvature; the optimum is that of the same map written as a matrix."""
    one = model(Fista(tolerance=1e-9, max_iterations=3000), decoder=decoder(), shape=(1, 6, 6), sparsity=L1(weight=0.1))
    assert one.shapes.code_shape == (3, 4, 4)
    x = normal(3, 1, 6, 6)
    problem = Problem(one.energy, Batch({"x": x}), (3, 4, 4))
    assert problem.structure is None
    with torch.no_grad():
        matrix = one.decode(torch.eye(48, dtype=torch.float64).view(48, 3, 4, 4)).flatten(1).numpy().T
    assert problem.lipschitz().value == pytest.approx(np.linalg.norm(matrix, 2) ** 2, rel=0.05)
    assert_never_rises(energies(problem, Fista()))
    found = one.infer(x)
    assert found.energy is not None
    for row in range(3):
        fit = Lasso(alpha=0.1 / 36, fit_intercept=False, tol=1e-12, max_iter=100_000)
        z = fit.fit(matrix, x[row].flatten().numpy()).coef_
        best = 0.5 * ((x[row].flatten().numpy() - matrix @ z) ** 2).sum() + 0.1 * np.abs(z).sum()
        assert float(found.energy[row]) == pytest.approx(best, rel=1e-6)
    learner = Learning(one, Gradient())
    first = learner.step(Batch({"x": x}), rate=0.02)
    for _ in range(10):
        last = learner.step(Batch({"x": x}), rate=0.02)
    assert sum(map(float, last.energies.values())) < sum(map(float, first.energies.values()))
    learner.select(torch.tensor([2, 0]))
    assert one.infer(x).code.shape == (3, 2, 4, 4)


# -- stacks, pruning --------------------------------------------------------------------------------


class PairPool(nn.Module):
    """The L2 norm of each two neighbours."""

    def forward(self, code: Tensor) -> Tensor:
        return (code.unflatten(1, (-1, 2)).square().sum(2) + 1e-6).sqrt()


def sparse_layer(inputs: int, units: int) -> Model:
    return model(
        Amortised(),
        encoder=LinearEncoder(),
        decoder=LinearDecoder(units=units),
        shape=(inputs,),
        sparsity=L1(weight=0.05, non_negative=True),
    )


def test_a_stacks_next_layer_trains_on_pooled_codes_and_fine_tuning_opens_all() -> None:
    data = TensorSource(x=normal(40, INPUTS).abs(), y=labels(40))
    first = sparse_layer(INPUTS, 8)
    stack = Stack([Layer(first, PairPool())])
    source = stack.source(data)
    assert source.input_shape == (4,)
    second = sparse_layer(4, 5)
    learner = Learning(second, Gradient())
    found = [sum(map(float, learner.step(batch, rate=0.02).energies.values())) for batch in source.batches(10)]
    for _ in range(20):
        found += [sum(map(float, learner.step(batch, rate=0.02).energies.values())) for batch in source.batches(10)]
    assert found[-1] < found[3]
    stack.append(Layer(second))
    classifier = nn.Linear(5, CLASSES).double()
    functional.cross_entropy(classifier(stack(data.fields["x"])), data.fields["y"]).backward()
    for layer in (first, second):
        gradient = layer.encoder.feedforward.grad  # type: ignore[union-attr]
        assert isinstance(gradient, Tensor)
        assert bool(torch.isfinite(gradient).all())
        assert float(gradient.abs().max()) > 0


def test_pruning_in_mid_run_shrinks_parameters_states_constraints_and_what_is_saved(tmp_path: Path) -> None:
    term = TreeInhibition(branching=[2, 3], learn=True, row_sum=1.0, strength=0.1, non_negative=True, sparsity=0.05)
    one = Model(
        decoder=LinearDecoder(units=8), terms={"data": SquaredError(), "tree": term}, solver=CoordinateDescent()
    ).build((INPUTS,), seed=4)
    learner = Learning(one, Gradient(ascent_optimiser="adam", ascent_rate=0.01))
    batch = Batch({"x": normal(30, INPUTS).abs().float()})
    for _ in range(3):
        learner.step(batch, rate=0.01)
    before, state = {k: v.clone() for k, v in one.state_dict().items()}, learner.state()
    kept = torch.tensor([1, 2, 4, 5, 7])  # the first tree loses its root and a leaf, the second a leaf
    learner.select(kept)
    after = learner.state()
    for key in ("exp_avg", "exp_avg_sq"):
        assert torch.equal(after[f"decoder.dictionary/{key}"], state[f"decoder.dictionary/{key}"][:, kept])
        assert torch.equal(after[f"terms.tree.matrix/{key}"], state[f"terms.tree.matrix/{key}"][kept][:, kept])
    assert torch.equal(one.terms["tree"].matrix, before["terms.tree.matrix"][kept][:, kept])
    assert one.terms["tree"].config.parents == [-1, -1, -1, 2, 2]
    for _ in range(3):
        learner.step(batch, rate=0.01)
    s = one.terms["tree"].matrix.detach()
    assert not bool(s[[2, 2, 3, 4], [3, 4, 2, 2]].any())
    assert float(s[0, 2]) > 0
    one.save(tmp_path)
    loaded = Model.load(tmp_path)
    assert loaded.shapes == one.shapes
    assert sum(p.numel() for p in loaded.parameters()) == 5 * INPUTS + 25
    assert torch.equal(loaded.infer(batch.x).code, one.infer(batch.x).code)


# -- further fields, further calls ------------------------------------------------------------------


class Masked(Reconstruction):
    """½‖mask ∘ (x − decoded)‖²: what is missing does not count."""

    quadratic = True

    def energy(self, x: Tensor, decoded: Tensor, mask: Tensor) -> Tensor:
        return 0.5 * (mask * (x - decoded)).flatten(1).square().sum(1)


def test_restoration_asks_for_a_mask_by_name() -> None:
    """Each sample's code is the lasso on the entries that its own mask leaves."""
    one = model(Fista(tolerance=1e-10, max_iterations=3000), data=Masked(), sparsity=L1(weight=0.05))
    x, mask = normal(4, INPUTS), (normal(4, INPUTS, seed=8) > -0.5).double()
    assert 0 < float(mask.sum()) < mask.numel()
    found = one.infer(x, mask=mask)
    spoiled = one.infer(torch.where(mask > 0, x, 1e3), mask=mask)
    torch.testing.assert_close(spoiled.code, found.code)
    d = one.decoder.dictionary.detach().numpy()  # type: ignore[union-attr]
    for row in range(4):
        seen = mask[row].numpy() > 0
        fit = Lasso(alpha=0.05 / seen.sum(), fit_intercept=False, tol=1e-14, max_iter=100_000)
        z = fit.fit(d[seen], x[row].numpy()[seen]).coef_
        best = 0.5 * ((x[row].numpy() - d @ z)[seen] ** 2).sum() + 0.05 * np.abs(z).sum()
        assert found.energy is not None
        assert float(found.energy[row]) == pytest.approx(best, rel=1e-6)
    with pytest.raises(InputError, match="'mask', which nothing provides; there is: x"):
        one.infer(x)


class Nested(Reconstruction):
    """½‖x − D z_{1…m}‖² over several prefixes of one code (Matryoshka)."""

    def energy(self, x: Tensor, z: Tensor, decode: Decoder) -> Tensor:
        total = x.new_zeros(len(x))
        for prefix in (3, 6, UNITS):
            ahead = (torch.arange(UNITS) < prefix).to(z)
            total = total + 0.5 * (x - decode(z * ahead)).square().sum(1)
        return total


def test_nested_reconstructions_call_the_decoder_on_prefixes() -> None:
    one = model(Fista(tolerance=1e-9, max_iterations=3000), data=Nested(), sparsity=L1(weight=0.05))
    x = normal(3, INPUTS)
    found = one.infer(x)
    assert found.energy is not None
    d = one.decoder.dictionary.detach().numpy()  # type: ignore[union-attr]
    # the same as one lasso on stacked dictionaries
    stacked = np.concatenate([d * (np.arange(UNITS) < prefix) for prefix in (3, 6, UNITS)])
    for row in range(3):
        target = np.tile(x[row].numpy(), 3)
        z = Lasso(alpha=0.05 / 24, fit_intercept=False, tol=1e-14, max_iter=100_000).fit(stacked, target).coef_
        best = 0.5 * ((target - stacked @ z) ** 2).sum() + 0.05 * np.abs(z).sum()
        assert float(found.energy[row]) == pytest.approx(best, rel=1e-6)
    gradient = Learning(one, Gradient(optimiser="sgd")).step(Batch({"x": x}), rate=0.1)
    assert set(gradient.energies) == {"data", "sparsity"}


# -- another machine --------------------------------------------------------------------------------


def test_gradients_of_half_batches_average_to_those_of_the_batch() -> None:
    """Of what descends and of what ascends alike, so that data-parallel training reduces both in one call."""
    term = LateralInhibition(rule="constant", strength=0.1, learn=True, row_sum=2.0)

    class Scores(Task):
        """½‖z w − y‖² with weights of its own."""

        def build(self, context: Context) -> None:
            self.declare("w", context.randn(context.units), unit_dims=(0,))

        def energy(self, z: Tensor, y: Tensor) -> Tensor:
            return 0.5 * (z @ self.get_parameter("w") - y).square()

    one = model(CoordinateDescent(tolerance=1e-10), inhibition=term, task=Scores())
    batch = Batch({"x": normal(10, INPUTS), "y": labels(10)})
    parameters = dict(one.named_parameters())

    def gradients(rows: Tensor) -> list[Tensor]:
        part = batch.select(rows)
        solution = one.infer_batch(part, certify=False)
        loss = one.energy.total(one.point(part, solution), one.energy.weights("learning")).mean()
        return list(torch.autograd.grad(loss, list(parameters.values())))

    assert {"decoder.dictionary", "terms.inhibition.matrix", "terms.task.w"} == set(parameters)
    whole = gradients(torch.arange(10))
    halves = [gradients(rows) for rows in torch.arange(10).view(2, 5)]
    for expected, one_half, other in zip(whole, *halves, strict=True):
        torch.testing.assert_close(0.5 * (one_half + other), expected, rtol=1e-9, atol=1e-12)
        assert float(expected.abs().max()) > 0


def test_what_a_sample_gives_does_not_depend_on_where_its_batch_mates_are() -> None:
    term = LateralInhibition(rule="constant", strength=0.1)
    one = model(CoordinateDescent(tolerance=1e-10), inhibition=term)
    batch = Batch({"x": normal(6, INPUTS)})
    problem = Problem(one.energy, batch, (UNITS,))
    together = solve(problem, one.solver, problem.zeros()).code
    for row in range(6):
        alone = Problem(one.energy, batch.select(torch.tensor([row])), (UNITS,))
        torch.testing.assert_close(solve(alone, one.solver, alone.zeros()).code[0], together[row])
