"""Checks of backends: availability, what prepare does, and each kernel against the reference in float64."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from groundstate.components import Availability, Backend, Solver
from groundstate.inference import Solved
from groundstate.problem import Problem
from groundstate.structure import L1, Inhibition, Ridge, Structure
from groundstate.testing.reference import problem_of, solved, sparse_problem_of, standard_penalties
from groundstate.testing.results import Broken, NotApplicable, check
from groundstate.testing.subject import Subject, make, some

TOLERANCE = 1e-8


@dataclass(frozen=True, kw_only=True)
class Unheard(Structure):
    """A structure that no kernel can know."""


class BackendCase:
    """A backend, used only where it is available."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject

    def __str__(self) -> str:
        return str(self.subject)

    def backend(self, dtype: str = "float64") -> Backend:
        """An instance; NotApplicable where this machine cannot use it."""
        make(self.subject)
        found = self.subject.cls.available()  # type: ignore[attr-defined]
        if isinstance(found, Availability) and not found.available:
            raise NotApplicable(f"not available here: {found.reason}")
        backend: Backend = self.subject.make(dtype=dtype)
        return backend

    def problems(self, backend: Backend) -> dict[str, Problem]:
        """One for each structure that the backend owns a kernel for."""
        found = kernel_problems(backend)
        if not found:
            raise NotApplicable("it owns no kernel for the structures that are tried")
        return found


def kernel_problems(backend: Backend) -> dict[str, Problem]:
    """Small problems on the backend's device, by their penalties: those that it owns a kernel for."""
    penalties: dict[str, dict[str, Structure]] = {name: {"p": form} for name, form in standard_penalties().items()}
    penalties["L1 and ridge"] = {"p": L1(), "r": Ridge()}
    penalties["non-negative L1 and ridge"] = {"p": L1(non_negative=True), "r": Ridge()}
    made = {name: problem_of(one, device=backend.device) for name, one in penalties.items()}
    made["at most 5 entries, DᵀD = 1"] = sparse_problem_of(device=backend.device)
    return {
        name: problem
        for name, problem in made.items()
        if problem.structure is not None and backend.kernel(problem.structure) is not None
    }


@check("backend", says="available() answers with a reason, and has it a device, there a tensor can be")
def availability(case: BackendCase) -> None:
    found = case.subject.cls.available()  # type: ignore[attr-defined]
    if not isinstance(found, Availability) or not isinstance(found.reason, str) or not found.reason.strip():
        raise Broken(
            f"available() gives {found!r}",
            advice="return Availability(True, 'what it runs on') or Availability(False, 'why not, and what helps')",
        )
    backend = case.backend()
    torch.zeros(1, device=backend.device)


@check("backend", says="prepare moves a module to the device and precision that it tells")
def prepare_moves(case: BackendCase) -> None:
    for dtype, wanted in (("float32", torch.float32), ("float64", torch.float64)):
        backend = case.backend(dtype)
        module = backend.prepare(nn.Linear(3, 2))
        weight = next(module.parameters())
        if weight.dtype != wanted or weight.device.type != backend.device.type or backend.dtype != wanted:
            raise Broken(
                f"prepare leaves parameters of {weight.dtype} on {weight.device}",
                shown=f'dtype = "{dtype}", device {backend.device}',
                advice="call super().prepare(module), which moves it to self.device and self.dtype",
            )


@check("backend", says="a process has its part of a batch, and alone all of it and its own sums")
def processes(case: BackendCase) -> None:
    backend = case.backend()
    rank, world = backend.rank, backend.world
    if not 0 <= rank < world:
        raise Broken(f"its rank is {rank} of {world} processes", advice="count from 0 to world − 1")
    rows = torch.randperm(7 * world, generator=torch.Generator().manual_seed(0))
    part = backend.shard(rows)
    if world == 1:
        value = torch.arange(3.0, dtype=torch.float64, device=backend.device)
        backend.reduce([value])
        if part.tolist() != rows.tolist() or value.tolist() != [0, 1, 2] or backend.share("own") != "own":
            raise Broken(
                "a process that is alone loses rows, or its sums or values change",
                shown=f"shard gives {len(part)} of {len(rows)} rows, reduce {value.tolist()} for [0, 1, 2]",
                advice="with one process shard gives all rows, reduce leaves them and share gives its argument",
            )
    elif not set(part.tolist()) <= set(rows.tolist()) or len(set(part.tolist())) != len(part):
        raise Broken("shard gives rows that are not the batch's, or some twice", shown=some(part.double()))


@check("backend", says="a kernel gives the reference solver's codes, in float64 and to the tolerance")
def kernel_equals_reference(case: BackendCase) -> None:
    backend = case.backend()
    for name, problem in case.problems(backend).items():
        found = _run(backend, problem)
        if not isinstance(found, Solved):
            raise Broken(
                f"the kernel gives {type(found).__name__}, not groundstate.Solved",
                shown=name,
                advice="return Solved(code, iterations), and a certificate only where the kernel knows it",
            )
        code, iterations = found.code, found.iterations
        if code.shape != (len(problem), *problem.code_shape) or iterations.shape != (len(problem),):
            raise Broken(
                f"the kernel gives codes {tuple(code.shape)} and iterations {tuple(iterations.shape)}",
                shown=f"{name}, {len(problem)} samples, codes of {problem.code_shape}",
                advice="return Solved(code like start, iterations (batch,) int64)",
            )
        reached = problem.certificate(code).relative
        own = found.certificate
        if own is not None and not torch.allclose(own.relative, reached, rtol=1e-3, atol=0.1 * TOLERANCE):
            raise Broken(
                f"the kernel certifies {some(own.relative)} where its codes have {some(reached)}",
                shown=name,
                advice="return a certificate only where it is that of Problem.certificate",
            )
        if not bool((reached <= 10 * TOLERANCE).all()):
            raise Broken(
                f"the certificate of its codes is {float(reached.max()):.2g}, not {TOLERANCE:g}",
                shown=name,
                advice="iterate until config.tolerance is reached, and let the penalty's weight and z ≥ 0 count",
            )
        if any(isinstance(form, Inhibition) for form in problem.structure.penalties):  # type: ignore[union-attr]
            continue  # not convex: stationary codes differ
        exact = solved(problem)
        if float((code - exact).abs().max()) > 1e-3 * (1 + float(exact.abs().max())):
            raise Broken(
                "the kernel's codes differ from the reference solver's",
                shown=f"{name}: {some(code)} instead of {some(exact)}",
                advice="solve the problem that the structure describes, all of its penalties",
            )


@check("backend", says="a kernel gives each sample the same code in any batch")
def kernel_batch_invariance(case: BackendCase) -> None:
    backend = case.backend()
    for name, problem in case.problems(backend).items():
        together = _run(backend, problem).code
        alone = _run(backend, problem.select(torch.tensor([1], device=backend.device))).code
        if float((together[1:2] - alone).abs().max()) > 1e-3:
            raise Broken(
                "a sample's code changes with the batch it is in",
                shown=f"{name}: {some(together[1])} in a batch, {some(alone)} alone",
                advice="stop and restart each sample for itself",
            )


@check("backend", says="kernel gives None for a structure that it does not know")
def unknown_structures_are_left_alone(case: BackendCase) -> None:
    backend = case.backend()
    problem = problem_of({"p": L1()})
    form = problem.structure
    assert form is not None
    strange = type(form)(dictionary=form.dictionary, data=form.data, penalties=(*form.penalties, Unheard()))
    if backend.kernel(strange) is not None:
        raise Broken(
            "it offers a kernel for a penalty that it cannot know",
            shown="penalties (L1, a structure defined elsewhere)",
            advice="match every penalty in structure.penalties, and return None unless all are known",
        )


def _run(backend: Backend, problem: Problem) -> Solved:
    assert problem.structure is not None
    kernel = backend.kernel(problem.structure)
    assert kernel is not None
    problem.tolerance = TOLERANCE
    with torch.no_grad():
        return kernel(problem, problem.zeros(), Solver.Config(tolerance=TOLERANCE, max_iterations=20_000))
