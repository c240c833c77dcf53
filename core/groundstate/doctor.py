"""What works on this machine: versions, backends, and whether their numbers are right."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from groundstate.components import Backend, Solver
from groundstate.errors import PluginError
from groundstate.inference import kernel_name
from groundstate.problem import soft_threshold
from groundstate.provenance import host, versions
from groundstate.registry import Registry
from groundstate.testing.backends import TOLERANCE as KERNEL_TOLERANCE
from groundstate.testing.backends import kernel_problems

TOLERANCE: Mapping[torch.dtype, float] = {torch.float32: 1e-4, torch.float64: 1e-10}
"""Largest error of a code's entries, relative to its largest: what is left of the precision after 200 steps."""


@dataclass(frozen=True)
class KernelHealth:
    """One kernel of a backend on one problem. problem: its penalties. gap: the worst relative certificate reached, in
    float64 at a tolerance of 1e-8; None where the kernel failed, with the reason.
    """

    name: str
    problem: str
    gap: float | None = None
    failed: str | None = None

    @property
    def right(self) -> bool:
        return self.gap is not None and self.gap <= 10 * KERNEL_TOLERANCE


@dataclass(frozen=True)
class BackendHealth:
    """One backend. error: of its numbers against float64, None where it was not tried."""

    name: str
    available: bool
    reason: str
    error: float | None = None
    right: bool = True
    kernels: tuple[KernelHealth, ...] = ()


@dataclass(frozen=True)
class Diagnosis:
    """What ``doctor`` found. problems: plugins and registries that cannot be used."""

    versions: Mapping[str, str]
    host: Mapping[str, Any]
    backends: tuple[BackendHealth, ...]
    problems: tuple[str, ...]

    @property
    def healthy(self) -> bool:
        """Some backend can be used, and each that can gives right numbers."""
        return any(one.available for one in self.backends) and all(one.right for one in self.backends)

    def record(self) -> dict[str, Any]:
        return {"healthy": self.healthy, **asdict(self)}

    def lines(self) -> Iterator[str]:
        """The same in words."""
        yield from (f"{name} {version}" for name, version in self.versions.items())
        yield from (f"{name}: {value}" for name, value in self.host.items() if value is not None)
        for one in self.backends:
            state = "available" if one.available else "not available"
            numbers = ""
            if one.error is not None:
                verdict = "numbers right" if one.right else "NUMBERS WRONG"
                numbers = f"; {verdict}: {one.error:.1e} from float64"
            yield f"backend {one.name}: {state} ({one.reason}){numbers}"
            for kernel in one.kernels:
                found = f"works, relative gap {kernel.gap:.1e}" if kernel.right else f"FAILS: {kernel.failed}"
                yield f"  kernel {kernel.name}, {kernel.problem}: {found}"
        yield from (f"problem: {one}" for one in self.problems)


def diagnose(registry: Registry) -> Diagnosis:
    """Ask every backend, and let each that is available solve a small sparse coding problem."""
    backends, problems = [], [str(problem) for problem in registry.problems]
    for entry in registry.entries():
        if entry.broken is not None:
            problems.append(f"{entry}: {entry.broken}")
        elif entry.kind == "backend":
            try:
                plugin = registry.load(entry)
            except PluginError as error:
                backends.append(BackendHealth(entry.name, False, str(error)))
                continue
            if issubclass(plugin, Backend):
                backends.append(_examine(entry.name, plugin))
    return Diagnosis(versions(), host(), tuple(backends), tuple(problems))


def _examine(name: str, plugin: type[Backend]) -> BackendHealth:
    found = plugin.available()
    if not found.available:
        return BackendHealth(name, False, found.reason)
    try:
        backend = plugin()
        error = numerical_error(backend)
        kernels = tuple(examined_kernels(plugin(dtype="float64")))
    except Exception as problem:
        return BackendHealth(name, True, f"{found.reason}; failed: {type(problem).__name__}: {problem}", right=False)
    right = error <= TOLERANCE[backend.dtype] and all(kernel.right for kernel in kernels)
    return BackendHealth(name, True, found.reason, error, right, kernels)


def examined_kernels(backend: Backend) -> Iterator[KernelHealth]:
    """Each kernel of a backend on the conformance kit's small problems of its form; the first time may compile it."""
    for problem_name, problem in kernel_problems(backend).items():
        assert problem.structure is not None
        kernel = backend.kernel(problem.structure)
        assert kernel is not None
        named = KernelHealth(kernel_name(kernel), problem_name)
        try:
            with torch.no_grad():
                config = Solver.Config(tolerance=KERNEL_TOLERANCE, max_iterations=20_000)
                code = kernel(problem, problem.zeros(), config).code
            gap = float(problem.certificate(code).relative.max())
        except Exception as error:
            yield replace(named, failed=f"{type(error).__name__}: {error}")
            continue
        yield replace(named, gap=gap, failed=f"its codes reach {gap:.1e}, not {KERNEL_TOLERANCE:g}")


def numerical_error(backend: Backend) -> float:
    """Largest error of lasso codes on a backend's device, relative to the largest entry, against float64 here."""
    generator = torch.Generator().manual_seed(0)
    dictionary = torch.nn.functional.normalize(torch.randn(40, 60, generator=generator, dtype=torch.float64), dim=0)
    x = torch.randn(16, 40, generator=generator, dtype=torch.float64)
    exact = _lasso(x, dictionary)
    device, dtype = backend.device, backend.dtype
    found = _lasso(x.to(device, dtype), dictionary.to(device, dtype))
    return float((found.cpu().double() - exact).abs().max() / exact.abs().max())


def _lasso(x: Tensor, dictionary: Tensor, weight: float = 0.3, steps: int = 200) -> Tensor:
    """FISTA with a fixed number of steps (Beck & Teboulle 2009). x: (batch, n), dictionary: (n, units)."""
    step = 1.0 / float(torch.linalg.matrix_norm(dictionary, 2) ** 2)
    z = ahead = x.new_zeros(len(x), dictionary.shape[1])
    t = 1.0
    for _ in range(steps):
        following = soft_threshold(ahead + step * (x - ahead @ dictionary.T) @ dictionary, step * weight)
        t, before = 0.5 * (1 + (1 + 4 * t * t) ** 0.5), t
        ahead = following + (before - 1) / t * (following - z)
        z = following
    return z
