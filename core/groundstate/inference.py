"""Inference: find the code of lowest energy, sample by sample, and stop where its certificate says so.

A solver sees a ``Problem``; the loop, the stopping rule and the callback live in ``solve``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from groundstate.components import Backend, Code, Solver, State
from groundstate.errors import InputError
from groundstate.implicit import attach_implicit
from groundstate.problem import Certificate, Problem

BLOCK = 2**19
"""Entries of codes and inputs that the solver's loop takes at once on a processor (10,000 codes of 256 units
in blocks take two thirds of the time)."""


@dataclass(frozen=True)
class Solution:
    """What inference gives, per sample.

    code: (batch, *code_shape). energy: (batch,), over the terms that act in inference.
    iterations: (batch,) int64. certificate: None where none was asked for.
    encoded: what the encoder gave, where it ran.
    """

    code: Tensor
    energy: Tensor | None
    certificate: Certificate | None
    iterations: Tensor
    encoded: Code | None = None


class Kernel(Protocol):
    """A backend's own solver for problems of one structure."""

    def __call__(self, problem: Problem, start: Tensor, config: Solver.Config) -> tuple[Tensor, Tensor]:
        """Codes like start and the iterations of each sample; the caller certifies them."""
        ...


Callback = Callable[[int, Tensor, State, Certificate | None], None]
"""Called after each iteration with its number, the samples still in the batch, the state and, when it was
computed, their certificate."""


def solve(
    problem: Problem,
    solver: Solver[Any],
    start: Tensor,
    *,
    certify: bool = True,
    callback: Callback | None = None,
    backend: Backend | None = None,
) -> Solution:
    """Run a solver from ``start`` until each sample's certificate reaches its tolerance, or the iterations end.

    A sample that is done keeps the code it had then, whatever its batch mates need; so results do not depend
    on how samples are batched. With ``differentiate = "unroll"`` all iterations run and the graph is kept.
    """
    config: Solver.Config = solver.config
    reason = solver.refuses(problem)
    if reason is not None:
        raise InputError(reason)
    problem.tolerance = config.tolerance
    if config.differentiate == "unroll":
        return _unroll(problem, solver, start, certify)
    iterations = torch.zeros(len(problem), dtype=torch.int64, device=start.device)
    if config.max_iterations == 0:
        return _finish(problem, start, iterations, certify)
    with torch.no_grad():
        structure = problem.structure if backend is not None else None
        kernel = backend.kernel(structure) if backend is not None and structure is not None else None
        if kernel is not None:
            code, iterations = kernel(problem, start, config)
            certificate = None
        else:
            code, iterations, certificate = _blocks(problem, solver, start, callback)
    if config.differentiate == "implicit":
        code = attach_implicit(problem, code)
    return _finish(problem, code, iterations, certify, certificate)


def _finish(
    problem: Problem, code: Tensor, iterations: Tensor, certify: bool, certificate: Certificate | None = None
) -> Solution:
    if not certify:
        return Solution(code, None, certificate, iterations)
    with torch.no_grad():
        at = code.detach()
        return Solution(code, problem.value(at), certificate or problem.certificate(at), iterations)


def _unroll(problem: Problem, solver: Solver[Any], start: Tensor, certify: bool) -> Solution:
    problem.differentiable = True
    state = solver.init(problem, start)
    for _ in range(solver.config.max_iterations):
        state = solver.step(problem, state)
    count = torch.full((len(problem),), solver.config.max_iterations, dtype=torch.int64, device=start.device)
    problem.differentiable = False
    return _finish(problem, state.code, count, certify)


def _blocks(
    problem: Problem, solver: Solver[Any], start: Tensor, callback: Callback | None
) -> tuple[Tensor, Tensor, Certificate]:
    """The loop over samples in blocks that stay in a processor's cache; a callback sees all samples at once."""
    size = max(1, BLOCK // max(1, start[:1].numel() + problem.batch.x[:1].numel()))
    if callback is not None or start.device.type != "cpu" or len(problem) <= size:
        return _loop(problem, solver, start, callback)
    problem.lipschitz()  # once, for all blocks
    problem.curvature()
    rows = [torch.arange(first, min(first + size, len(problem))) for first in range(0, len(problem), size)]
    parts = [_loop(problem.select(part), solver, start[part], None) for part in rows]
    codes, iterations, certificates = zip(*parts, strict=True)
    value, relative = (torch.cat([getattr(c, name) for c in certificates]) for name in ("value", "relative"))
    return torch.cat(codes), torch.cat(iterations), Certificate(certificates[0].kind, value, relative)


def _loop(
    problem: Problem, solver: Solver[Any], start: Tensor, callback: Callback | None
) -> tuple[Tensor, Tensor, Certificate]:
    config: Solver.Config = solver.config
    samples = len(problem)
    code = start.detach().clone()
    iterations = torch.zeros(samples, dtype=torch.int64, device=start.device)
    rows = torch.arange(samples, device=start.device)
    open_ = torch.ones(samples, dtype=torch.bool, device=start.device)
    state = solver.init(problem, start.detach())
    value, relative, kind = start.new_full((samples,), torch.inf), start.new_full((samples,), torch.inf), None
    for iteration in range(1, config.max_iterations + 1):
        state = solver.step(problem, state)
        certificate = None
        last = iteration == config.max_iterations
        if last or iteration % config.check_every == 0:
            certificate = problem.certificate(state.code)
            kind = certificate.kind
            live = open_[rows]
            fresh = rows[live]
            code[fresh], value[fresh] = state.code[live], certificate.value[live]
            relative[fresh], iterations[fresh] = certificate.relative[live], iteration
            open_[rows] = live & (certificate.relative > config.tolerance)
        if callback is not None:
            callback(iteration, rows, state, certificate)
        if certificate is not None and not last:
            keep = open_[rows].nonzero().flatten()
            if len(keep) == 0:
                break
            if len(keep) < 0.8 * len(rows):
                problem, state, rows = problem.select(keep), select_state(state, keep), rows[keep]
    return code, iterations, Certificate(kind or "residual", value, relative)


def select_state(state: State, rows: Tensor) -> State:
    """The state of some of the samples: every tensor field keeps these rows of its first axis."""
    chosen = {
        field.name: value[rows]
        for field in fields(state)
        if isinstance(value := getattr(state, field.name), Tensor) and value.dim() > 0
    }
    return replace(state, **chosen)
