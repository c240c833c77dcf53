"""Problems that the solvers' tests share."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from sklearn.linear_model import ElasticNet, Lasso
from torch import Tensor

from groundstate.components import Context, Regulariser, Solver, Term
from groundstate.data import Batch
from groundstate.model import Model
from groundstate.problem import Problem, soft_threshold
from groundstate.structure import Inhibition
from groundstate_plugins.decoders.linear import LinearDecoder
from groundstate_plugins.reconstructions.squared_error import SquaredError
from groundstate_plugins.regularisers.l1 import L1
from groundstate_plugins.solvers.amortised import Amortised

MakeProblem: TypeAlias = Callable[..., Problem]


class NoMatrix(LinearDecoder):
    """A linear decoder that does not tell its matrix: the step must be found by backtracking."""

    def structure(self) -> None:  # type: ignore[override]
        return None


class Inhibited(Regulariser):
    """α‖z‖₁ + |z|ᵀS|z| with S constant between all pairs; majorised at the current point."""

    class Config(Regulariser.Config):
        sparsity: float = 0.1
        non_negative: bool = False

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        self.non_negative = self.config.non_negative

    def build(self, context: Context) -> None:
        units = context.units
        self.register_buffer("matrix", 0.2 * (torch.ones(units, units) - torch.eye(units)))

    def energy(self, z: Tensor) -> Tensor:
        size = z.abs()
        return self.config.sparsity * size.sum(1) + ((size @ self.matrix) * size).sum(1)

    def prox(self, v: Tensor, step: float | Tensor, z: Tensor) -> Tensor:
        threshold = step * (self.config.sparsity + 2 * z.abs() @ self.matrix)
        return soft_threshold(v, threshold, non_negative=self.non_negative)

    def curvature(self) -> float:
        return 2 * float(torch.linalg.eigvalsh(self.matrix)[-1])

    def structure(self) -> Inhibition:
        return Inhibition(matrix=self.matrix, sparsity=self.config.sparsity, non_negative=self.non_negative)


@pytest.fixture
def make_problem() -> MakeProblem:
    """A problem on a random dictionary of unit columns and random inputs.

    data: the reconstruction's weight. penalties: the other terms (default L1(weight=0.2)). seed: of all values.
    """

    def make(
        *penalties: Term,
        inputs: int = 12,
        units: int = 20,
        samples: int = 6,
        seed: int = 0,
        data: float = 1.0,
        dtype: torch.dtype = torch.float64,
        decoder: type[LinearDecoder] = LinearDecoder,
    ) -> Problem:
        terms: dict[str, Term] = {"data": SquaredError(weight=data)}
        terms |= {f"penalty{number}": term for number, term in enumerate(penalties or (L1(weight=0.2),))}
        model = Model(terms=terms, solver=Amortised(), decoder=decoder(units=units))
        model.build((inputs,), seed=seed).to(dtype)
        x = torch.randn(samples, inputs, generator=torch.Generator().manual_seed(seed + 1), dtype=dtype)
        return Problem(model.energy, Batch({"x": x}), model.shapes.code_shape)

    return make


@pytest.fixture
def best_code() -> Callable[..., Tensor]:
    """The minimiser of data·½‖x − Dz‖² + weight‖z‖₁ + ½ridge‖z‖² by scikit-learn."""

    def minimise(
        problem: Problem, *, weight: float, ridge: float = 0.0, data: float = 1.0, non_negative: bool = False
    ) -> Tensor:
        d = problem.energy.decoder.dictionary.detach().double().numpy()  # type: ignore[union-attr]
        options = {"fit_intercept": False, "tol": 1e-15, "max_iter": 200_000, "positive": non_negative}
        weight, ridge, n = weight / data, ridge / data, len(d)
        if ridge:
            fit: Any = ElasticNet(alpha=(weight + ridge) / n, l1_ratio=weight / (weight + ridge), **options)
        else:
            fit = Lasso(alpha=weight / n, **options)
        rows = [fit.fit(d, x).coef_.copy() for x in problem.batch.x.double().numpy()]
        return torch.from_numpy(np.stack(rows)).to(problem.batch.x)

    return minimise


@pytest.fixture
def trajectory() -> Callable[..., list[Tensor]]:
    """The energies (samples,) of a solver's iterates, the start first."""

    def run(problem: Problem, solver: Solver[Any], iterations: int, start: Tensor | None = None) -> list[Tensor]:
        start = problem.zeros() if start is None else start
        energies = [problem.value(start)]
        with torch.no_grad():
            state = solver.init(problem, start)
            for _ in range(iterations):
                state = solver.step(problem, state)
                energies.append(problem.value(state.code))
        return energies

    return run


@pytest.fixture
def assert_descends() -> Callable[[list[Tensor]], None]:
    """No energy rises from one iterate to the next by more than rounding."""

    def check(energies: list[Tensor]) -> None:
        scale = energies[0].abs() + 1
        for before, after in itertools.pairwise(energies):
            rounding = 32 * torch.finfo(before.dtype).eps * scale
            assert bool((after <= before + rounding).all()), (after - before).max()

    return check


@pytest.fixture
def no_matrix() -> type[LinearDecoder]:
    """A linear decoder without a known matrix."""
    return NoMatrix


@pytest.fixture
def inhibited() -> type[Inhibited]:
    """Lateral inhibition between all units."""
    return Inhibited
