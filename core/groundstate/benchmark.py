"""Which solver and backend find the codes of a config fastest, and how good those codes are."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from groundstate.components import Backend, Solver
from groundstate.config import LoadedConfig, assemble
from groundstate.data import Batch
from groundstate.errors import InputError, PluginError
from groundstate.inference import kernel_name, kernel_of
from groundstate.model import Model
from groundstate.problem import Problem
from groundstate.registry import Registry


@dataclass(frozen=True)
class Timing:
    """One solver on one backend, on the same inputs as all others.

    seconds: median over the repeats; spread: its quartiles. reached: share of samples whose certificate is within
    the tolerance. certificate: the worst of them, relative, of codes and problem in float64. energy: the mean.
    kernel: the backend's that took the solver's place, None where the solver itself ran.
    """

    solver: str
    backend: str
    seconds: float
    spread: tuple[float, float]
    certificate_kind: str
    certificate: float
    reached: float
    energy: float
    iterations: float
    kernel: str | None = None


@dataclass(frozen=True)
class Comparison:
    """What ``compare_solvers`` found, the best first. left_out: who was not timed, and why."""

    samples: int
    tolerance: float
    threads: int
    timings: tuple[Timing, ...]
    left_out: Mapping[str, str]

    def record(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class _Contender:
    solver: str
    backend: str
    model: Model
    batch: Batch

    def run(self) -> tuple[Tensor, Tensor]:
        """Codes and iterations."""
        with torch.no_grad():
            solution = self.model.infer_batch(self.batch, certify=False)
        return solution.code, solution.iterations


def compare_solvers(
    loaded: LoadedConfig,
    *,
    samples: int = 1000,
    repeats: int = 5,
    tolerance: float | None = None,
    max_iterations: int | None = None,
    trained: Model | None = None,
    follow: Callable[[str], None] = lambda name: None,
) -> Comparison:
    """Time every solver on every backend that can take a config's inference problem, in turn.

    samples: held-out inputs. tolerance, max_iterations: of every solver but an amortised one; the config's by
    default. trained: where the parameters come from; as a run starts without it. follow: told who runs.
    """
    assembled = assemble(loaded)
    if len(loaded.layers) > 1:
        raise InputError("this config is a stack; bench times the inference of one model")
    (layer,), (parts,) = loaded.layers, assembled.layers
    splits = assembled.data.load(loaded.config.seed)
    source = splits.test or splits.validation or splits.train
    batch = source.read(torch.arange(min(samples, len(source))))
    model = Model(encoder=parts.encoder, decoder=parts.decoder, terms=parts.terms, solver=parts.solver)
    first = splits.train.read(torch.arange(min(layer.config.learning.sample, len(splits.train))))
    model.build(splits.train.input_shape, classes=splits.classes, sample=first.x, seed=loaded.config.seed)
    if trained is not None:
        _adopt(model, trained)
    own: Solver.Config = parts.solver.config
    amortised = own.max_iterations == 0
    usual = Solver.Config() if amortised else own
    asked = {
        "tolerance": usual.tolerance if tolerance is None else tolerance,
        "max_iterations": usual.max_iterations if max_iterations is None else max_iterations,
    }
    left_out: dict[str, str] = {}
    threads = torch.get_num_threads()
    try:
        solvers = dict(_solvers(loaded.registry, model, batch, asked, left_out))
        if amortised:
            solvers = {layer.config.inference.type: parts.solver, **solvers}
        backends = dict(_backends(loaded, assembled.backend, left_out))
        contenders = list(_contenders(model, batch, solvers, backends))
        if not contenders:
            reasons = "; ".join(f"{name}: {why}" for name, why in left_out.items())
            raise InputError(f"no solver and backend here can take this config's inference problem ({reasons})")
        timings = _race(contenders, model, batch, repeats, float(asked["tolerance"]), follow)
    finally:
        torch.set_num_threads(threads)
    best = sorted(timings, key=lambda one: (-one.reached, one.seconds))
    return Comparison(len(batch), float(asked["tolerance"]), threads, tuple(best), left_out)


def _adopt(model: Model, trained: Model) -> None:
    shapes = [{name: tuple(value.shape) for name, value in one.state_dict().items()} for one in (model, trained)]
    other = sorted(name for name in shapes[0].keys() | shapes[1].keys() if shapes[0].get(name) != shapes[1].get(name))
    if other:
        raise InputError(f"the model has other parameters than this config's: {', '.join(other)}")
    model.load_state_dict(trained.state_dict())


def _solvers(
    registry: Registry, model: Model, batch: Batch, asked: Mapping[str, float], left_out: dict[str, str]
) -> Iterator[tuple[str, Solver[Any]]]:
    """Every solver that takes the tolerance, the model and its energy."""
    problem = Problem(model.energy, batch.select(torch.arange(1)), model.shapes.code_shape)
    for entry in registry.entries("solver"):
        name = f"solver {entry.name}"
        try:
            solver: Any = registry.load(entry)(**asked)
        except ValidationError:
            continue  # nothing to choose: it runs no iterations, or none that the config could bound
        except PluginError as error:
            left_out[name] = str(error)
            continue
        if solver.config.start == "encoder" and model.encoder is None:
            left_out[name] = "it starts from an encoder's code, and the model has none"
        elif (reason := solver.refuses(problem)) is not None:
            left_out[name] = reason
        else:
            yield entry.name, solver


def _backends(loaded: LoadedConfig, own: Backend, left_out: dict[str, str]) -> Iterator[tuple[str, Backend]]:
    """The config's backend as it stands there, and every other that can be used here."""
    for entry in loaded.registry.entries("backend"):
        if entry.name == loaded.config.backend.type:
            yield entry.name, own
            continue
        try:
            plugin: Any = loaded.registry.load(entry)
        except PluginError as error:
            left_out[f"backend {entry.name}"] = str(error)
            continue
        found = plugin.available()
        if found.available:
            yield entry.name, plugin(dtype=own.config.dtype)
        else:
            left_out[f"backend {entry.name}"] = found.reason


def _contenders(
    model: Model, batch: Batch, solvers: Mapping[str, Solver[Any]], backends: Mapping[str, Backend]
) -> Iterator[_Contender]:
    for where, backend in backends.items():
        placed = copy.deepcopy(model)
        placed.backend = backend
        backend.prepare(placed)
        there = batch.to(placed.device, placed.dtype)
        for name, solver in solvers.items():
            one = copy.copy(placed)
            one.solver = solver
            yield _Contender(name, where, one, there)


def _race(
    contenders: list[_Contender],
    model: Model,
    batch: Batch,
    repeats: int,
    tolerance: float,
    follow: Callable[[str], None],
) -> list[Timing]:
    """All in turn, so that a machine that slows down slows all; the first round is not counted."""
    seconds: list[list[float]] = [[] for _ in contenders]
    found: list[tuple[Tensor, Tensor]] = [one.run() for one in contenders]
    for _ in range(repeats):
        for number, one in enumerate(contenders):
            follow(f"{one.solver} on {one.backend}")
            assert one.model.backend is not None
            one.model.backend.prepare(one.model)  # threads and precision of products are the process's
            began = time.perf_counter()
            one.run()[0].cpu()  # which waits for a device
            seconds[number].append(time.perf_counter() - began)
    exact = copy.deepcopy(model).double()
    return [
        _timing(one, took, code, iterations, exact, batch, tolerance)
        for one, took, (code, iterations) in zip(contenders, seconds, found, strict=True)
    ]


def _timing(
    one: _Contender,
    seconds: list[float],
    code: Tensor,
    iterations: Tensor,
    exact: Model,
    batch: Batch,
    tolerance: float,
) -> Timing:
    here = batch.to(torch.device("cpu"), torch.float64)
    problem = Problem(
        exact.energy,
        here,
        exact.shapes.code_shape,
        encoded=exact.run_encoder(here.x),
        tolerance=tolerance,
    )
    with torch.no_grad():
        z = code.detach().cpu().double()
        certificate = problem.certificate(z)
        energy = problem.value(z)
    kernel = kernel_of(one.model.backend, one.model.solver, problem)
    quartiles = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else [seconds[0]] * 3
    return Timing(
        solver=one.solver,
        backend=one.backend,
        seconds=statistics.median(seconds),
        spread=(quartiles[0], quartiles[2]),
        certificate_kind=certificate.kind,
        certificate=float(certificate.relative.max()),
        reached=float((certificate.relative <= tolerance).double().mean()),
        energy=float(energy.mean()),
        iterations=float(iterations.double().mean()),
        kernel=None if kernel is None else kernel_name(kernel),
    )
