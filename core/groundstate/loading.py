"""Importing one plugin: a failure names the plugin, its file and the line, and stops nothing else."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from groundstate.errors import PluginError, relative
from groundstate.pinning import locked, require_pinned

if TYPE_CHECKING:
    from groundstate.components import Plugin
    from groundstate.registry import Entry


LOADED: dict[type, Entry] = {}
"""Which entry each class was imported for: a saved model writes it down."""


def load_class(entry: Entry) -> type[Plugin]:
    """Import the class that an entry names, and check that it keeps its kind's contract."""
    from groundstate.contract import class_faults

    module_name, _, class_name = entry.path.partition(":")
    try:
        module = _import(entry, module_name)
    except PluginError:
        raise
    except Exception as error:
        raise PluginError(_failure(entry, module_name, error)) from error
    cls: type[Plugin] | None = getattr(module, class_name, None)
    where = relative(Path(module.__file__)) if module.__file__ else module_name
    if cls is None:
        raise PluginError(f"{entry} ({where}): the module defines no '{class_name}'")
    faults = class_faults(cls, entry.kind)
    if faults:
        raise PluginError(f"{entry} ({where}, {class_name}): " + "; ".join(faults))
    LOADED[cls] = entry
    return cls


def names_class(entry: Entry, cls: type) -> bool:
    """Whether this class is the one that an entry's path names."""
    if cls in LOADED:
        return LOADED[cls] == entry
    return entry.source.kind != "local" and entry.path == f"{cls.__module__}:{cls.__qualname__}"


def local_file(entry: Entry, module_name: str) -> Path | None:
    """The module's file beside a local registry.toml, where it exists."""
    if entry.source.kind != "local" or entry.source.file is None:
        return None
    stem = entry.source.file.parent.joinpath(*module_name.split("."))
    candidates = (stem.with_name(f"{stem.name}.py"), stem / "__init__.py")
    return next((file for file in candidates if file.is_file()), None)


def _import(entry: Entry, module_name: str) -> ModuleType:
    file = local_file(entry, module_name)
    if file is not None:
        assert entry.source.file is not None
        content = file.read_bytes()
        if locked():
            require_pinned(entry.source.file, file, content)
        return import_file(file, content)
    if entry.source.kind == "local" and importlib.util.find_spec(module_name.partition(".")[0]) is None:
        assert entry.source.file is not None
        missing = relative(entry.source.file.parent.joinpath(*module_name.split(".")))
        raise PluginError(f"{entry} in {entry.source}: there is neither {missing}.py nor a module '{module_name}'")
    return importlib.import_module(module_name)


def import_file(file: Path, content: bytes | None = None) -> ModuleType:
    """Import a file under a private name made from its path and content.

    The same file gives the same classes, an edited one new classes, and no name can hide an installed module.
    """
    content = file.read_bytes() if content is None else content
    digest = hashlib.sha256(str(file).encode() + b"\0" + content).hexdigest()[:12]
    name = f"_groundstate_local_{file.stem}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        # Not the loader's exec_module: its bytecode cache would miss an edit within a clock tick.
        exec(compile(content, str(file), "exec", dont_inherit=True), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _failure(entry: Entry, module_name: str, error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name and f"{module_name}.".startswith(f"{error.name}."):
        return f"{entry} of {entry.source}: there is no module '{error.name}' (its path is {entry.path})"
    place = _place(error, module_name)
    return f"{entry} ({place or entry.source}) cannot be imported: {type(error).__name__}: {error}"


def _place(error: Exception, module_name: str) -> str | None:
    """``file:line`` of the deepest frame in the plugin's own file, else of the deepest frame there is."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{relative(Path(error.filename))}:{error.lineno}"
    own = "/".join(module_name.split(".")) + ".py"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _machinery(frame.filename)]
    mine = [frame for frame in frames if Path(frame.filename).as_posix().endswith(own)]
    found = mine or frames
    return f"{relative(Path(found[-1].filename))}:{found[-1].lineno}" if found else None


def _machinery(filename: str) -> bool:
    return filename.startswith("<frozen importlib") or filename in (__file__, importlib.__file__)
