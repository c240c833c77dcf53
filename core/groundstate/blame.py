"""Whose code raised: the plugin, its file and line, for errors that no one foresaw."""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType

from pydantic import BaseModel

from groundstate.config.load import plugin_tables
from groundstate.config.tables import PluginTable
from groundstate.errors import GroundstateError, PluginError, relative
from groundstate.registry import Entry


def explained(error: BaseException, config: BaseModel) -> str:
    """The error in one sentence; with the plugin of this config that raised it, its file and line, where one did."""
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    culprit = culprit_of(error, config)
    return said if culprit is None else f"{culprit} raised {said}"


def culprit_of(error: BaseException, config: BaseModel) -> str | None:
    """``regulariser 'hoyer' of <source> (<file>:<line>)``, of the deepest frame in a plugin's code; else None."""
    tables = list(plugin_tables(config))
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        entry = _owner(frame.f_code, tables)
        if entry is not None:
            return f"{entry} of {entry.source} ({relative(Path(frame.f_code.co_filename))}:{line})"
    return None


def _owner(code: CodeType, tables: list[PluginTable]) -> Entry | None:
    """The plugin that this code belongs to: its class, else its file, else an installed one's package."""
    here = [table for table in tables if inspect.getsourcefile(table.plugin) == code.co_filename]
    for table in here:
        if code.co_qualname.startswith(f"{table.plugin.__qualname__}."):
            return table.entry
    if here:
        return here[0].entry
    # The built-in plugins share a package, so that their files alone tell them apart.
    installed = (table for table in tables if table.entry.source.kind == "distribution")
    inside = Path(code.co_filename).parents
    return next((table.entry for table in installed if _package(table.plugin) in inside), None)


def _package(plugin: type) -> Path | None:
    """The folder of the top package of a plugin's class; None for a module on its own."""
    top = sys.modules.get(plugin.__module__.partition(".")[0])
    file = getattr(top, "__file__", None)
    return Path(file).parent if file is not None and Path(file).name == "__init__.py" else None


@contextmanager
def blamed(config: BaseModel, doing: str) -> Iterator[None]:
    """Turns what a plugin of this config raises unforeseen into a PluginError that names it."""
    try:
        yield
    except GroundstateError:
        raise
    except Exception as error:
        culprit = culprit_of(error, config)
        if culprit is None:
            raise
        raise PluginError(f"{culprit} failed while {doing}: {type(error).__name__}: {error}") from error
