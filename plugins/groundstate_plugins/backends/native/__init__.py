"""Compiled kernels, one module for each family of penalties; numba is imported when the first one is asked for.

A module has ``takes(structure) -> bool``, and ``solve(structure, problem, start, config) -> Solved``.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from torch import Tensor

from groundstate.components import Solver
from groundstate.inference import Kernel, Solved
from groundstate.problem import Problem
from groundstate.structure import L0, L1, Cardinality, Groups, Inhibition, ProblemStructure, Ridge, Structure, Tree

FAMILIES: Mapping[type[Structure], tuple[str, ...]] = {
    L0: ("pursuit",),
    L1: ("lasso",),
    Groups: ("groups", "overlapping"),
    Tree: ("tree",),
    Inhibition: ("inhibition",),
    Cardinality: ("cardinality",),
}
"""By the type of the penalties (of one type, beside a ridge): the modules that may take the problem, asked in turn."""

FORMS = ("l1", "l0", "cardinality", "groups", "tree-group", "lateral-inhibition", "tree-inhibition")
"""What there are kernels for, in the words of a config."""


@dataclass(frozen=True)
class NativeKernel:
    """One family's solver, for one structure."""

    name: str
    module: Any
    structure: ProblemStructure

    def __call__(self, problem: Problem, start: Tensor, config: Solver.Config) -> Solved:
        with _uncollected():  # the first call loads
            solved: Solved = self.module.solve(self.structure, problem, start, config)
        return solved


@contextmanager
def _uncollected() -> Iterator[None]:
    """No search for cycles: numba makes many objects that stay, and a fifth of its start would go there."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def kernel(structure: ProblemStructure) -> Kernel | None:
    """The kernel that knows every penalty of this structure, or None."""
    kinds = {type(penalty) for penalty in structure.penalties} - {Ridge}
    if len(kinds) != 1 or not structure.data.weight:
        return None
    for name in FAMILIES.get(kinds.pop(), ()):
        with _uncollected():
            module = import_module(f"groundstate_plugins.backends.native.{name}")
        if module.takes(structure):
            return NativeKernel(f"native {name}", module, structure)
    return None
