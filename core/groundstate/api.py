"""The short ways in from Python: ``load`` a trained model, ``infer`` codes without a config."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from groundstate.components import Backend, Context, Decoder, Reconstruction, Solver, Term
from groundstate.data import Batch
from groundstate.energy import Energy
from groundstate.errors import InputError
from groundstate.inference import Callback, Solution, solve, sparse_codes
from groundstate.model import WEIGHTS, Model
from groundstate.problem import Problem
from groundstate.registry import Registry
from groundstate.stack import Stack
from groundstate.structure import LeastSquares, LinearMap


class FixedDictionary(Decoder):
    """decoded = z Dᵀ for a given matrix D (n, units) that does not learn."""

    linear = True

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.register_buffer("matrix", matrix)

    def forward(self, z: Tensor) -> Tensor:
        return z @ self.get_buffer("matrix").T

    def code_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (self.get_buffer("matrix").shape[1],)

    def structure(self) -> LinearMap:
        return LinearMap(matrix=self.get_buffer("matrix"))


class SquaredDistance(Reconstruction):
    """½‖x − decoded‖², for ``infer`` without a config."""

    quadratic = True

    def energy(self, x: Tensor, decoded: Tensor) -> Tensor:
        return 0.5 * (x - decoded).square().sum(1)

    def structure(self) -> LeastSquares:
        return LeastSquares()


def infer(
    x: Tensor,
    *,
    dictionary: Tensor,
    terms: Sequence[Term],
    solver: str | Solver[Any] = "auto",
    tolerance: float = 1e-6,
    max_iterations: int = 10_000,
    start: Tensor | None = None,
    callback: Callback | None = None,
    backend: str | Backend | None = None,
    sparse: bool = False,
) -> Solution:
    """Codes z that minimise ½‖x − Dz‖² + Σ terms, with energy and certificate per sample.

    x: (batch, n). dictionary: D, (n, units). terms: regularisers, e.g. ``[L1(weight=0.1)]``.
    solver: a solver plugin's name, or a solver. tolerance: relative to ½‖x‖² (for a gap).
    start: (batch, units), default 0. backend: one whose kernels may be used, e.g. ``"cpu-native"``; computes in x's
    dtype and on its device all the same. sparse: give the codes in compressed sparse rows (CSR).
    """
    if x.dim() != 2 or dictionary.dim() != 2 or x.shape[1] != dictionary.shape[0]:
        raise InputError(
            f"x has shape {tuple(x.shape)} and the dictionary {tuple(dictionary.shape)}; "
            "they must be (batch, n) and (n, units)"
        )
    if x.device.type == "cpu" and x.dtype not in (torch.float32, torch.float64):
        kind = str(x.dtype).removeprefix("torch.")
        raise InputError(f"x is {kind}; on a processor codes are found in float32 or float64: give x.float()")
    chosen = (
        solver
        if isinstance(solver, Solver)
        else _named("solver", solver)(tolerance=tolerance, max_iterations=max_iterations)
    )
    runner = _named("backend", backend)() if isinstance(backend, str) else backend
    decoder = FixedDictionary(dictionary.detach().to(x))
    context = Context(
        (x.shape[1],), decoder.code_shape((x.shape[1],)), torch.Generator().manual_seed(0), decoder=decoder.structure()
    )
    named: dict[str, Term] = {"reconstruction": SquaredDistance()}
    for number, term in enumerate(terms, start=1):
        term.build(context)
        named[f"term{number}"] = term.to(x)
    problem = Problem(Energy(named, decoder), Batch({"x": x}), context.code_shape, tolerance=tolerance)
    with torch.no_grad():
        begin = problem.zeros() if start is None else start
        solution = solve(problem, chosen, begin, callback=callback, backend=runner)
    return replace(solution, code=sparse_codes(solution.code)) if sparse else solution


@cache
def _named(kind: str, name: str) -> type[Any]:
    """Once for each name: looking through what is installed takes as long as some hundred codes."""
    registry = _registry()
    return registry.load(registry.get(kind, name))


@cache
def _registry() -> Registry:
    return Registry.discover()


def find_model(name: str | Path) -> Path:
    """The model folder behind a run's folder or id, a model's folder, or a tracker's own URI."""
    folder = Path(name)
    for candidate in (folder, folder / "model", Path("runs") / folder / "model"):
        if (candidate / WEIGHTS).is_file():
            return candidate
    registry = Registry.discover(None)
    for entry in registry.entries("tracker"):
        if entry.default:
            find = getattr(registry.load(entry), "find_model", None)
            if find is not None:
                found: Path = find(str(name))
                return found
    raise InputError(f"no model '{name}': give a run's id or folder, a model's folder or a tracker's URI")


def load(name: str | Path, *, backend: str | None = None) -> Model | Stack:
    """The trained model of a run (its id or folder), of a model folder, or of a tracker's URI.

    A Stack where the run had layers, or something around its one model; its ``encode`` gives the features.
    backend: the name of one to compute on, in the same precision, instead of the one that the model was trained on.
    """
    stack = Stack.load(find_model(name))
    if backend is not None:
        runner = _named("backend", backend)(dtype="float64" if stack.dtype == torch.float64 else "float32")
        for layer in stack:
            layer.model.backend = runner
            runner.prepare(layer)
    return stack.top.model if stack.plain else stack
