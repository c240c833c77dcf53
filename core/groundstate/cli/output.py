"""Printing: tables for people, JSON for machines."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def console() -> Console:
    """Standard output; names and paths with brackets in them are never markup."""
    from rich.console import Console

    return Console(markup=False, highlight=False)


def table(*columns: str, numbers: tuple[str, ...] = ()) -> Table:
    """A table without lines between its cells; the columns in ``numbers`` stand to the right."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        made.add_column(name, justify="right" if name in numbers else "left", overflow="fold")
    return made


def print_json(value: Any) -> None:
    """Any plain value as JSON that every reader takes: infinity and NaN, which JSON has not, as null."""
    print(json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inside) for key, inside in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inside) for inside in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """To call with what is going on, done, of how many. A bar on a terminal, a line every ten seconds elsewhere; both
    on stderr.
    """
    from rich import progress as rich
    from rich.console import Console

    said = Console(stderr=True, highlight=False, soft_wrap=True)
    # Not Console.is_terminal: FORCE_COLOR makes that true of a log file.
    if said.file.isatty() and not said.is_dumb_terminal:
        bar = rich.Progress(
            rich.TextColumn("{task.description}"),
            rich.BarColumn(),
            rich.MofNCompleteColumn(),
            rich.TextColumn("{task.percentage:>3.0f} %"),
            rich.TimeRemainingColumn(),
            console=said,
            transient=True,
        )
        with bar:
            task = bar.add_task("")

            def move(what: str, done: int, of: int) -> None:
                bar.update(task, description=what, completed=done, total=of)

            yield move
        return
    due = time.monotonic() + 10

    def line(what: str, done: int, of: int) -> None:
        nonlocal due
        if time.monotonic() >= due:
            due = time.monotonic() + 10
            said.print(f"{what}: {done:,} of {of:,}", markup=False)

    yield line
