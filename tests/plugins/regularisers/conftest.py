"""An independent solver that the tests of group norms compare with: ADMM in numpy, on copies of the code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from torch import Tensor

from groundstate.components import Context, Regulariser
from groundstate.data import Batch
from groundstate.energy import Energy
from groundstate.problem import Problem
from groundstate_plugins.decoders.linear import LinearDecoder
from groundstate_plugins.reconstructions.squared_error import SquaredError

Array: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
Norm: TypeAlias = tuple[float, Sequence[int], Sequence[float]]
"""(λ, units, entries' weights) of one summand λ‖a∘z_P‖₂."""
Reference: TypeAlias = Callable[..., Array]


def admm(
    x: Array,
    dictionary: Array,
    norms: Sequence[Norm],
    *,
    l1: float = 0.0,
    non_negative: bool = False,
    rounds: int = 20_000,
    accuracy: float = 1e-11,
) -> Array:
    """argmin_z ½‖x − Dz‖² + Σ_P λ‖a∘z_P‖₂ + l1·‖z‖₁ (+ z ≥ 0) for each column of x: (n, samples) to (k, samples)."""
    units = dictionary.shape[1]
    rows = [np.eye(units)]
    blocks, first = [], units
    for strength, members, weights in norms:
        pick = np.zeros((len(members), units))
        pick[np.arange(len(members)), list(members)] = weights
        rows.append(pick)
        blocks.append((strength, slice(first, first + len(members))))
        first += len(members)
    copies = np.concatenate(rows)
    rho = 0.5
    inverse = np.linalg.inv(dictionary.T @ dictionary + rho * copies.T @ copies)
    v = np.zeros((len(copies), x.shape[1]))
    dual = np.zeros_like(v)
    for _ in range(rounds):
        z = inverse @ (dictionary.T @ x + rho * copies.T @ (v - dual))
        ahead = 1.6 * (copies @ z) - 0.6 * v  # over-relaxed
        given, old = ahead + dual, v
        v = given.copy()
        v[:units] = np.sign(given[:units]) * np.maximum(np.abs(given[:units]) - l1 / rho, 0)
        if non_negative:
            v[:units] = np.maximum(given[:units] - l1 / rho, 0)
        for strength, place in blocks:
            size = np.maximum(np.linalg.norm(given[place], axis=0), 1e-300)
            v[place] = given[place] * np.maximum(0, 1 - strength / rho / size)
        dual = given - v
        if np.abs(copies @ z - v).max() < accuracy and np.abs(v - old).max() < accuracy:
            break
    return v[:units]


def objective(
    z: Array, x: Array, dictionary: Array, norms: Sequence[Norm], *, l1: float = 0.0, non_negative: bool = False
) -> Array:
    """The energy that ``admm`` minimises, by column."""
    value = 0.5 * ((x - dictionary @ z) ** 2).sum(0) + l1 * np.abs(z).sum(0)
    for strength, members, weights in norms:
        value = value + strength * np.linalg.norm(np.array(weights)[:, None] * z[list(members)], axis=0)
    return np.where((z < 0).any(0), np.inf, value) if non_negative else value


@pytest.fixture
def reference() -> Reference:
    """``admm``."""
    return admm


@pytest.fixture
def energy_of() -> Reference:
    """``objective``."""
    return objective


@pytest.fixture
def laid() -> Callable[..., Any]:
    """Builds a term on codes of a shape."""

    def build(term: Regulariser, *code_shape: int) -> Regulariser:
        term.build(Context((4,), code_shape, torch.Generator().manual_seed(0)))
        return term

    return build


@pytest.fixture
def sparse_coding() -> Callable[..., Problem]:
    """The problem ½‖x − Dz‖² + the given terms, for samples x (batch, n) and a dictionary (n, units)."""

    def make(x: Tensor, dictionary: Tensor, terms: dict[str, Regulariser], tolerance: float = 1e-6) -> Problem:
        inputs, units = dictionary.shape
        decoder = LinearDecoder(units=units)
        context = Context((inputs,), (units,), torch.Generator().manual_seed(0))
        decoder.build(context)
        decoder.to(x.dtype).requires_grad_(False)
        next(decoder.parameters()).copy_(dictionary)
        for term in terms.values():
            term.build(context)
            term.to(x.dtype)
        energy = Energy({"error": SquaredError(), **terms}, decoder)
        return Problem(energy, Batch({"x": x}), (units,), tolerance=tolerance)

    return make
