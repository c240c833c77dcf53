"""The built-in plugins: one folder per kind, one file per plugin, all named in ``registry.toml``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from groundstate.hooks import hookimpl

if TYPE_CHECKING:
    from groundstate.registry import Register


@hookimpl
def groundstate_register(register: Register) -> None:
    """Names the built-in plugins: the registry is beside this file in a wheel, two folders up in a checkout."""
    here = Path(__file__).resolve()
    shipped = here.with_name("registry.toml")
    register.toml(shipped if shipped.is_file() else here.parents[2] / "registry.toml")
