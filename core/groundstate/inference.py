"""Inference: find the code of lowest energy, sample by sample, and stop where its certificate says so.

A solver sees a ``Problem``; the loop, the stopping rule and the callback live in ``solve``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from groundstate.components import Backend, Code, Solver, State
from groundstate.errors import InputError
from groundstate.implicit import attach_implicit
from groundstate.memory import keep_freed_memory, out_of_memory
from groundstate.precision import COARSE, exact_products
from groundstate.problem import Certificate, Problem

BLOCK = 2**18
"""Entries of codes and inputs that the solver's loop takes at once on a processor: what stays in its cache."""
RESOLVED = 8
"""Where no entry moves by more than this many roundings of the largest between two checks, they hold the code up."""
CLOSE = 100
"""Below this many roundings the certificate itself is computed in double precision."""
ROUNDED = 0.7
"""Double precision aims at this part of the tolerance: its codes are rounded then."""


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


@dataclass(frozen=True)
class Solved:
    """What a kernel gives, per sample.

    code: like start. iterations: (batch,) int64, of the kernel's own kind. certificate: where the kernel knows it,
    by the formula of ``Problem.certificate`` in the same precision or a higher one; None lets the caller compute it.
    energy: (batch,), on the same terms.
    """

    code: Tensor
    iterations: Tensor
    certificate: Certificate | None = None
    energy: Tensor | None = None


class Kernel(Protocol):
    """A backend's own solver for problems of one structure.

    It stands in for a solver that is content with ``any_minimiser``: it iterates from start in its own way until
    each sample's certificate reaches ``config.tolerance``, or for ``config.max_iterations``, and starts and stops
    each sample for itself. Where it can do no more for a sample before either, and its certificate says so, the solver
    goes on with that sample. An attribute ``name`` tells ``check`` and ``doctor`` what it is.
    """

    def __call__(self, problem: Problem, start: Tensor, config: Solver.Config) -> Solved:
        """The codes of the problem's samples."""
        ...


def kernel_of(backend: Backend | None, solver: Solver[Any], problem: Problem) -> Kernel | None:
    """The kernel that takes the solver's place, or None: the backend has none, or the solver's iterations are asked."""
    structure = problem.structure if backend is not None and solver.any_minimiser else None
    return backend.kernel(structure) if backend is not None and structure is not None else None


def kernel_name(kernel: Kernel) -> str:
    """What to call a kernel."""
    name = getattr(kernel, "name", None) or getattr(kernel, "__name__", type(kernel).__name__)
    return str(name)


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
    A kernel of the backend takes the solver's place where the solver allows it and no callback follows it. Where
    memory does not suffice for all samples at once, they are taken in halves; InputError where it does not for one.
    """
    keep_freed_memory()
    config: Solver.Config = solver.config
    reason = solver.refuses(problem)
    if reason is not None:
        raise InputError(reason)
    problem.tolerance = config.tolerance
    if config.differentiate == "unroll":
        return _unroll(problem, solver, start, certify)
    iterations = torch.zeros(len(problem), dtype=torch.int64, device=start.device)
    if config.max_iterations == 0:
        return _finish(problem, Solved(start, iterations), certify)
    if callback is not None or config.differentiate == "implicit":
        return _solve_at_once(problem, solver, start, certify, callback, backend)
    return in_parts(problem, start, lambda part, begin: _solve_at_once(part, solver, begin, certify, None, backend))


def _solve_at_once(
    problem: Problem,
    solver: Solver[Any],
    start: Tensor,
    certify: bool,
    callback: Callback | None,
    backend: Backend | None,
) -> Solution:
    with torch.no_grad():
        # a callback follows iterations, so it gets the solver's own
        kernel = kernel_of(backend, solver, problem) if callback is None else None
        if kernel is not None:
            solved = _carried_on(problem, solver, kernel(problem, start, solver.config))
        else:
            solved = Solved(*_iterated(problem, solver, start, callback))
    if solver.config.differentiate == "implicit":
        solved = replace(solved, code=attach_implicit(problem, solved.code))
    return _finish(problem, solved, certify)


def _carried_on(problem: Problem, solver: Solver[Any], solved: Solved) -> Solved:
    """The same, but for samples that a kernel gave up above the tolerance: these by the solver's own iterations."""
    config = solver.config
    if solved.certificate is None:
        return solved
    code, iterations, certificate, energy = solved.code, solved.iterations, solved.certificate, solved.energy
    rows = ((certificate.relative > config.tolerance) & (iterations < config.max_iterations)).nonzero().flatten()
    if not len(rows):
        return solved
    found, more, reached = _iterated(problem.select(rows), solver, code[rows], None)
    better = (reached.relative < certificate.relative[rows]).nonzero().flatten()
    rows = rows[better]
    code = code.index_copy(0, rows, found[better])
    iterations = iterations.index_add(0, rows, more[better])
    value = certificate.value.index_copy(0, rows, reached.value[better].to(certificate.value))
    relative = certificate.relative.index_copy(0, rows, reached.relative[better].to(certificate.relative))
    if energy is not None:
        energy = energy.index_copy(0, rows, problem.select(rows).value(code[rows]).to(energy))
    return Solved(code, iterations, Certificate(certificate.kind, value, relative), energy)


def in_parts(problem: Problem, start: Tensor, run: Callable[[Problem, Tensor], Solution]) -> Solution:
    """What ``run`` gives for all samples; in halves, and halves of these, where memory does not suffice for more."""
    try:
        return run(problem, start)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        if len(problem) == 1:
            raise InputError(
                f"memory does not suffice for one sample of {start[0].numel():,} units on {start.device}; "
                "free some, take fewer units, or another backend"
            ) from None
    # outside of the handler, whose traceback holds what did not fit
    middle = len(problem) // 2
    rows = torch.arange(len(problem), device=start.device).tensor_split([middle])
    first, second = (in_parts(problem.select(part), start[part], run) for part in rows)
    return joined(first, second)


def joined(first: Solution, second: Solution) -> Solution:
    """One solution of the samples of both, in this order."""
    energy, certificate = first.energy, first.certificate
    if energy is not None and second.energy is not None:
        energy = torch.cat([energy, second.energy])
    if certificate is not None and second.certificate is not None:
        certificate = _together((certificate, second.certificate))
    iterations = torch.cat([first.iterations, second.iterations])
    return Solution(torch.cat([first.code, second.code]), energy, certificate, iterations)


def _together(certificates: Sequence[Certificate]) -> Certificate:
    """One certificate of all their samples, in this order."""
    value, relative = (torch.cat([getattr(one, name) for one in certificates]) for name in ("value", "relative"))
    return Certificate(certificates[0].kind, value, relative)


def sparse_codes(code: Tensor) -> Tensor:
    """Codes (batch, *code_shape) as one matrix (batch, units) in compressed sparse rows."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        warnings.filterwarnings("ignore", message="Sparse invariant checks are implicitly disabled")
        return code.flatten(1).to_sparse_csr()


def _finish(problem: Problem, solved: Solved, certify: bool) -> Solution:
    code, energy, certificate = solved.code, solved.energy, solved.certificate
    if certify:
        with torch.no_grad(), exact_products():
            at = code.detach()
            energy = problem.value(at) if energy is None else energy
            certificate = problem.certificate(at) if certificate is None else certificate
    return Solution(code, energy, certificate, solved.iterations)


def _unroll(problem: Problem, solver: Solver[Any], start: Tensor, certify: bool) -> Solution:
    problem.differentiable = True
    state = solver.init(problem, start)
    for _ in range(solver.config.max_iterations):
        state = solver.step(problem, state)
    count = torch.full((len(problem),), solver.config.max_iterations, dtype=torch.int64, device=start.device)
    problem.differentiable = False
    return _finish(problem, Solved(state.code, count), certify)


def _iterated(
    problem: Problem, solver: Solver[Any], start: Tensor, callback: Callback | None
) -> tuple[Tensor, Tensor, Certificate]:
    """The solver's own iterations; where products are rounded, first as far as these lead, then on in full."""
    aim = COARSE.get(torch.get_float32_matmul_precision()) if start.dtype == torch.float32 else None
    if aim is None or aim <= solver.config.tolerance or callback is not None:
        return _blocks(problem, solver, start, callback)
    first = max(1, solver.config.max_iterations // 2)
    code, iterations, certificate = _blocks(problem, solver, start, None, Span(0, first, aim))
    rows = (certificate.relative > solver.config.tolerance).nonzero().flatten()
    done = int(iterations.max()) if len(rows) else 0
    if len(rows) and done < solver.config.max_iterations:
        span = Span(done, solver.config.max_iterations, solver.config.tolerance)
        with exact_products():
            code[rows], iterations[rows], rest = _blocks(problem.select(rows), solver, code[rows], None, span)
        certificate.value[rows], certificate.relative[rows] = rest.value, rest.relative
    return code, iterations, certificate


@dataclass(frozen=True)
class Span:
    """A part of the iterations: after number ``done``, up to ``last``, to the relative certificate ``aim``."""

    done: int
    last: int
    aim: float


def _blocks(
    problem: Problem, solver: Solver[Any], start: Tensor, callback: Callback | None, span: Span | None = None
) -> tuple[Tensor, Tensor, Certificate]:
    """The loop over samples in blocks that stay in a processor's cache; a callback sees all samples at once."""
    size = max(1, BLOCK // max(1, start[:1].numel() + problem.batch.x[:1].numel()))
    if callback is not None or start.device.type != "cpu" or len(problem) <= size:
        return _loop(problem, solver, start, callback, span)
    problem.lipschitz()  # once, for all blocks
    problem.curvature()
    rows = [torch.arange(first, min(first + size, len(problem))) for first in range(0, len(problem), size)]
    parts = [_loop(problem.select(part), solver, start[part], None, span) for part in rows]
    codes, iterations, certificates = zip(*parts, strict=True)
    return torch.cat(codes), torch.cat(iterations), _together(certificates)


def _loop(
    problem: Problem,
    solver: Solver[Any],
    start: Tensor,
    callback: Callback | None,
    span: Span | None = None,
) -> tuple[Tensor, Tensor, Certificate]:
    """The iterations of a span, all of the config's by default.

    What single precision holds up goes on in double, and there what nears its rounding is certified.
    """
    config: Solver.Config = solver.config
    if span is None:
        span = Span(0, config.max_iterations, config.tolerance)
    tolerance = span.aim
    samples = len(problem)
    code = start.detach().clone()
    iterations = torch.zeros(samples, dtype=torch.int64, device=start.device)
    rows = torch.arange(samples, device=start.device)
    open_ = torch.ones(samples, dtype=torch.bool, device=start.device)
    state = solver.init(problem, start.detach())
    value, relative, kind = start.new_full((samples,), torch.inf), start.new_full((samples,), torch.inf), None
    # a code in single precision can be certified to about its rounding, if the way to it has a finer one
    refine = callback is None and start.dtype == torch.float32 and tolerance >= torch.finfo(start.dtype).eps
    checked = state.code
    for iteration in range(span.done + 1, span.last + 1):
        state = solver.step(problem, state)
        certificate = None
        last = iteration == span.last
        if last or iteration % config.check_every == 0:
            certificate = problem.certificate(state.code)
            kind = certificate.kind
            live = open_[rows]
            fresh = rows[live]
            code[fresh], value[fresh] = state.code[live], certificate.value[live]
            relative[fresh], iterations[fresh] = certificate.relative[live], iteration
            open_[rows] = live & (certificate.relative > tolerance)
        if callback is not None:
            callback(iteration, rows, state, certificate)
        if refine and certificate is not None and not last:
            close = tolerance <= CLOSE * torch.finfo(start.dtype).eps
            leaving = (certificate.relative <= tolerance) if close else torch.zeros_like(live)
            leaving |= (certificate.relative > tolerance) & _lost_in_rounding(checked, state.code)
            some = (live & leaving).nonzero().flatten()
            if len(some):
                finished = _in_double(problem.select(some), solver, state.code[some], iteration)
                code[rows[some]], iterations[rows[some]], value[rows[some]], relative[rows[some]] = finished
                open_[rows[some]] = False
        if certificate is not None and not last:
            keep = open_[rows].nonzero().flatten()
            if len(keep) == 0:
                break
            if len(keep) < 0.8 * len(rows):
                problem, state, rows = problem.select(keep), select_state(state, keep), rows[keep]
            checked = state.code
    return code, iterations, Certificate(kind or "residual", value, relative)


def _lost_in_rounding(before: Tensor, after: Tensor) -> Tensor:
    """Whether a sample's code moved by no more than rounding, (batch,) bool."""
    moved, size = (values.flatten(1).abs().amax(1) for values in (after - before, after))
    return moved <= RESOLVED * torch.finfo(after.dtype).eps * size


def _in_double(problem: Problem, solver: Solver[Any], code: Tensor, done: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Code, iterations and certificate (value, relative) of samples of which some may need to go on in double."""
    fine = problem.in_double()
    iterations = torch.full((len(code),), done, device=code.device)
    open_ = fine.certificate(code.double()).relative > solver.config.tolerance
    rows = open_.nonzero().flatten()
    if len(rows):
        span = Span(done, solver.config.max_iterations, ROUNDED * solver.config.tolerance)
        found, iterations[rows], _ = _loop(fine.select(rows), solver, code[rows].double(), None, span)
        code = code.index_copy(0, rows, found.to(code))
    certificate = fine.certificate(code.double())
    return code, iterations, certificate.value.to(code), certificate.relative.to(code)


def select_state(state: State, rows: Tensor) -> State:
    """The state of some of the samples: every tensor field keeps these rows of its first axis."""
    chosen = {
        field.name: value[rows]
        for field in fields(state)
        if isinstance(value := getattr(state, field.name), Tensor) and value.dim() > 0
    }
    return replace(state, **chosen)
