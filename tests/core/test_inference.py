"""What a solver sees of an energy, the certificates, the loop, and gradients through the minimiser."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.linear_model import ElasticNet, Lasso
from torch import Tensor

from groundstate.api import infer
from groundstate.components import Context, Regulariser, Solver, State, Task, Term
from groundstate.data import Batch
from groundstate.energy import Energy
from groundstate.errors import InputError
from groundstate.implicit import attach_implicit
from groundstate.inference import Kernel, Solved, kernel_name, kernel_of, select_state, solve
from groundstate.model import Model
from groundstate.problem import Certificate, Problem, soft_threshold
from groundstate.structure import ProblemStructure
from groundstate_plugins.backends.cpu import Cpu
from groundstate_plugins.decoders.linear import LinearDecoder
from groundstate_plugins.reconstructions.squared_error import SquaredError
from groundstate_plugins.regularisers.l1 import L1
from groundstate_plugins.regularisers.l2 import L2
from groundstate_plugins.solvers.auto import Auto
from groundstate_plugins.solvers.fista import Fista
from groundstate_plugins.solvers.ista import Ista


class Opaque(LinearDecoder):
    """A linear decoder that does not tell its matrix, as a convolution would."""

    def structure(self) -> None:  # type: ignore[override]
        return None


class Curved(LinearDecoder):
    """A decoder that is not linear."""

    linear = False

    def forward(self, z: Tensor) -> Tensor:
        return torch.tanh(super().forward(z))

    def structure(self) -> None:  # type: ignore[override]
        return None


def model_of(
    terms: dict[str, Term],
    *,
    inputs: int = 12,
    units: int = 8,
    solver: Solver[Any] | None = None,
    decoder: type[LinearDecoder] = LinearDecoder,
    dtype: torch.dtype = torch.float64,
) -> Model:
    model = Model(terms=terms, solver=solver or Fista(), decoder=decoder(units=units))
    return model.build((inputs,), seed=3).to(dtype)


def inputs_of(samples: int, inputs: int = 12, dtype: torch.dtype = torch.float64) -> Tensor:
    return normal(samples, inputs, seed=1).to(dtype)


def normal(*shape: int, seed: int = 7) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def problem_of(model: Model, x: Tensor, **fields: Any) -> Problem:
    return Problem(model.energy, Batch({"x": x}), model.shapes.code_shape, **fields)


def sparse(weight: float = 0.3, **fields: Any) -> dict[str, Term]:
    return {"data": SquaredError(), "sparsity": L1(weight=weight, **fields)}


# -- the problem ------------------------------------------------------------------------------------


@pytest.mark.parametrize("ridge", [0.0, 0.4])
@pytest.mark.parametrize("data", [1.0, 2.5])
def test_the_closed_form_equals_the_generic_one(ridge: float, data: float) -> None:
    terms: dict[str, Term] = {"data": SquaredError(weight=data), "ridge": L2(weight=ridge), "sparsity": L1(weight=0.3)}
    x, z = inputs_of(5), normal(5, 8)
    closed, generic = (problem_of(model_of(terms, decoder=decoder), x) for decoder in (LinearDecoder, Opaque))
    assert closed.linear is not None
    assert generic.linear is None
    torch.testing.assert_close(closed.value(z), generic.value(z))
    for one, other in zip(closed.smooth(z), generic.smooth(z), strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(closed.gradient(z), generic.gradient(z))
    torch.testing.assert_close(closed.smooth_value(z) + closed.penalty(z), closed.value(z))


@pytest.mark.parametrize("decoder", [LinearDecoder, Opaque, Curved])
def test_the_gradient_of_the_smooth_part_against_finite_differences(decoder: type[LinearDecoder]) -> None:
    terms: dict[str, Term] = {"data": SquaredError(weight=1.7), "ridge": L2(weight=0.4), "sparsity": L1(weight=0.3)}
    problem = problem_of(model_of(terms, decoder=decoder), inputs_of(3))
    z = normal(3, 8)
    _, gradient = problem.smooth(z)
    step = 1e-6
    for unit in range(8):
        shift = torch.zeros_like(z)
        shift[:, unit] = step
        slope = (problem.smooth(z + shift)[0] - problem.smooth(z - shift)[0]) / (2 * step)
        torch.testing.assert_close(gradient[:, unit], slope, rtol=1e-6, atol=1e-8)


def test_residuals_are_affine_and_may_be_handed_in() -> None:
    problem = problem_of(model_of(sparse()), inputs_of(4))
    one, other = normal(2, 4, 8)
    between = torch.lerp(one, other, 0.3)
    residual = torch.lerp(problem.residual(one), problem.residual(other), 0.3)
    torch.testing.assert_close(residual, problem.residual(between))
    torch.testing.assert_close(problem.value(between, residual), problem.value(between))
    torch.testing.assert_close(problem.gradient(between, residual), problem.gradient(between))
    assert problem_of(model_of(sparse(), decoder=Opaque), inputs_of(4)).residual(one).shape == (4, 0)


def test_the_lipschitz_constant_of_a_matrix_is_its_largest_eigenvalue() -> None:
    model = model_of({"data": SquaredError(weight=2.0), "ridge": L2(weight=0.5), "sparsity": L1()})
    bound = problem_of(model, inputs_of(2)).lipschitz()
    d = model.decoder.dictionary.detach().numpy()  # type: ignore[union-attr]
    exact = 2.0 * np.linalg.norm(d, 2) ** 2 + 0.5
    assert bound.certain
    assert exact <= bound.value <= exact * (1 + 1e-5)


def test_power_iteration_finds_it_for_a_linear_decoder_that_is_no_matrix() -> None:
    opaque = problem_of(model_of(sparse(), decoder=Opaque), inputs_of(6)).lipschitz()
    exact = problem_of(model_of(sparse()), inputs_of(6)).lipschitz()
    assert not opaque.certain
    assert opaque.value == pytest.approx(exact.value, rel=0.02)
    assert problem_of(model_of(sparse(), decoder=Curved), inputs_of(6)).lipschitz().value == 1.0


def test_the_structure_tells_weights_and_is_none_where_a_part_does_not_tell() -> None:
    terms: dict[str, Term] = {"data": SquaredError(weight=2), "ridge": L2(weight=0.5), "sparsity": L1(weight=0.3)}
    form = problem_of(model_of(terms), inputs_of(2)).structure
    assert form is not None
    assert form.data.weight == 2
    assert {type(part).__name__: part.weight for part in form.penalties} == {"L1": 0.3, "Ridge": 0.5}

    class Own(L1):
        def structure(self) -> None:  # type: ignore[override]
            return None

    assert problem_of(model_of({"data": SquaredError(), "own": Own()}), inputs_of(2)).structure is None
    assert problem_of(model_of(sparse(), decoder=Opaque), inputs_of(2)).structure is None


def test_a_term_without_prox_counts_as_smooth() -> None:
    class Smooth(Regulariser):
        def energy(self, z: Tensor) -> Tensor:
            return z.square().add(0.01).sqrt().sum(1)

    problem = problem_of(model_of({"data": SquaredError(), "smooth": Smooth()}), inputs_of(2))
    assert problem.split.smooth == ("data", "smooth")
    z = normal(2, 8)
    assert torch.equal(problem.prox(z, 0.5, z), z)


def test_soft_threshold_takes_numbers_and_tensors() -> None:
    v = torch.tensor([[-2.0, -0.5, 0.0, 0.5, 2.0]])
    assert soft_threshold(v, 1.0).tolist() == [[-1, 0, 0, 0, 1]]
    assert soft_threshold(v, torch.tensor([[1.0]])).tolist() == [[-1, 0, 0, 0, 1]]
    assert soft_threshold(v, 1.0, non_negative=True).tolist() == [[0, 0, 0, 0, 1]]


class Box(Regulariser):
    """0 where |z| ≤ 1: its prox cuts; composes with nothing that it knows of."""

    def energy(self, z: Tensor) -> Tensor:
        return z.new_zeros(len(z))

    def prox(self, v: Tensor) -> Tensor:
        return v.clamp(-1, 1)


class Pair(Regulariser):
    """‖z‖₂ over all units, with its prox."""

    norm = True

    def energy(self, z: Tensor) -> Tensor:
        return z.norm(dim=1)

    def prox(self, v: Tensor, step: float) -> Tensor:
        return v * (1 - step / v.norm(dim=1, keepdim=True).clamp_min(step))

    def dual_norm(self, c: Tensor) -> Tensor:
        return c.norm(dim=1)


def test_proxes_that_do_not_compose_go_through_dykstra() -> None:
    """‖z‖₂ and a box: the prox of their sum, against a numerical minimiser over the box."""
    terms: dict[str, Term] = {"data": SquaredError(), "box": Box(), "pair": Pair(weight=0.7)}
    problem = problem_of(model_of(terms, units=4), inputs_of(3), tolerance=1e-12)
    v = torch.tensor([[2.0, 0.3, -0.2, 0.1], [1.5, -1.8, 0.0, 0.4], [0.1, 0.2, 0.1, 0.0]], dtype=torch.float64)
    assert not problem.split.composed
    found = problem.prox(v, 0.5, v)

    def objective(u: np.ndarray, target: np.ndarray) -> float:
        return float(0.35 * np.linalg.norm(u) + 0.5 * np.sum((u - target) ** 2))

    for row, target in zip(found, v.numpy(), strict=True):
        options = {"ftol": 1e-15, "gtol": 1e-10}
        best = minimize(objective, np.full(4, 0.1), (target,), bounds=[(-1, 1)] * 4, options=options)
        assert objective(row.numpy(), target) <= best.fun + 1e-9
        np.testing.assert_allclose(row.numpy(), best.x, atol=1e-5)


# -- certificates -----------------------------------------------------------------------------------


def lasso(model: Model, x: Tensor, weight: float, *, positive: bool = False, ridge: float = 0.0) -> Tensor:
    """The minimiser of ½‖x − Dz‖² + weight‖z‖₁ + ½ridge‖z‖² by scikit-learn, row by row."""
    d = model.decoder.dictionary.detach().numpy()  # type: ignore[union-attr]
    n, options = len(d), {"fit_intercept": False, "tol": 1e-14, "max_iter": 200_000, "positive": positive}
    if ridge:
        alpha = (weight + ridge) / n
        fit: Any = ElasticNet(alpha=alpha, l1_ratio=weight / (weight + ridge), **options)
    else:
        fit = Lasso(alpha=weight / n, **options)
    return torch.from_numpy(np.stack([fit.fit(d, row).coef_.copy() for row in x.numpy()]))


@pytest.mark.parametrize("units", [8, 30])
@pytest.mark.parametrize(("weight", "positive", "ridge"), [(0.3, False, 0.0), (0.05, True, 0.0), (0.2, False, 0.5)])
def test_the_gap_bounds_the_distance_to_the_optimum(units: int, weight: float, positive: bool, ridge: float) -> None:
    terms: dict[str, Term] = {
        "data": SquaredError(),
        "sparsity": L1(weight=weight, non_negative=positive),
        "ridge": L2(weight=ridge),
    }
    model, x = model_of(terms, units=units), inputs_of(6)
    problem = problem_of(model, x)
    best = lasso(model, x, weight, positive=positive, ridge=ridge)
    lowest = problem.value(best)
    at_best = problem.certificate(best)
    assert at_best.kind == "gap"
    assert bool((at_best.relative <= 1e-10).all())
    for spread in (1e-6, 1e-3, 0.1, 1.0):
        z = best + spread * normal(*best.shape)
        z = z.clamp_min(0) if positive else z
        certificate = problem.certificate(z)
        excess = problem.value(z) - lowest
        assert bool((certificate.value >= excess - 1e-12).all())
        assert bool((certificate.value > 0).all())
    relative = 0.5 * x.square().sum(1)
    torch.testing.assert_close(certificate.relative, certificate.value / relative)


def test_a_code_outside_its_domain_has_no_finite_gap() -> None:
    problem = problem_of(model_of(sparse(non_negative=True)), inputs_of(2))
    z = torch.zeros(2, 8, dtype=torch.float64)
    z[1, 3] = -0.1
    assert problem.certificate(z).value.isfinite().tolist() == [True, False]


def test_two_norms_are_certified_together() -> None:
    """Two L1 terms are one of their summed weight; ‖z‖₁ + ‖z‖₂ has a gap that vanishes at its optimum."""
    x = inputs_of(5)
    z = 0.3 * normal(5, 8)
    one = problem_of(model_of(sparse(0.5)), x)
    two = problem_of(model_of({"data": SquaredError(), "a": L1(weight=0.3), "b": L1(weight=0.2)}), x)
    torch.testing.assert_close(two.certificate(z).value, one.certificate(z).value)

    class After(Pair):
        def prox_after(self, earlier: Sequence[object]) -> bool:
            return True

    both = model_of({"data": SquaredError(), "a": L1(weight=0.3), "b": After(weight=0.4)})
    solution = solve(problem_of(both, x), Fista(tolerance=1e-10, max_iterations=3000), torch.zeros_like(z))
    assert solution.certificate is not None
    assert solution.certificate.kind == "gap"
    assert bool((solution.certificate.relative <= 1e-10).all())


@pytest.mark.parametrize("decoder", [Opaque, Curved])
def test_elsewhere_the_certificate_is_the_fixed_point_residual(decoder: type[LinearDecoder]) -> None:
    problem = problem_of(model_of(sparse(), decoder=decoder), inputs_of(3))
    zero = problem.zeros()
    certificate = problem.certificate(zero)
    assert certificate.kind == "residual"
    torch.testing.assert_close(certificate.relative, torch.ones(3, dtype=torch.float64))
    solver = Fista(tolerance=1e-9, max_iterations=3000)
    end = problem.certificate(solve(problem, solver, zero).code)
    assert bool((end.relative <= 1e-9).all())


def test_a_ridge_alone_is_certified_by_its_residual() -> None:
    """Without a norm there is no dual point; the gap would stay at E and no solver would ever stop."""
    model = model_of({"data": SquaredError(), "ridge": L2(weight=0.3)})
    solution = solve(
        problem_of(model, inputs_of(3)), Fista(tolerance=1e-8, max_iterations=500), torch.zeros(3, 8).double()
    )
    assert solution.certificate is not None
    assert solution.certificate.kind == "residual"
    d = model.decoder.dictionary.detach()  # type: ignore[union-attr]
    exact = torch.linalg.solve(d.T @ d + 0.3 * torch.eye(8).double(), d.T @ inputs_of(3).T).T
    torch.testing.assert_close(solution.code, exact, rtol=1e-6, atol=1e-7)


# -- the loop ---------------------------------------------------------------------------------------


def test_each_sample_stops_when_it_is_certified_whatever_its_batch_mates_need() -> None:
    model = model_of(sparse(), units=30)
    x = inputs_of(40) * torch.logspace(-2, 1, 40, dtype=torch.float64)[:, None]
    solver = Fista(tolerance=1e-9, check_every=5, max_iterations=5000)
    zeros = torch.zeros(40, 30, dtype=torch.float64)
    together = solve(problem_of(model, x), solver, zeros)
    assert together.certificate is not None
    assert bool((together.certificate.relative <= 1e-9).all())
    assert together.iterations.unique().numel() > 3
    for row in (0, 13, 39):
        alone = solve(problem_of(model, x[row : row + 1]), solver, zeros[:1])
        assert int(alone.iterations) == int(together.iterations[row])
        torch.testing.assert_close(alone.code[0], together.code[row], rtol=1e-9, atol=1e-12)


def test_samples_leave_the_batch_and_the_callback_follows_those_that_stay() -> None:
    model = model_of(sparse(), units=30)
    x = inputs_of(40) * torch.logspace(-2, 1, 40, dtype=torch.float64)[:, None]
    sizes: list[int] = []
    seen: list[bool] = []

    def follow(iteration: int, rows: Tensor, state: State, certificate: Certificate | None) -> None:
        assert len(rows) == len(state.code)
        assert iteration == len(sizes) + 1
        sizes.append(len(rows))
        seen.append(certificate is not None)

    solver = Fista(tolerance=1e-9, check_every=5, max_iterations=5000)
    solution = solve(problem_of(model, x), solver, torch.zeros(40, 30).double(), callback=follow)
    assert sizes[0] == 40
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 20
    assert len(sizes) == int(solution.iterations.max())
    assert [i + 1 for i, checked in enumerate(seen) if checked] == list(range(5, len(sizes) + 1, 5))


def test_large_batches_are_solved_in_blocks_to_the_same_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = model_of(sparse(), units=30), inputs_of(40)
    solver = Fista(tolerance=1e-9, max_iterations=5000)
    whole = solve(problem_of(model, x), solver, torch.zeros(40, 30).double())
    monkeypatch.setattr("groundstate.inference.BLOCK", 7 * 42)
    sizes: list[int] = []
    select = Problem.select
    monkeypatch.setattr(Problem, "select", lambda self, rows: (sizes.append(len(rows)), select(self, rows))[1])
    blocks = solve(problem_of(model, x), solver, torch.zeros(40, 30).double())
    assert sizes.count(7) >= 5
    assert max(sizes) == 7
    torch.testing.assert_close(blocks.code, whole.code, rtol=1e-9, atol=1e-12)
    assert torch.equal(blocks.iterations, whole.iterations)
    assert blocks.certificate is not None
    assert blocks.certificate.relative.shape == (40,)


def test_the_iterations_end_where_the_config_says() -> None:
    solution = solve(
        problem_of(model_of(sparse()), inputs_of(3)), Ista(tolerance=0, max_iterations=7), torch.zeros(3, 8).double()
    )
    assert solution.iterations.tolist() == [7, 7, 7]
    assert solution.certificate is not None
    assert solution.energy is not None


def test_no_iteration_returns_the_start_and_certifies_it() -> None:
    problem = problem_of(model_of(sparse()), inputs_of(3))
    start = normal(3, 8)
    solution = solve(problem, Fista(max_iterations=0), start)
    assert solution.code is start
    assert solution.energy is not None
    assert solution.certificate is not None
    torch.testing.assert_close(solution.energy, problem.value(start))
    torch.testing.assert_close(solution.certificate.value, problem.certificate(start).value)
    assert solve(problem, Fista(max_iterations=0), start, certify=False).certificate is None


def test_float32_reaches_a_relative_gap_of_a_millionth() -> None:
    """144 × 256, λ = 0.1, unit inputs: one certificate's rounding is about 1e-7 of ½‖x‖² there."""
    model = model_of(sparse(0.1), inputs=144, units=256, dtype=torch.float32)
    x = inputs_of(50, 144, torch.float32)
    x = x / x.norm(dim=1, keepdim=True)
    solution = solve(problem_of(model, x), Fista(tolerance=1e-6, max_iterations=500), torch.zeros(50, 256))
    assert solution.certificate is not None
    assert float(solution.certificate.relative.max()) <= 1e-6
    exact = problem_of(model.double(), x.double()).certificate(solution.code.double())
    assert float(exact.relative.max()) <= 2e-6


def test_a_solver_that_refuses_a_problem_is_not_run() -> None:
    class Picky(Ista):
        def refuses(self, problem: Problem) -> str | None:
            return "picky takes nothing; use solver 'fista'"

    with pytest.raises(InputError, match="use solver 'fista'"):
        solve(problem_of(model_of(sparse()), inputs_of(2)), Picky(), torch.zeros(2, 8).double())


class Fast(Cpu):
    """A backend whose kernel adds 0.1 to the start."""

    def kernel(self, structure: ProblemStructure) -> Kernel | None:
        def run(problem: Problem, start: Tensor, config: Solver.Config) -> Solved:
            return Solved(start + 0.1, torch.full((len(start),), 42))

        return run


def test_a_backend_may_bring_its_own_kernel_and_the_caller_certifies_it() -> None:
    problem = problem_of(model_of(sparse()), inputs_of(2))
    start = torch.zeros(2, 8, dtype=torch.float64)
    solution = solve(problem, Auto(), start, backend=Fast())
    assert solution.iterations.tolist() == [42, 42]
    assert solution.certificate is not None
    torch.testing.assert_close(solution.certificate.value, problem.certificate(start + 0.1).value)
    torch.testing.assert_close(solution.energy, problem.value(start + 0.1))


def test_what_a_kernel_certifies_is_not_computed_again() -> None:
    problem = problem_of(model_of(sparse()), inputs_of(2))
    start = torch.zeros(2, 8, dtype=torch.float64)
    known = Certificate("gap", torch.tensor([1.0, 2.0]), torch.tensor([0.1, 0.2]))

    class Knows(Cpu):
        def kernel(self, structure: ProblemStructure) -> Kernel | None:
            return lambda problem, start, config: Solved(start, torch.ones(2), known, torch.tensor([3.0, 4.0]))

    solution = solve(problem, Auto(tolerance=0.2), start, backend=Knows())
    assert solution.certificate is known
    assert solution.energy is not None
    assert solution.energy.tolist() == [3.0, 4.0]


@pytest.mark.parametrize(("done", "goes_on"), [(3, True), (10_000, False)])
def test_the_solver_goes_on_where_a_kernel_gave_up(done: int, goes_on: bool) -> None:
    problem = problem_of(model_of(sparse()), inputs_of(3))
    best = solve(problem, Auto(tolerance=1e-6), problem.zeros())

    def kernel(problem: Problem, start: Tensor, config: Solver.Config) -> Solved:
        # the first sample is at the optimum, the others are nowhere
        code = torch.cat([best.code[:1], start[1:]])
        iterations = torch.full((3,), done)
        return Solved(code, iterations, problem.certificate(code), problem.value(code))

    class Weak(Cpu):
        def kernel(self, structure: ProblemStructure) -> Kernel | None:
            return kernel

    found = solve(problem, Auto(tolerance=1e-6, max_iterations=10_000), problem.zeros(), backend=Weak())
    assert found.certificate is not None
    assert found.energy is not None
    assert torch.equal(found.code[0], best.code[0])
    assert found.iterations[0] == done
    torch.testing.assert_close(found.energy, problem.value(found.code))
    assert bool((found.certificate.relative[1:] <= 1e-6).all()) == goes_on
    assert bool((found.iterations[1:] > done).all()) == goes_on


def test_a_solver_named_for_its_iterations_keeps_them_on_a_backend_with_a_kernel() -> None:
    problem = problem_of(model_of(sparse()), inputs_of(2))
    start = torch.zeros(2, 8, dtype=torch.float64)
    assert kernel_of(Fast(), Fista(), problem) is None
    own = solve(problem, Fista(max_iterations=8), start)
    on = solve(problem, Fista(max_iterations=8), start, backend=Fast())
    assert torch.equal(on.code, own.code)
    seen: list[int] = []
    solve(problem, Auto(max_iterations=3), start, backend=Fast(), callback=lambda number, *_: seen.append(number))
    assert seen == [1, 2, 3]  # a callback follows the solver's own iterations


def test_a_kernel_has_a_name() -> None:
    found = kernel_of(Fast(), Auto(), problem_of(model_of(sparse()), inputs_of(2)))
    assert found is not None
    assert kernel_name(found) == "run"
    assert kernel_of(None, Auto(), problem_of(model_of(sparse()), inputs_of(2))) is None


def test_selecting_samples_keeps_the_problem_and_the_state() -> None:
    model, x = model_of(sparse()), inputs_of(6)
    problem, rows = problem_of(model, x), torch.tensor([4, 1])
    z = normal(6, 8)
    torch.testing.assert_close(problem.select(rows).value(z[rows]), problem.value(z)[rows])
    solver = Fista()
    state = solver.init(problem, z)
    for _ in range(3):
        state = solver.step(problem, state)
    chosen = solver.step(problem.select(rows), select_state(state, rows))
    torch.testing.assert_close(chosen.code, solver.step(problem, state).code[rows])


# -- gradients through the minimiser ----------------------------------------------------------------


class Probe(Task):
    """A task that does not act in inference: ⟨probe, z⟩ + ½‖z‖²."""

    def energy(self, z: Tensor, probe: Tensor) -> Tensor:
        return (z * probe).sum(1) + 0.5 * z.square().sum(1)


def task_gradients(model: Model, batch: Batch) -> tuple[float, dict[str, Tensor]]:
    """The mean task loss at the minimiser and its gradient for each parameter of decoder and terms."""
    solution = model.infer_batch(batch, certify=False)
    loss = model.energy.total(model.point(batch, solution), {"task": 1.0}).mean()
    named = dict(model.named_parameters())
    if not loss.requires_grad:
        return float(loss.detach()), {}
    return float(loss.detach()), dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))


def check_against_differences(model: Model, batch: Batch) -> None:
    _, gradients = task_gradients(model, batch)
    for name, parameter in model.named_parameters():
        for seed in range(2):
            direction = normal(*parameter.shape, seed=seed)
            start, losses, step = parameter.detach().clone(), [], 1e-6
            for sign in (1, -1):
                parameter.data = start + sign * step * direction
                losses.append(task_gradients(model, batch)[0])
            parameter.data = start
            difference = (losses[0] - losses[1]) / (2 * step)
            assert float((gradients[name] * direction).sum()) == pytest.approx(difference, rel=1e-6, abs=1e-9)


SOLVERS: dict[str, Callable[[str], Solver[Any]]] = {
    "ista": lambda path: Ista(tolerance=0, max_iterations=600, check_every=600, differentiate=path),
    "fista": lambda path: Fista(tolerance=0, max_iterations=300, check_every=300, differentiate=path),
}


@pytest.mark.parametrize("path", ["unroll", "implicit"])
@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("decoder", [LinearDecoder, Curved])
def test_a_tasks_gradient_through_the_code_against_finite_differences(
    name: str, path: str, decoder: type[LinearDecoder]
) -> None:
    terms: dict[str, Term] = {
        "data": SquaredError(),
        "sparsity": L1(weight=0.1),
        "ridge": L2(weight=0.3),
        "task": Probe(),
    }
    model = model_of(terms, units=6, solver=SOLVERS[name](path), decoder=decoder)
    probe = normal(4, 6)
    check_against_differences(model, Batch({"x": inputs_of(4), "probe": probe}))


def test_the_implicit_gradient_of_the_active_set_is_that_of_mairal_bach_ponce() -> None:
    """β_Λ = (D_ΛᵀD_Λ + ρI)⁻¹ ∇ℓ, then ∇D = −Dβzᵀ + (x − Dz)βᵀ (2012, prop. 1)."""
    terms: dict[str, Term] = {
        "data": SquaredError(),
        "sparsity": L1(weight=0.2),
        "ridge": L2(weight=0.1),
        "task": Probe(),
    }
    model = model_of(
        terms, units=20, solver=Fista(tolerance=0, max_iterations=3000, check_every=3000, differentiate="implicit")
    )
    x, probe = inputs_of(1), normal(1, 20)
    _, gradients = task_gradients(model, Batch({"x": x, "probe": probe}))
    d, z = model.decoder.dictionary.detach(), model.encode(x, probe=probe)[0].detach()  # type: ignore[union-attr]
    active = z.nonzero().flatten()
    assert 0 < len(active) < 20
    hessian = d[:, active].T @ d[:, active] + 0.1 * torch.eye(len(active)).double()
    beta = torch.zeros(20, dtype=torch.float64)
    beta[active] = torch.linalg.solve(hessian, (probe[0] + z)[active])
    expected = -torch.outer(d @ beta, z) + torch.outer(x[0] - d @ z, beta)
    torch.testing.assert_close(gradients["decoder.dictionary"], expected, rtol=1e-6, atol=1e-8)


def test_by_default_the_code_carries_no_gradient() -> None:
    model = model_of(sparse(), solver=Fista())
    assert not model.infer_batch(Batch({"x": inputs_of(2)}), certify=False).code.requires_grad


def test_a_problem_without_parameters_needs_no_backward_pass() -> None:
    model = model_of(sparse())
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    code = torch.zeros(2, 8, dtype=torch.float64)
    assert attach_implicit(problem_of(model, inputs_of(2)), code) is code


def test_weights_given_to_a_problem_replace_the_terms_own() -> None:
    model, x = model_of(sparse(0.3)), inputs_of(2)
    z = normal(2, 8)
    heavier = Problem(Energy(model.energy.terms, model.decoder), Batch({"x": x}), (8,), weights={"sparsity": 2.0})
    torch.testing.assert_close(heavier.value(z), 2 * z.abs().sum(1))


@pytest.mark.parametrize("non_negative", [False, True])
def test_correlated_dictionary_in_single_precision(non_negative: bool) -> None:
    """Steps of 1/L drown in the rounding of a code where L is large: what float32 cannot reach goes on in float64."""
    random = torch.Generator().manual_seed(0)
    dictionary = torch.randn(32, 64, generator=random) + 2 * torch.randn(32, 1, generator=random)
    dictionary /= dictionary.norm(dim=0)
    x = torch.randn(20, 8, generator=random).abs() @ dictionary[:, :8].T + 0.1 * torch.randn(20, 32, generator=random)
    x /= x.norm(dim=1, keepdim=True)
    decoder = LinearDecoder(units=64)
    decoder.build(Context((32,), (64,), random))
    decoder.dictionary.data.copy_(dictionary)
    terms = {"reconstruction": SquaredError(), "sparsity": L1(weight=0.05, non_negative=non_negative)}
    problem = Problem(Energy(terms, decoder), Batch({"x": x}), (64,))
    solution = solve(problem, Fista(tolerance=1e-6, max_iterations=5000), problem.zeros())
    assert solution.code.dtype == torch.float32
    assert (solution.iterations < 5000).all()
    # the gap by hand, in float64
    z, d, target = solution.code.double().numpy(), dictionary.double().numpy(), x.double().numpy()
    residual = target - z @ d.T
    correlation = residual @ d
    bound = correlation.max(1) if non_negative else np.abs(correlation).max(1)
    scale = np.minimum(1, 0.05 / bound)
    primal = 0.5 * (residual**2).sum(1) + 0.05 * np.abs(z).sum(1)
    dual = 0.5 * (target**2).sum(1) - 0.5 * ((target - scale[:, None] * residual) ** 2).sum(1)
    relative = (primal - dual) / (0.5 * (target**2).sum(1))
    assert relative.max() <= 1e-6 * (1 + 1e-4)
    assert solution.certificate is not None
    np.testing.assert_allclose(solution.certificate.relative.numpy(), relative, rtol=1e-4)
    assert decoder.dictionary.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64])
def test_infer_asks_for_a_precision_that_a_processor_computes_in(dtype: torch.dtype) -> None:
    x, dictionary = torch.ones(2, 3, dtype=dtype), torch.eye(3)
    with pytest.raises(InputError, match=f"x is {str(dtype)[6:]}; .* give x.float"):
        infer(x, dictionary=dictionary, terms=[L1(weight=0.1)])
