"""Group sparsity, disjoint and overlapping: value, prox, dual norm, and codes against an independent solver."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from groundstate.components import Memory
from groundstate.errors import InputError, PluginError
from groundstate.inference import solve
from groundstate.problem import Problem
from groundstate.structure import L1 as L1Form
from groundstate.structure import Groups, Ridge, SmoothedGroups
from groundstate_plugins.regularisers import overlapping
from groundstate_plugins.regularisers.group import Group
from groundstate_plugins.regularisers.l1 import L1
from groundstate_plugins.solvers.fista import Fista

Laid = Callable[..., Any]
MakeProblem = Callable[..., Problem]
Reference = Callable[..., Any]

KINDS: dict[str, dict[str, Any]] = {
    "disjoint": {"size": 4},
    "disjoint, weighted": {"size": 4, "window_weights": "gaussian"},
    "disjoint, non-negative": {"size": 3, "non_negative": True},
    "overlapping": {"sheet": (4, 6), "window": (3, 3)},
    "overlapping, weighted": {"sheet": (4, 6), "window": (3, 2), "window_weights": "gaussian"},
    "overlapping, non-negative": {"sheet": (4, 6), "window": (2, 2), "non_negative": True},
    "overlapping, cut at the edge": {"sheet": (4, 6), "window": (3, 3), "stride": 2, "wrap": False},
    "listed": {
        "pools": [list(range(a, a + 5)) for a in range(0, 20, 2)] + [[22, 23, 0]],
        "pool_weights": [[0.5, 1.0, 2.0, 1.0, 0.5]] * 10 + [[1.0, 1.0, 3.0]],
    },
}
UNITS = 24


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def norms_of(term: Group, strength: float) -> list[tuple[float, list[int], list[float]]]:
    members, weights = term.pools.lists()
    rows = weights if weights is not None else [[1.0] * len(pool) for pool in members]
    return [(strength, pool, row) for pool, row in zip(members, rows, strict=True)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_energy_is_a_sum_of_norms(kind: str, laid: Laid) -> None:
    term = laid(Group(**KINDS[kind]), UNITS)
    z = normal(5, UNITS)
    expected = sum(
        np.linalg.norm(np.array(weights) * z[:, members].numpy(), axis=1) for _, members, weights in norms_of(term, 1)
    )
    np.testing.assert_allclose(term.energy(z), expected, rtol=1e-12)


@pytest.mark.parametrize(
    "fields",
    [
        {"maps": 2, "maps_stride": 1, "positions": (2, 3), "positions_stride": 1},
        {"maps": 2, "positions": 2, "positions_stride": 1, "positions_wrap": True, "window_weights": "gaussian"},
        {"sheet": (4, 15), "window": (3, 4), "window_weights": "gaussian", "wrap": False},
        {"sheet": (4, 15), "window": (3, 4), "stride": (1, 3), "window_weights": "gaussian", "smoothing": 0.1},
    ],
)
def test_sums_along_the_axes_of_a_grid_are_those_over_its_pools(fields: dict[str, Any], laid: Laid) -> None:
    term = laid(Group(**fields), 4, 3, 5)
    members, weights = term.pools.lists()
    listed = laid(Group(pools=members, pool_weights=weights, smoothing=term.config.smoothing), 60)
    assert term.pools.axes is not None
    assert listed.pools.axes is None
    z = normal(3, 4, 3, 5)
    torch.testing.assert_close(term.energy(z), listed.energy(z.flatten(1)))


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_the_slope_and_0_at_a_pool_of_zeros(kind: str, laid: Laid) -> None:
    term = laid(Group(**KINDS[kind]), UNITS)
    z = normal(2, UNITS).requires_grad_()
    assert torch.autograd.gradcheck(term.energy, z)
    zero = torch.zeros(1, UNITS, dtype=torch.float64, requires_grad=True)
    term.energy(zero).sum().backward()
    assert zero.grad is not None
    assert not zero.grad.any()


def test_a_smoothed_norm_has_a_gradient_everywhere(laid: Laid) -> None:
    term = laid(Group(sheet=(4, 6), window=(3, 3), window_weights="gaussian", smoothing=0.25), UNITS)
    assert not term.norm
    z = normal(3, UNITS)
    expected = sum(
        np.sqrt(((np.array(weights) * z[:, members].numpy()) ** 2).sum(1) + 0.25)
        for _, members, weights in norms_of(term, 1)
    )
    np.testing.assert_allclose(term.energy(z), expected, rtol=1e-12)
    assert torch.autograd.gradcheck(term.energy, torch.zeros(1, UNITS, dtype=torch.float64, requires_grad=True))


SMOOTHED = {name: fields for name, fields in KINDS.items() if not fields.get("non_negative")}


@pytest.mark.parametrize("kind", SMOOTHED)
def test_a_smoothed_prox_majorises_at_the_code(kind: str, laid: Laid) -> None:
    """A code that is stationary comes back as it is; any other point is left for a lower one."""
    term = laid(Group(smoothing=0.05, **SMOOTHED[kind]), UNITS)
    z = normal(4, UNITS).requires_grad_()
    (slope,) = torch.autograd.grad(term.energy(z).sum(), z)
    here = z.detach()
    torch.testing.assert_close(term.prox(here + 0.7 * slope, 0.7, here), here)
    v = normal(4, UNITS, seed=1)
    cost = [0.7 * term.energy(u) + 0.5 * (u - v).square().sum(1) for u in (here, term.prox(v, 0.7, here))]
    assert bool((cost[1] < cost[0]).all())


@pytest.mark.parametrize("kind", SMOOTHED)
def test_smoothed_codes_are_those_of_a_numerical_minimiser(kind: str, sparse_coding: MakeProblem) -> None:
    term = Group(weight=0.2, smoothing=1e-3, **SMOOTHED[kind])
    x, dictionary = normal(3, 14), normal(14, UNITS, seed=9)
    problem = sparse_coding(x, dictionary / dictionary.norm(dim=0), {"groups": term})
    solution = solve(problem, Fista(tolerance=1e-9, max_iterations=5000), problem.zeros())
    assert solution.energy is not None

    def value(flat: np.ndarray) -> tuple[float, np.ndarray]:
        z = torch.from_numpy(flat).view(3, UNITS).requires_grad_()
        energy = problem.value(z).sum()
        (slope,) = torch.autograd.grad(energy, z)
        return float(energy.detach()), slope.flatten().numpy()

    found = minimize(value, np.zeros(3 * UNITS), jac=True, method="L-BFGS-B", options={"maxiter": 5000, "ftol": 1e-15})
    assert float(solution.energy.sum()) == pytest.approx(found.fun, rel=1e-8)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", [0.1, 0.7])
def test_the_prox_against_an_independent_solver(
    kind: str, step: float, laid: Laid, reference: Reference, energy_of: Reference
) -> None:
    term = laid(Group(**KINDS[kind]), UNITS)
    v = normal(8, UNITS, seed=1)
    u = term.prox(v, step, tolerance=1e-13)
    problem = (v.T.numpy(), np.eye(UNITS), norms_of(term, step))
    best = reference(*problem, non_negative=term.non_negative)
    # the cost is 1-strongly convex: costs that agree to ε mean codes that agree to √(2ε)
    cost, lowest = (energy_of(at, *problem, non_negative=term.non_negative) for at in (u.T.numpy(), best))
    np.testing.assert_allclose(cost, lowest, rtol=1e-10)
    np.testing.assert_allclose(u.T, best, atol=1e-5)


def test_disjoint_pools_of_ones_shrink_by_block(laid: Laid) -> None:
    term = laid(Group(size=2), 4)
    v = torch.tensor([[3.0, 4.0, 0.3, 0.4]], dtype=torch.float64)
    torch.testing.assert_close(term.prox(v, 1.0), torch.tensor([[2.4, 3.2, 0.0, 0.0]], dtype=torch.float64))


def test_weighted_disjoint_pools_are_solved_to_machine_precision(laid: Laid) -> None:
    """At the minimum u − v + step·a²∘u/‖a∘u‖ = 0."""
    weights = [[0.01, 1.0, 3.0, 0.5], [1.0, 1.0, 1.0, 1e-3]]
    term = laid(Group(pools=[[0, 1, 2, 3], [4, 5, 6, 7]], pool_weights=weights), 8)
    v = 3 * normal(200, 8, seed=3)
    for step in (1e-6, 0.3, 2.0):
        u = term.prox(v, step).view(200, 2, 4)
        square = torch.tensor(weights, dtype=torch.float64).square()
        size = (square * u.square()).sum(2, keepdim=True).sqrt()
        left = u - v.view(200, 2, 4) + step * square * u / size.clamp_min(1e-300)
        active = size[..., 0] > 0
        assert bool(active.any())
        assert float(left[active].abs().max()) < 1e-12
        outside = (v.view(200, 2, 4) / square.sqrt()).norm(dim=2)
        assert bool((outside[~active] <= step).all())


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_of_0_changes_nothing_but_signs_that_are_not_allowed(kind: str, laid: Laid) -> None:
    """A phase may set the term's weight to 0."""
    term = laid(Group(**KINDS[kind]), UNITS)
    v = normal(3, UNITS)
    torch.testing.assert_close(term.prox(v, 0.0), v.clamp_min(0) if term.non_negative else v)
    assert not term.prox(torch.zeros(1, UNITS, dtype=torch.float64), 0.3).any()


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_pass_through_the_prox(kind: str, laid: Laid) -> None:
    term = laid(Group(**KINDS[kind]), UNITS)
    v = normal(2, UNITS, seed=5).mul(1.5)
    v[:, 4:] *= 0.01  # so that some pools vanish
    step = torch.tensor([[0.4], [0.5]], dtype=torch.float64, requires_grad=True)
    assert bool((term.prox(v, step.detach()) == 0).any())

    def prox(v: Tensor, step: Tensor) -> Tensor:
        return term.prox(v, step, tolerance=1e-15)

    # the code is exact to the root of the gap, so the differences must not be small
    assert torch.autograd.gradcheck(prox, (v.requires_grad_(), step), eps=1e-4, atol=2e-3, rtol=1e-3)


def test_a_warm_start_goes_on_where_the_last_call_ended(laid: Laid, monkeypatch: pytest.MonkeyPatch) -> None:
    term = laid(Group(sheet=(4, 6), window=(3, 3)), UNITS)
    sweeps = 0
    plain = overlapping.Ascent.sweep

    def counted(self: overlapping.Ascent) -> None:
        nonlocal sweeps
        sweeps += 1
        plain(self)

    monkeypatch.setattr(overlapping.Ascent, "sweep", counted)
    memory, v = Memory(), normal(6, UNITS)
    first = term.prox(v, 0.3, memory, 1e-10)
    cold, sweeps = sweeps, 0
    again = term.prox(v, 0.3, memory, 1e-10)
    assert cold > 3, "too easy to tell"
    assert sweeps == 1
    torch.testing.assert_close(again, first, atol=1e-4, rtol=0)
    kept = memory.value
    assert kept is not None
    assert len(kept) == 6  # the samples come first, so that a problem can keep some of them


@pytest.mark.parametrize("kind", KINDS)
def test_the_dual_norm_is_where_the_prox_vanishes(
    kind: str, laid: Laid, reference: Reference, energy_of: Reference
) -> None:
    """The prox is 0 from Ω*(c) on and not before, by the independent solver."""
    term = laid(Group(**KINDS[kind]), UNITS)
    c = normal(3, UNITS, seed=2)
    dual = term.dual_norm(c, tolerance=1e-6).numpy()
    for sample in range(3):
        v, nothing = c[sample : sample + 1].T.numpy(), np.zeros((UNITS, 1))
        for share in (1 + 1e-3, 1 - 1e-2):
            given = (v, np.eye(UNITS), norms_of(term, share * float(dual[sample])))
            u = reference(*given, non_negative=term.non_negative, rounds=4000)
            here = energy_of(nothing, *given)
            gain = float((here - np.minimum(energy_of(u, *given, non_negative=term.non_negative), here))[0])
            assert (gain < 1e-9) == (share > 1), (share, gain)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", KINDS)
def test_codes_are_certified_and_an_independent_solver_finds_none_lower(
    kind: str, seed: int, sparse_coding: MakeProblem, reference: Reference, energy_of: Reference
) -> None:
    """Eight samples each: 224 problems, gap ≤ 1e-6 of ½‖x‖²."""
    term = Group(weight=0.12, **KINDS[kind])
    x, dictionary = normal(8, 14, seed=seed), normal(14, UNITS, seed=seed + 100)
    dictionary = dictionary / dictionary.norm(dim=0)
    problem = sparse_coding(x, dictionary, {"groups": term})
    solver = Fista(tolerance=1e-6, max_iterations=3000)
    solution = solve(problem, solver, torch.zeros(8, UNITS, dtype=torch.float64))
    certificate, energy = solution.certificate, solution.energy
    assert certificate is not None
    assert energy is not None
    assert certificate.kind == "gap"
    assert float(certificate.relative.max()) <= 1e-6
    given = (x.T.numpy(), dictionary.numpy(), norms_of(term, 0.12))
    best = reference(*given, non_negative=term.non_negative)
    lowest = energy_of(best, *given, non_negative=term.non_negative)
    half = 0.5 * x.square().sum(1).numpy()
    excess = (energy.numpy() - lowest) / half
    assert excess.max() <= 1e-6
    assert (excess <= certificate.relative.numpy() + 1e-9).all()  # the gap bounds what is left
    assert excess.min() >= -1e-9


@pytest.mark.parametrize("kind", ["disjoint", "disjoint, weighted", "overlapping", "overlapping, weighted"])
def test_after_a_soft_threshold_the_prox_is_that_of_the_sum(
    kind: str, laid: Laid, reference: Reference, energy_of: Reference
) -> None:
    term = laid(Group(**KINDS[kind]), UNITS)
    assert term.prox_after([L1Form()])
    v = 1.5 * normal(6, UNITS, seed=8)
    u = term.prox(L1().prox(v, 0.4), 0.3, tolerance=1e-13)
    given = (v.T.numpy(), np.eye(UNITS), norms_of(term, 0.3))
    best = reference(*given, l1=0.4)
    np.testing.assert_allclose(energy_of(u.T.numpy(), *given, l1=0.4), energy_of(best, *given, l1=0.4), rtol=1e-8)


def test_it_follows_nothing_but_soft_thresholds(laid: Laid) -> None:
    term = laid(Group(size=4), UNITS)
    for form in (None, Ridge(), term.structure()):
        assert not term.prox_after([form])


def test_it_takes_codes_with_maps(laid: Laid) -> None:
    flat, maps = laid(Group(size=9), 36), laid(Group(maps=1, positions=3), 4, 3, 3)
    z = normal(2, 4, 3, 3)
    torch.testing.assert_close(flat.energy(z), maps.energy(z))
    torch.testing.assert_close(flat.prox(z, 0.5), maps.prox(z, 0.5))
    steps = torch.tensor([0.2, 0.9], dtype=torch.float64).view(2, 1, 1, 1)
    torch.testing.assert_close(maps.prox(z, steps)[1:], maps.prox(z[1:], 0.9))
    with pytest.raises(PluginError, match="one step per sample"):
        maps.prox(z, torch.ones(2, 4, 1, 1))


@pytest.mark.parametrize("kind", KINDS)
def test_pruned_groups_are_those_of_the_units_that_stay(kind: str, laid: Laid) -> None:
    term = laid(Group(**KINDS[kind]), UNITS)
    keep = torch.tensor([2, 3, 5, 7, 8, 9, 20, 23])
    z = normal(3, len(keep)).abs()
    whole = torch.zeros(3, UNITS, dtype=torch.float64)
    whole[:, keep] = z
    expected = term.energy(whole)
    term.select(keep)
    torch.testing.assert_close(term.energy(z), expected)
    again = laid(Group(**term.config.model_dump()), len(keep))  # as a saved model is made again
    torch.testing.assert_close(again.energy(z), expected)
    torch.testing.assert_close(again.prox(z, 0.2), term.prox(z, 0.2))


def test_its_structure_says_the_pools(laid: Laid) -> None:
    form = laid(Group(sheet=(4, 6), window=(2, 2)), UNITS).structure()
    assert isinstance(form, Groups)
    assert form.index.shape == (24, 4)
    assert not form.disjoint
    assert form.sheet == (4, 6)
    assert laid(Group(size=3, non_negative=True), UNITS).structure().disjoint
    smoothed = laid(Group(sheet=(4, 6), window=(2, 2), smoothing=0.1), UNITS).structure()
    assert isinstance(smoothed, SmoothedGroups)
    assert smoothed.sheet == (4, 6)


@pytest.mark.parametrize(
    ("fields", "shape", "message"),
    [
        ({"size": 5}, (24,), "pools of 5 do not divide the code's 24 units; 4 would be left over"),
        ({"sheet": (4, 5), "window": (2, 2)}, (24,), "4 × 5 = 20 units, but the code has 24"),
        ({"pools": [[0, 24]]}, (24,), "names unit 24, but the code has 24 units"),
        ({"pools": [[0, 1, 2]]}, (4,), "1 of the code's 4 units stand in no pool"),
        ({"maps": 2}, (24,), "need a code of shape"),
    ],
)
def test_pools_that_do_not_fit_the_code_are_refused(
    fields: dict[str, Any], shape: tuple[int, ...], message: str, laid: Laid
) -> None:
    with pytest.raises(InputError, match=message):
        laid(Group(**fields), *shape)


def test_a_smooth_term_cannot_restrict_the_sign() -> None:
    with pytest.raises(ValueError, match="cannot restrict codes"):
        Group(size=2, smoothing=0.1, non_negative=True)
