"""``import groundstate``: everything is there, and nothing is imported before it is used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import groundstate


@pytest.mark.parametrize("name", groundstate.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(groundstate, name) is not None
    assert name in dir(groundstate)


def test_type_checkers_see_the_same_names() -> None:
    """The imports under TYPE_CHECKING, the table of modules and ``__all__`` agree."""
    tree = ast.parse(Path(groundstate.__file__).read_text(encoding="utf-8"))
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.name: node.module for node in guarded.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert {*seen, "__version__"} == set(groundstate.__all__)
    home = {name: f"groundstate.{module}" for name, module in groundstate._HOME.items()}
    assert {name: module for name, module in seen.items() if name != "structure"} == home
    assert list(groundstate.__all__) == sorted(groundstate.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Nonsense'"):
        groundstate.Nonsense  # noqa: B018


def test_importing_it_and_its_errors_is_cheap() -> None:
    code = (
        "import sys, groundstate; groundstate.InputError; groundstate.hookimpl; groundstate.__version__; "
        "print(*sorted({'torch', 'numpy', 'mlflow', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == ""
