"""Lasso codes on the Gram matrix, on the processor."""

from pathlib import Path
from typing import Any

from groundstate import hookimpl


@hookimpl
def groundstate_register(register: Any) -> None:
    """Names the plugins; groundstate imports them only when they are used."""
    register.toml(Path(__file__).with_name("registry.toml"))
