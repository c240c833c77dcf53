"""The processor, with compiled kernels for the problems whose form is known."""

from __future__ import annotations

import sys
import warnings
from contextlib import suppress
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import numpy as np
from torch import nn

from groundstate.components import Availability
from groundstate.inference import Kernel
from groundstate.structure import ProblemStructure
from groundstate_plugins.backends import native
from groundstate_plugins.backends.cpu import Cpu

MISSING = "numba is not installed, so the generic solver runs; pip install 'groundstate[native]' brings the kernels"


class CpuNative(Cpu):
    """The ``cpu`` backend with kernels, compiled by numba and kept on disk, that run on as many threads.

    A kernel takes the place of solvers that are content with any minimiser (``auto``). Where none knows the energy's
    form, or numba is missing, the generic solver runs.
    """

    @classmethod
    def available(cls) -> Availability:
        on = Cpu.available().reason
        return Availability(True, f"{on}; kernels for {', '.join(native.FORMS)}" if installed() else f"{on}; {MISSING}")

    def prepare(self, module: nn.Module) -> nn.Module:
        """As ``cpu`` does; warns where there are no kernels."""
        if not installed():
            warnings.warn(f"backend cpu-native: {MISSING}", stacklevel=2)
        return super().prepare(module)

    def kernel(self, structure: ProblemStructure) -> Kernel | None:
        if not installed():
            return None
        _import_blas()
        return native.kernel(structure)


UNUSED = ("f2py", "testing")
"""Submodules of numpy that a start would import for nothing: a compiler's front end, and what tests need."""


@cache
def _import_blas() -> None:
    """Import what numba finds BLAS in, without a quarter of its time.

    scipy.linalg looks at every name in numpy, and numpy imports its submodules at the look.
    """
    absent = [name for name in UNUSED if f"numpy.{name}" not in sys.modules]
    names = vars(np)
    for name in absent:
        names[name] = ModuleType(f"numpy.{name}")
    try:
        with suppress(ImportError):  # numba does without
            import_module("scipy.linalg.cython_blas")
    finally:
        for name in absent:
            found = sys.modules.get(f"numpy.{name}")
            if found is None:
                del names[name]
            else:
                names[name] = found


def installed() -> bool:
    """Whether numba can be imported."""
    return find_spec("numba") is not None
