"""What can be seen of a plugin without importing it: whether its file is there, can be parsed and has its class."""

from __future__ import annotations

import ast
import importlib.util
from dataclasses import replace
from pathlib import Path

from groundstate.errors import relative
from groundstate.loading import local_file
from groundstate.registry import KINDS, Entry


def glance(entry: Entry) -> Entry:
    """The entry, broken with the reason where importing it is bound to fail."""
    if entry.broken is not None or entry.kind not in KINDS or entry.source.kind == "built-in":
        return entry
    fault = _fault(entry)
    return entry if fault is None else replace(entry, broken=fault)


def _fault(entry: Entry) -> str | None:
    module, _, name = entry.path.partition(":")
    file = local_file(entry, module) or _installed_file(module)
    if file is None:
        return f"there is no module '{module}'"
    if file.suffix != ".py":
        return None  # compiled: only importing it would tell
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        return f"{relative(file)}{f':{line}' if line else ''} cannot be parsed: {getattr(error, 'msg', error)}"
    except OSError as error:
        return f"{relative(file)} cannot be read: {error.strerror}"
    names = _names(tree)
    if name not in names and not {"*", "__getattr__"} & names:
        return f"{relative(file)} defines no '{name}'"
    return None


def _installed_file(module: str) -> Path | None:
    """The file of an installed module; only its top package is looked up, and nothing is imported."""
    top, *inner = module.split(".")
    try:
        found = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if found is None:
        return None
    if not inner:
        return Path(found.origin) if found.origin is not None else None
    for folder in found.submodule_search_locations or ():
        stem = Path(folder).joinpath(*inner)
        matches = [stem.with_name(f"{stem.name}.py"), stem / "__init__.py", *stem.parent.glob(f"{stem.name}.*.so")]
        file = next((one for one in matches if one.is_file()), None)
        if file is not None:
            return file
    return None


def _names(tree: ast.Module) -> set[str]:
    """What a module may define: every class, function, import and variable in it."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names
