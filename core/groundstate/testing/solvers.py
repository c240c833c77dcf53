"""Checks of solvers, on small problems whose minimum is known, convex but for one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from groundstate.components import Solver, State
from groundstate.errors import InputError
from groundstate.inference import select_state, solve
from groundstate.problem import Problem
from groundstate.structure import L1, Cardinality, Ridge
from groundstate.testing.reference import problem_of, solved, sparse_problem_of
from groundstate.testing.results import Broken, NotApplicable, check
from groundstate.testing.subject import Subject, close, generator, make, some

MakeProblem = Callable[[], Problem]
PROBLEMS: dict[str, MakeProblem] = {
    "½‖x − Dz‖² + 0.1‖z‖₁": lambda: problem_of({"l": L1()}),
    "½‖x − Dz‖² + 0.1‖z‖₁, z ≥ 0": lambda: problem_of({"l": L1(non_negative=True)}),
    "½‖x − Dz‖² + 0.1‖z‖₁ + 0.05‖z‖²": lambda: problem_of({"l": L1(), "r": Ridge()}),
    "the same without its structure": lambda: problem_of({"l": L1(), "r": Ridge()}, open_=False),
    "½‖x − Dz‖² + 0.05‖z‖²": lambda: problem_of({"r": Ridge()}),
    "½‖x − Dz‖², at most 5 entries of z, DᵀD = 1": sparse_problem_of,
}
TOLERANCE = 1e-7


class SolverCase:
    """A solver and the problems that it does not refuse."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject

    def __str__(self) -> str:
        return str(self.subject)

    def solver(self, **changes: Any) -> Solver[Any]:
        """The solver, as exact as its config allows. NotApplicable where it does not iterate."""
        make(self.subject)
        wanted = {"tolerance": TOLERANCE, "max_iterations": 5000, **changes}
        solver: Solver[Any] | None = None
        while solver is None:
            try:
                solver = self.subject.make(**wanted)
            except ValidationError as error:
                refused = {str(detail["loc"][0]) for detail in error.errors() if detail["loc"]} & set(wanted)
                if not refused or refused & set(changes):
                    raise NotApplicable(f"its config does not take {', '.join(sorted(refused or changes))}") from error
                wanted = {key: value for key, value in wanted.items() if key not in refused}
        if solver.config.max_iterations == 0:
            raise NotApplicable("it does not iterate: its code is the start")
        return solver

    def problems(self, solver: Solver[Any]) -> dict[str, Problem]:
        """Those that it takes; Broken where it takes none."""
        made = {name: build() for name, build in PROBLEMS.items()}
        taken = {name: problem for name, problem in made.items() if solver.refuses(problem) is None}
        if not taken:
            raise Broken(
                "it refuses every problem it is tried on",
                shown=f"{next(iter(made))}: {solver.refuses(next(iter(made.values())))}",
                advice="refuses(problem) gives None for a problem that the solver can take",
            )
        return taken


def starts(problem: Problem) -> Tensor:
    """Codes that are not the minimum; in the domain of all terms."""
    start = torch.rand(len(problem), *problem.code_shape, generator=generator(3), dtype=torch.float64)
    for form in problem.structure.penalties if problem.structure is not None else ():
        if isinstance(form, Cardinality):
            start[:, form.count :] = 0
    return start


@check("solver", says="the energy at the end is not above the start's")
def energy_falls(case: SolverCase) -> None:
    for name, problem in case.problems(case.solver()).items():
        start = starts(problem)
        for count in (1, 3, 30):
            code = solve(problem, case.solver(max_iterations=count), start.clone(), certify=False).code
            rise = problem.value(code) - problem.value(start)
            if not bool((rise <= 1e-9).all()):
                raise Broken(
                    f"after {count} iterations the energy is above the start's",
                    shown=f"{name}: {some(problem.value(start))} → {some(problem.value(code))}",
                    advice="take steps of at most 1/(lipschitz + curvature), or go back to the better code",
                )


@check("solver", says="it reaches the tolerance, and the minimum that the reference finds")
def certificate_reaches_tolerance(case: SolverCase) -> None:
    solver = case.solver()
    for name, problem in case.problems(solver).items():
        solution = solve(problem, solver, problem.zeros())
        assert solution.certificate is not None
        reached = solution.certificate.relative
        if not bool((reached <= 10 * solver.config.tolerance).all()):
            raise Broken(
                f"the certificate is {float(reached.max()):.2g} after {int(solution.iterations.max())} iterations, "
                f"not {solver.config.tolerance:g}",
                shown=name,
                advice="the iteration must converge to the minimum; see problem.certificate(z)",
            )
        exact = problem.value(solved(problem))
        excess = float((problem.value(solution.code) - exact).max())
        if excess > 1e-4 * (1 + float(exact.max())):
            raise Broken(
                f"its code costs {excess:.3g} more than the minimum",
                shown=name,
                advice="the iteration must converge to the minimum of problem.value",
            )


@check("solver", says="a sample's code does not depend on its batch mates")
def solved_alone_or_together(case: SolverCase) -> None:
    solver = case.solver()
    for name, problem in case.problems(solver).items():
        together = solve(problem, solver, problem.zeros()).code
        for sample in (0, 2):
            one = problem.select(torch.tensor([sample]))
            alone = solve(one, solver, one.zeros()).code
            if not close(alone, together[sample : sample + 1], 1e-3):
                raise Broken(
                    "a sample's code changes with the batch it is in",
                    shown=f"{name}, sample {sample}: {some(together[sample])} in a batch, {some(alone)} alone",
                    advice="steps, restarts and line searches per sample: nothing is reduced over the batch",
                )


@check("solver", says="every tensor of its state has the samples as first axis, so that samples can leave")
def state_can_be_selected(case: SolverCase) -> None:
    solver = case.solver()
    name, problem = next(iter(case.problems(solver).items()))
    state = solver.init(problem, problem.zeros())
    if not (is_dataclass(state) and isinstance(state, State)):
        raise Broken(f"its state is a {type(state).__name__}", advice="a dataclass that extends groundstate.State")
    for _ in range(3):
        state = solver.step(problem, state)
    for part in fields(state):
        value = getattr(state, part.name)
        if isinstance(value, Tensor) and value.dim() > 0 and len(value) != len(problem):
            raise Broken(
                f"the state's {part.name} has shape {tuple(value.shape)} with {len(problem)} samples",
                shown=name,
                advice="keep (batch, …) tensors in the state; what all samples share is a float, or in the problem",
            )
    rows = torch.tensor([2, 0])
    few, left = problem.select(rows), select_state(state, rows)
    for _ in range(5):
        state, left = solver.step(problem, state), solver.step(few, left)
    if not close(left.code, state.code[rows], 1e-7):
        raise Broken(
            "after others left the batch, a sample goes on differently",
            shown=f"{name}, sample 2: {some(state.code[2])} instead of {some(left.code[0])}",
            advice="keep nothing of the batch on the solver itself: all of it in the state",
        )


@check("solver", says="the same problem gives the same code, whatever was solved before")
def solver_is_deterministic(case: SolverCase) -> None:
    solver = case.solver(max_iterations=7)
    name, problem = next(iter(case.problems(solver).items()))
    codes = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        codes.append(solve(problem, solver, problem.zeros(), certify=False).code)
    if not torch.equal(*codes):
        raise Broken(
            "two runs on the same problem differ",
            shown=f"{name}: {some(codes[0])}, then {some(codes[1])}",
            advice="keep nothing between two problems, and draw no numbers",
        )


@check("solver", says="float32 in, float32 out")
def solver_keeps_precision(case: SolverCase) -> None:
    solver = case.solver(max_iterations=5)
    tried = (problem_of({"l": L1()}, dtype=torch.float32), sparse_problem_of(dtype=torch.float32))
    problem = next((one for one in tried if solver.refuses(one) is None), None)
    if problem is None:
        raise NotApplicable("it refuses the problems that this is tried on")
    code = solve(problem, solver, problem.zeros(), certify=False).code
    if code.dtype != torch.float32:
        raise Broken(f"from float32 it makes {code.dtype}", advice="make tensors like the start: start.new_zeros(…)")


@check("solver", says="the gradient through the code, unrolled or implicit, is that of finite differences")
def gradient_through_the_code(case: SolverCase) -> None:
    case.solver()
    tried = [mode for mode in ("unroll", "implicit") if _takes(case, mode)]
    if not tried:
        raise NotApplicable("it offers no gradient through the code")
    for mode in tried:
        solver = case.solver(differentiate=mode, tolerance=1e-12, max_iterations=400)
        matrix = torch.randn(8, 4, generator=generator(1), dtype=torch.float64)
        matrix = nn.Parameter(matrix / matrix.norm(dim=0))
        weights = torch.randn(2, 4, generator=generator(2), dtype=torch.float64)

        def figure(d: Tensor, solver: Solver[Any] = solver, weights: Tensor = weights) -> Tensor:
            problem = problem_of({"l": L1(), "r": Ridge()}, inputs=8, units=4, samples=2, matrix=d)
            return (solve(problem, solver, problem.zeros(), certify=False).code * weights).sum()

        try:
            (gradient,) = torch.autograd.grad(figure(matrix), matrix)
        except InputError as error:
            raise NotApplicable(str(error)) from error
        direction = torch.randn(8, 4, generator=generator(4), dtype=torch.float64)
        with torch.no_grad():
            moved = [nn.Parameter(matrix + size * direction) for size in (1e-5, -1e-5)]
            measured = float(figure(moved[0]) - figure(moved[1])) / 2e-5
        exact = float((gradient * direction).sum())
        if abs(measured - exact) > 1e-3 * (1 + abs(measured)):
            raise Broken(
                f'differentiate = "{mode}" gives {exact:.6g} along a direction where the code moves by {measured:.6g}',
                shown="½‖x − Dz‖² + 0.1‖z‖₁ + 0.05‖z‖², gradient in D",
                advice="no in-place changes and no detached steps while problem.differentiable",
            )


def _takes(case: SolverCase, mode: str) -> bool:
    try:
        case.solver(differentiate=mode)
    except NotApplicable:
        return False
    return True
