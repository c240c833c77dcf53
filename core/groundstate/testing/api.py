"""What of groundstate is public, and whether a plugin keeps to it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from groundstate.errors import relative

PUBLIC_MODULES = ("groundstate", "groundstate.structure", "groundstate.testing")
"""What these export does not change without a new version of the plugin contract; anything else may."""


def private_imports(folder: Path) -> list[str]:
    """Every import in a folder's Python files of something of groundstate that is not public, with file and line."""
    return [
        f"{relative(file.absolute())}:{line} imports {name}"
        for file in sorted(folder.rglob("*.py"))
        for name, line in _imported(ast.parse(file.read_text(encoding="utf-8")))
        if not is_public(name)
    ]


def is_public(name: str) -> bool:
    """Whether a dotted name is public; names outside of groundstate are."""
    top = name.partition(".")[0]
    if top == "groundstate_plugins":
        return False  # a built-in plugin is no base to build on
    if top != "groundstate" or name in PUBLIC_MODULES:
        return True
    module, _, last = name.rpartition(".")
    return module in PUBLIC_MODULES and last in _exported(module)


def _exported(module: str) -> set[str]:
    found = import_module(module)
    names = getattr(found, "__all__", None)
    if names is None:
        names = [name for name, value in vars(found).items() if getattr(value, "__module__", None) == module]
    return set(names)


def _imported(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Dotted names that are imported, and those that are reached through ``groundstate`` itself."""
    aliases: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
                aliases[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else (alias.name.partition(".")[0])
                )
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            owner = aliases.get(node.value.id)
            if owner is not None and owner in PUBLIC_MODULES:
                yield f"{owner}.{node.attr}", node.lineno
