"""groundstate: compose energies, infer codes, learn features.

A model is an energy; its features are the codes of lowest energy. Everything here is imported when it is
first used, so that ``import groundstate`` and the command line answer without waiting for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from groundstate import structure
    from groundstate.api import infer, load
    from groundstate.components import (
        Availability,
        Backend,
        Callback,
        Code,
        ConfigPath,
        Context,
        Data,
        Decoder,
        Encoder,
        Format,
        Learner,
        Memory,
        Reconstruction,
        Regulariser,
        Solver,
        State,
        Task,
        Term,
        Tracker,
        Transform,
    )
    from groundstate.config import load_config
    from groundstate.data import (
        Batch,
        DataInfo,
        Source,
        Splits,
        TensorSource,
        fingerprint,
        require_usable,
        split_rows,
    )
    from groundstate.errors import InputError
    from groundstate.formats import Reader, Writer
    from groundstate.hooks import Section, hookimpl
    from groundstate.inference import Solution, Solved
    from groundstate.model import Model
    from groundstate.parameters import Constraint, NonNegative, NormBound
    from groundstate.problem import Certificate, Problem, soft_threshold
    from groundstate.pruning import prune
    from groundstate.restoration import Restored, restore
    from groundstate.run import train

    __version__: str

__all__ = [
    "Availability",
    "Backend",
    "Batch",
    "Callback",
    "Certificate",
    "Code",
    "ConfigPath",
    "Constraint",
    "Context",
    "Data",
    "DataInfo",
    "Decoder",
    "Encoder",
    "Format",
    "InputError",
    "Learner",
    "Memory",
    "Model",
    "NonNegative",
    "NormBound",
    "Problem",
    "Reader",
    "Reconstruction",
    "Regulariser",
    "Restored",
    "Section",
    "Solution",
    "Solved",
    "Solver",
    "Source",
    "Splits",
    "State",
    "Task",
    "TensorSource",
    "Term",
    "Tracker",
    "Transform",
    "Writer",
    "__version__",
    "fingerprint",
    "hookimpl",
    "infer",
    "load",
    "load_config",
    "prune",
    "require_usable",
    "restore",
    "soft_threshold",
    "split_rows",
    "structure",
    "train",
]

_MODULES = {
    "api": ("infer", "load"),
    "components": (
        "Availability",
        "Backend",
        "Callback",
        "Code",
        "ConfigPath",
        "Context",
        "Data",
        "Decoder",
        "Encoder",
        "Format",
        "Learner",
        "Memory",
        "Reconstruction",
        "Regulariser",
        "Solver",
        "State",
        "Task",
        "Term",
        "Tracker",
        "Transform",
    ),
    "config": ("load_config",),
    "data": (
        "Batch",
        "DataInfo",
        "Source",
        "Splits",
        "TensorSource",
        "fingerprint",
        "require_usable",
        "split_rows",
    ),
    "errors": ("InputError",),
    "formats": ("Reader", "Writer"),
    "hooks": ("Section", "hookimpl"),
    "inference": ("Solution", "Solved"),
    "model": ("Model",),
    "parameters": ("Constraint", "NonNegative", "NormBound"),
    "problem": ("Certificate", "Problem", "soft_threshold"),
    "pruning": ("prune",),
    "restoration": ("Restored", "restore"),
    "run": ("train",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("groundstate")
    elif name == "structure":
        return import_module("groundstate.structure")
    elif name in _HOME:
        value = getattr(import_module(f"groundstate.{_HOME[name]}"), name)
    else:
        raise AttributeError(f"module 'groundstate' has no attribute '{name}'")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
