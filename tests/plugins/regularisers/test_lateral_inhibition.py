"""α‖z‖₁ + |z|ᵀS|z|: energy, majorised prox, where S comes from, and S learned by ascent."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from groundstate.components import Context
from groundstate.data import Batch
from groundstate.errors import InputError
from groundstate.learning import Learning
from groundstate.model import Model
from groundstate.problem import Problem
from groundstate.structure import L1, Groups, Inhibition
from groundstate_plugins.decoders.linear import LinearDecoder
from groundstate_plugins.learners.gradient import Gradient
from groundstate_plugins.reconstructions.squared_error import SquaredError
from groundstate_plugins.regularisers.inhibition_set import InhibitionSet
from groundstate_plugins.regularisers.lateral_inhibition import LateralInhibition
from groundstate_plugins.solvers.coordinate_descent import CoordinateDescent


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def coupling(units: int, seed: int = 1) -> Tensor:
    """A random S: symmetric, ≥ 0, zero diagonal."""
    drawn = normal(units, units, seed=seed).clamp_min(0)
    return (drawn + drawn.T).fill_diagonal_(0)


def saved(matrix: Tensor, folder: Path) -> Path:
    np.save(folder / "s.npy", matrix.numpy())
    return folder / "s.npy"


def built(units: int | tuple[int, ...], **fields: Any) -> LateralInhibition:
    term = LateralInhibition(**fields)
    shape = (units,) if isinstance(units, int) else units
    term.build(Context((3,), shape, torch.Generator().manual_seed(0)))
    term.double()
    return term


# -- the energy -------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(8,), (2, 2, 2)])
def test_the_energy_is_its_formula(shape: tuple[int, ...], tmp_path: Path) -> None:
    s, z = coupling(8), normal(4, *shape)
    term = built(shape, matrix=saved(s, tmp_path), sparsity=0.3)
    size = np.abs(z.numpy().reshape(4, 8))
    expected = 0.3 * size.sum(1) + np.einsum("bi,ij,bj->b", size, s.float().double().numpy(), size)
    np.testing.assert_allclose(term.energy(z), expected, rtol=1e-12)


def test_the_gradients_in_code_and_matrix_against_finite_differences() -> None:
    term, z = built(6, rule="constant", learn=True, row_sum=2.0), normal(3, 6)
    assert float(z.abs().min()) > 1e-3
    assert torch.autograd.gradcheck(term.energy, z.clone().requires_grad_())
    (found,) = torch.autograd.grad(term.energy(z).mean(), term.matrix)
    torch.testing.assert_close(found, z.abs().T @ z.abs() / 3)
    with torch.no_grad():
        before = term.energy(z).mean()
        term.matrix[1, 4] += 1e-6
        assert float(found[1, 4]) == pytest.approx(float(term.energy(z).mean() - before) / 1e-6, rel=1e-6)


@pytest.mark.parametrize("non_negative", [False, True])
def test_the_prox_is_the_soft_threshold_of_the_majoriser(non_negative: bool, tmp_path: Path) -> None:
    """Against the minimum, on a fine grid along each unit, of the energy linearised in |z| at z."""
    s, z, v = coupling(5), normal(1, 5).abs(), normal(1, 5, seed=3)
    term = built(5, matrix=saved(s, tmp_path), sparsity=0.2, non_negative=non_negative)
    grid = torch.linspace(0.0 if non_negative else -4.0, 4.0, 80_001, dtype=torch.float64)
    slope = 0.2 + 2 * (z.abs() @ s.float().double())
    cost = 0.1 * slope[0, :, None] * grid.abs() + 0.5 * (grid - v[0, :, None]).square()
    torch.testing.assert_close(term.prox(v, 0.1, z)[0], grid[cost.argmin(1)], rtol=0, atol=1e-4)


@pytest.mark.parametrize("weight", [1.0, 0.4])
@pytest.mark.parametrize("non_negative", [False, True])
@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), size=st.floats(0.01, 5), strength=st.floats(0, 10))
def test_the_majorised_step_never_raises_the_energy(
    weight: float, non_negative: bool, seed: int, size: float, strength: float
) -> None:
    """t = 1/(L + 2λmax(S)), from any code, for any S (majorise–minimise)."""
    term = LateralInhibition(sparsity=0.3, non_negative=non_negative, weight=weight)
    model = Model(
        decoder=LinearDecoder(units=9),
        terms={"data": SquaredError(), "inhibition": term},
        solver=CoordinateDescent(),
    ).build((6,), seed=seed)
    model.double()
    with torch.no_grad():
        term.matrix.copy_(strength * coupling(9, seed))
    problem = Problem(model.energy, Batch({"x": size * normal(4, 6, seed=seed)}), (9,))
    z = size * normal(4, 9, seed=seed + 1)
    z = z.abs() if non_negative else z
    assert problem.lipschitz().certain
    step = 1 / (problem.lipschitz().value + problem.curvature())
    with torch.no_grad():
        energies = [problem.value(z)]
        for _ in range(15):
            z = problem.prox(z - step * problem.smooth(z)[1], step, z)
            energies.append(problem.value(z))
    for before, after in itertools.pairwise(energies):
        assert bool((after <= before * (1 + 1e-13) + 1e-13).all())


def test_the_curvature_is_twice_the_largest_eigenvalue_and_follows_the_matrix(tmp_path: Path) -> None:
    s = coupling(12)
    term = built(12, matrix=saved(s, tmp_path))

    def expected() -> float:
        return 2 * float(np.linalg.eigvalsh(term.matrix.numpy())[-1])

    assert term.curvature() == pytest.approx(expected())
    term.matrix.mul_(3)
    assert term.curvature() == pytest.approx(expected())
    term.load_state_dict({"matrix": s * 0.5})
    assert term.curvature() == pytest.approx(expected())
    term.matrix = coupling(12, 9)
    assert term.curvature() == pytest.approx(expected())
    term.select(torch.arange(5))
    assert term.curvature() == pytest.approx(expected())
    assert built(4).curvature() == 0


def test_it_tells_its_form_and_what_it_may_follow(tmp_path: Path) -> None:
    term = built((2, 2), matrix=saved(coupling(4), tmp_path), sparsity=0.7, non_negative=True)
    form = term.structure()
    assert isinstance(form, Inhibition)
    assert (form.matrix.shape, form.sparsity, form.non_negative, term.non_negative) == ((4, 4), 0.7, True, True)
    assert term.prox_after([L1()])
    assert not term.prox_after([None])
    assert not term.prox_after([Groups(index=torch.tensor([[0, 1]]), disjoint=True)])
    assert term.formula() == "0.7·‖z‖₁ + |z|ᵀS|z|, z ≥ 0"


# -- where S comes from -----------------------------------------------------------------------------


def test_without_a_rule_nobody_inhibits() -> None:
    assert not bool(built(5).matrix.any())


def test_constant_inhibits_all_pairs_alike() -> None:
    expected = 0.4 * (torch.ones(5, 5) - torch.eye(5))
    torch.testing.assert_close(built(5, rule="constant", strength=0.4).matrix.float(), expected)


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize(("sheet", "reach"), [(None, 2.0), ((3, 4), 1.5), ((4, 3), 1.0)])
def test_distance_inhibits_beyond_reach(sheet: tuple[int, int] | None, reach: float, wrap: bool) -> None:
    rows, columns = sheet or (1, 12)
    matrix = built(12, rule="distance", sheet=sheet, reach=reach, wrap=wrap, strength=2.0).matrix
    for one, other in itertools.product(range(12), repeat=2):
        apart = []
        for side, a, b in zip((rows, columns), divmod(one, columns), divmod(other, columns), strict=True):
            apart.append(min(abs(a - b), side - abs(a - b)) if wrap else abs(a - b))
        assert float(matrix[one, other]) == (2.0 if np.hypot(*apart) > reach else 0.0), (one, other)
    assert bool(matrix.any())


def test_a_sheet_that_does_not_hold_the_code_is_refused() -> None:
    with pytest.raises(InputError, match="3 × 4 has 12 places; the code has 10 units"):
        built(10, rule="distance", sheet=(3, 4))


def entry(row: int, column: int, value: float) -> Callable[[Tensor], None]:
    def spoil(matrix: Tensor) -> None:
        matrix[row, column] = value

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (entry(1, 3, -0.5), r"row 1, column 3 is -0.5; S must be ≥ 0"),
        (entry(2, 0, 9.0), r"row 0, column 2 is .*, but row 2, column 0 is 9; S must be symmetric"),
        (entry(2, 2, 0.25), r"row 2, column 2 is 0.25; a unit does not inhibit itself"),
        (entry(3, 1, torch.nan), r"row 3, column 1 is nan; every value must be finite"),
        (entry(0, 1, torch.inf), r"row 0, column 1 is inf; every value must be finite"),
    ],
)
def test_a_bad_matrix_is_refused_with_its_place(spoil: Any, message: str, tmp_path: Path) -> None:
    matrix = coupling(4)
    spoil(matrix)
    with pytest.raises(InputError, match=rf"s\.npy: {message}"):
        built(4, matrix=saved(matrix, tmp_path))


@pytest.mark.parametrize("shape", [(4,), (4, 5), (5, 5), (2, 2, 2)])
def test_a_matrix_of_another_size_is_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    np.save(tmp_path / "s.npy", np.zeros(shape))
    with pytest.raises(InputError, match=r"has shape .*the code needs \(4, 4\)"):
        built(4, matrix=tmp_path / "s.npy")


def complex_numbers(path: Path) -> None:
    np.save(path, np.zeros((4, 4), complex))


def pickled(path: Path) -> None:
    np.save(path, np.array([[{}]], dtype=object))


def several(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, a=np.zeros((4, 4)))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "cannot be read"),
        (lambda path: path.write_bytes(b""), "cannot be read"),
        (lambda path: path.write_text("0 1\n1 0\n"), "cannot be read"),
        (pickled, "cannot be read"),
        (complex_numbers, "not one array of real numbers"),
        (several, "not one array of real numbers"),
    ],
    ids=["missing", "empty", "text", "pickle", "complex", "npz"],
)
def test_a_file_that_is_no_matrix_is_refused(write: Any, message: str, tmp_path: Path) -> None:
    write(tmp_path / "s.npy")
    with pytest.raises(InputError, match=rf"s\.npy.* {message}"):
        built(4, matrix=tmp_path / "s.npy")


def test_rounding_does_not_make_a_matrix_asymmetric(tmp_path: Path) -> None:
    matrix = coupling(6)
    matrix[1, 2] *= 1 + 1e-9
    term = built(6, matrix=saved(matrix, tmp_path))
    assert torch.equal(term.matrix, term.matrix.T)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"learn": True}, "needs row_sum"),
        ({"learn": True, "row_sum": float("inf")}, "finite"),
        ({"row_sum": 2.0}, "learn = true"),
        ({"matrix": "s.npy", "rule": "constant"}, "leave one out"),
        ({"strength": -1.0}, "greater than or equal to 0"),
        ({"sparsity": float("nan")}, "greater than or equal|finite"),
    ],
)
def test_a_config_that_contradicts_itself_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        LateralInhibition(**fields)


# -- kept on disk -----------------------------------------------------------------------------------


ATOMS = torch.nn.functional.normalize(torch.randn(8, 12, generator=torch.Generator().manual_seed(5)), dim=1)
EVERYONE = ~torch.eye(8, dtype=torch.bool)


def learner(ascent_rate: float = 0.03, **fields: Any) -> Learning:
    """Sparse coding that begins at the atoms its inputs are made of."""
    fields = {"sparsity": 0.05, "non_negative": True} | fields
    model = Model(
        decoder=LinearDecoder(units=8, constraint="sphere"),
        terms={"data": SquaredError(), "inhibition": LateralInhibition(**fields)},
        solver=CoordinateDescent(tolerance=1e-3, max_iterations=20, block=16),
    ).build((12,), seed=1)
    with torch.no_grad():
        model.decoder.dictionary.copy_(ATOMS.T)  # type: ignore[union-attr]
    return Learning(model, Gradient(ascent_rate=ascent_rate))


def inputs(step: int, size: int = 60) -> Batch:
    """Sums of atoms of which 0 and 1, 2 and 3, … always come together, each in its own strength."""
    generator = torch.Generator().manual_seed(step)
    present = (torch.rand(size, 4, generator=generator) < 0.35).repeat_interleave(2, 1)
    return Batch({"x": (present * (0.3 + torch.rand(size, 8, generator=generator))) @ ATOMS})


def test_a_saved_model_holds_its_matrix_and_asks_for_no_file(tmp_path: Path) -> None:
    path = saved(coupling(8), tmp_path)
    model = learner(matrix=path).model
    x = inputs(0).x
    expected = model.infer(x)
    model.save(tmp_path / "model")
    path.unlink()
    found = Model.load(tmp_path / "model").infer(x)
    assert torch.equal(found.code, expected.code)
    assert torch.equal(found.energy, expected.energy)


@pytest.mark.parametrize("fields", [{"rule": "distance"}, {"rule": "constant", "learn": True, "row_sum": 2.0}])
def test_a_pruned_model_is_the_same_after_save_and_load(fields: dict[str, Any], tmp_path: Path) -> None:
    one = learner(**fields)
    one.step(inputs(0), rate=0.01)
    s, kept = one.model.terms["inhibition"].matrix.detach().clone(), torch.tensor([5, 0, 7])
    one.select(kept)
    assert torch.equal(one.model.terms["inhibition"].matrix, s[kept][:, kept])
    one.model.save(tmp_path)
    loaded = Model.load(tmp_path)
    x = inputs(1).x
    assert torch.equal(loaded.infer(x).code, one.model.infer(x).code)
    assert Learning(loaded, Gradient()).step(inputs(2), rate=0.01).solution.code.shape == (60, 3)


# -- learned by ascent ------------------------------------------------------------------------------


def train(one: Learning, steps: range) -> None:
    for step in steps:
        one.step(inputs(step), rate=2e-3)


def matrix_of(one: Learning) -> Tensor:
    value: Tensor = one.model.terms["inhibition"].matrix.detach()
    return value


def together(one: Learning) -> float:
    """How much the pairs of atoms that come together fire together: the mean of |z_i||z_j|, on other inputs."""
    z = one.model.encode(inputs(10_000, 500).x).abs()
    return float((z[:, 0::2] * z[:, 1::2]).sum(1).mean())


def test_a_learned_matrix_grows_inside_its_set() -> None:
    """Symmetric, ≥ 0, zero on the diagonal, rows' sums ≤ r after every step."""
    one = learner(learn=True, row_sum=0.2)
    sizes = []
    for step in range(20):
        train(one, range(step, step + 1))
        s = matrix_of(one)
        assert torch.equal(s, s.T)
        assert float(s.min()) >= 0
        assert not bool(s.diagonal().any())
        assert float(s.sum(1).max()) <= 0.2 * (1 + 1e-6)
        assert InhibitionSet(EVERYONE, 0.2).violation(s) <= 1e-6
        sizes.append(float(s.sum()))
    assert 0 < sizes[0] < sizes[4] < sizes[-1]
    assert float(s.sum(1).max()) == pytest.approx(0.2, rel=1e-5)


def test_units_that_fire_together_are_driven_apart_while_their_inhibition_grows() -> None:
    """Against the same S spread over all pairs and kept constant, and against no inhibition."""
    before = together(learner())
    assert before > 0.5
    ascended = learner(learn=True, row_sum=0.5)
    train(ascended, range(60))
    s = matrix_of(ascended)
    mean = float(s[EVERYONE].mean())
    assert float(s[range(0, 8, 2), range(1, 8, 2)].mean()) > 1.5 * mean
    share = together(ascended) / before
    assert share < 1 / 3

    constant, none = learner(rule="constant", strength=mean), learner()
    train(constant, range(60))
    train(none, range(60))
    assert share < 0.6 * together(constant) / before
    assert together(none) / before > 2 / 3


def test_descent_instead_of_ascent_drives_nobody_apart() -> None:
    """A minimiser sets S_ij = 0 where i and j fire together: what is learned must climb."""
    before = together(learner())
    one = learner(learn=True, row_sum=0.5, rule="constant", strength=0.05)
    term = one.model.terms["inhibition"]
    term.specs["matrix"] = replace(term.specs["matrix"], direction="descend")
    one = Learning(one.model, Gradient(optimiser="sgd"))
    for step in range(20):
        one.step(inputs(step), rate=0.03)
    assert not bool(matrix_of(one)[range(0, 8, 2), range(1, 8, 2)].any())
    assert together(one) / before > 2 / 3


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_a_resumed_ascent_gives_the_same_bits(optimiser: Any) -> None:
    def fresh() -> Learning:
        model = learner(learn=True, row_sum=0.2).model
        return Learning(model, Gradient(ascent_rate=0.05, ascent_optimiser=optimiser))

    whole = fresh()
    train(whole, range(12))
    first = fresh()
    train(first, range(5))
    second = fresh()
    second.model.load_state_dict({name: value.clone() for name, value in first.model.state_dict().items()})
    second.load_state({name: value.clone() for name, value in first.state().items()})
    train(second, range(5, 12))
    for name, value in second.model.state_dict().items():
        assert torch.equal(value, whole.model.state_dict()[name]), name
    assert bool(matrix_of(whole).any())


def test_the_optimisers_state_is_sliced_where_codes_have_channels() -> None:
    """S between (channels, h, w) units keeps the axes of the channels apart, so that pruning finds them."""
    term = LateralInhibition(rule="constant", learn=True, row_sum=2.0)
    term.build(Context((3,), (3, 2, 2), torch.Generator()))
    s, kept = term.matrix.detach().clone(), torch.tensor([2, 0])
    assert s.shape == (3, 2, 2, 3, 2, 2)
    assert term.specs["matrix"].unit_dims == (0, 3)
    term.select(kept)
    assert torch.equal(term.matrix, s[kept][:, :, :, kept])
    z = normal(2, 2, 2, 2).float()
    full = torch.zeros(2, 3, 2, 2)
    full[:, kept] = z
    whole = LateralInhibition(rule="constant", learn=True, row_sum=2.0)
    whole.build(Context((3,), (3, 2, 2), torch.Generator()))
    torch.testing.assert_close(term.energy(z), whole.energy(full))
