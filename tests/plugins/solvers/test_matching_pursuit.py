"""Matching pursuit, in torch and compiled: the codes of scikit-learn and SPAMS, and what it refuses."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from groundstate import infer
from groundstate.errors import InputError
from groundstate.structure import L1, Ridge
from groundstate.testing.reference import problem_of, sparse_problem_of
from groundstate_plugins.backends import cpu_native
from groundstate_plugins.regularisers.cardinality import Cardinality
from groundstate_plugins.regularisers.l1 import L1 as L1Term
from groundstate_plugins.regularisers.l2 import L2
from groundstate_plugins.solvers.matching_pursuit import MatchingPursuit

native = pytest.param("cpu-native", marks=pytest.mark.skipif(not cpu_native.installed(), reason="needs numba"))
both = pytest.mark.parametrize("backend", ["cpu", native])


def made(units: int = 30, inputs: int = 18, samples: int = 25) -> tuple[Tensor, Tensor]:
    """Samples, and atoms of norm 1 that correlate."""
    draw = torch.Generator().manual_seed(3)
    d = torch.randn(inputs, units, generator=draw, dtype=torch.float64) + 0.5
    return torch.randn(samples, inputs, generator=draw, dtype=torch.float64), d / d.norm(dim=0)


def plainly(x: Tensor, d: Tensor, count: int, *, by_decrease: bool, ridge: float = 0.0) -> tuple[Tensor, Tensor]:
    """Codes and energies, each choice by least squares on every candidate support."""
    codes, energies = torch.zeros(len(x), d.shape[1], dtype=d.dtype), torch.zeros(len(x), dtype=d.dtype)
    whole = torch.cat([d, ridge**0.5 * torch.eye(d.shape[1], dtype=d.dtype)])
    for row, sample in enumerate(torch.cat([x, x.new_zeros(len(x), d.shape[1])], 1)):
        support: list[int] = []
        for _ in range(count):
            left = [i for i in range(d.shape[1]) if i not in support]
            if by_decrease:
                tried = [_fit(whole, sample, [*support, i])[1] for i in left]
                support.append(left[int(np.argmin(tried))])
            else:
                residual = sample - whole @ codes[row]
                support.append(left[int((whole[:, left].T @ residual).abs().argmax())])
            codes[row] = 0
            codes[row, support], energies[row] = _fit(whole, sample, support)
    return codes, energies


def _fit(d: Tensor, x: Tensor, support: list[int]) -> tuple[Tensor, float]:
    z = torch.linalg.lstsq(d[:, support], x[:, None]).solution[:, 0]
    return z, 0.5 * float((x - d[:, support] @ z).square().sum())


@both
@pytest.mark.parametrize("ridge", [0.0, 0.3])
@pytest.mark.parametrize("choose", ["decrease", "correlation"])
def test_codes_are_those_of_least_squares_on_each_support(choose: Any, ridge: float, backend: str) -> None:
    x, d = made()
    terms = [Cardinality(keep=5), *([L2(weight=ridge)] if ridge else [])]
    found = infer(x, dictionary=d, terms=terms, solver=MatchingPursuit(choose=choose), backend=backend)
    codes, energies = plainly(x, d, 5, by_decrease=choose == "decrease", ridge=ridge)
    torch.testing.assert_close(found.code, codes, rtol=1e-8, atol=1e-10)
    assert found.energy is not None
    torch.testing.assert_close(found.energy, energies, rtol=1e-8, atol=1e-10)


@both
def test_codes_by_correlation_are_those_of_scikit_learn(backend: str) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    x, d = made(units=50, samples=60)
    found = infer(
        x, dictionary=d, terms=[Cardinality(keep=7)], solver=MatchingPursuit(choose="correlation"), backend=backend
    )
    peer = linear_model.orthogonal_mp_gram((d.T @ d).numpy(), (d.T @ x.T).numpy(), n_nonzero_coefs=7)
    torch.testing.assert_close(found.code, torch.from_numpy(peer.T), rtol=1e-8, atol=1e-10)


@both
def test_codes_by_decrease_are_those_of_spams(backend: str) -> None:
    spams = pytest.importorskip("spams", reason="compares with SPAMS: pip install spams-bin")
    x, d = made(units=50, samples=60)
    found = infer(x, dictionary=d, terms=[Cardinality(keep=7)], solver="matching-pursuit", backend=backend)
    peer = spams.omp(np.asfortranarray(x.T.numpy()), np.asfortranarray(d.numpy()), L=7, numThreads=1)
    torch.testing.assert_close(found.code, torch.from_numpy(peer.toarray().T), rtol=1e-8, atol=1e-10)


@both
def test_equal_and_zero_atoms_come_in_once_or_never(backend: str) -> None:
    x, d = made(units=6, inputs=4)
    d = torch.cat([d, d, torch.zeros(4, 2, dtype=d.dtype)], 1)
    code = infer(x, dictionary=d, terms=[Cardinality(keep=10)], solver="matching-pursuit", backend=backend).code
    assert bool(((code != 0).sum(1) <= 4).all())
    assert bool((code[:, 12:] == 0).all())
    torch.testing.assert_close(code @ d.T, x)  # four atoms span the inputs


@both
def test_nothing_is_chosen_for_nothing(backend: str) -> None:
    x, d = made()
    found = infer(0 * x[:2], dictionary=d, terms=[Cardinality(keep=3)], solver="matching-pursuit", backend=backend)
    assert bool((found.code == 0).all())


@pytest.mark.skipif(not cpu_native.installed(), reason="needs numba")
@pytest.mark.parametrize("keep", [1, 4, 12])
@pytest.mark.parametrize("choose", ["decrease", "correlation"])
def test_the_kernel_certifies_as_the_problem_does(choose: Any, keep: int) -> None:
    x, d = made(units=60, samples=200)
    x[0] = d[:, 3]  # is done with one atom
    given: dict[str, Any] = {
        "dictionary": d,
        "terms": [Cardinality(keep=keep)],
        "solver": MatchingPursuit(choose=choose),
    }
    one, other = (infer(x, **given, backend=backend).certificate for backend in ("cpu", "cpu-native"))
    assert one is not None
    assert other is not None
    torch.testing.assert_close(other.value, one.value, rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(other.relative, one.relative, rtol=1e-8, atol=1e-12)


@both
def test_auto_takes_it(backend: str) -> None:
    x, d = made()
    auto = infer(x, dictionary=d, terms=[Cardinality(keep=5)], backend=backend).code
    own = infer(x, dictionary=d, terms=[Cardinality(keep=5)], solver="matching-pursuit").code
    torch.testing.assert_close(auto, own)


def test_pursuit_ends_lower_than_hard_thresholding() -> None:
    x, d = made()
    energies = [
        infer(x, dictionary=d, terms=[Cardinality(keep=5)], solver=solver, max_iterations=300).energy
        for solver in ("matching-pursuit", "fista")
    ]
    assert energies[0] is not None
    assert energies[1] is not None
    assert float(energies[0].mean()) < float(energies[1].mean())


@pytest.mark.parametrize(
    ("penalties", "says"),
    [
        ({"l": L1()}, "needs the term cardinality.*'fista'"),
        ({"r": Ridge()}, "needs the term cardinality.*'fista'"),
    ],
)
def test_a_problem_without_a_limit_is_refused(penalties: dict[str, Any], says: str) -> None:
    reason = MatchingPursuit().refuses(problem_of(penalties))
    assert reason is not None
    assert re.search(says, reason)


def test_other_penalties_are_refused() -> None:
    x, d = made()
    with pytest.raises(InputError, match="takes cardinality and l2, but the energy also has l1"):
        infer(x, dictionary=d, terms=[Cardinality(keep=5), L1Term(weight=0.1)], solver="matching-pursuit")
    assert MatchingPursuit().refuses(sparse_problem_of()) is None
