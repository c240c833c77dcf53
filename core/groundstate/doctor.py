"""What works on this machine: versions, backends, and whether their numbers are right."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from groundstate.components import Backend
from groundstate.errors import PluginError
from groundstate.problem import soft_threshold
from groundstate.provenance import host, versions
from groundstate.registry import Registry

TOLERANCE: Mapping[torch.dtype, float] = {torch.float32: 1e-4, torch.float64: 1e-10}
"""Largest error of a code's entries, relative to its largest: what is left of the precision after 200 steps."""


@dataclass(frozen=True)
class BackendHealth:
    """One backend. error: of its numbers against float64, None where it was not tried."""

    name: str
    available: bool
    reason: str
    error: float | None = None
    right: bool = True


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
    except Exception as problem:
        return BackendHealth(name, True, f"{found.reason}; failed: {type(problem).__name__}: {problem}", right=False)
    return BackendHealth(name, True, found.reason, error, error <= TOLERANCE[backend.dtype])


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
