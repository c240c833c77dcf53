"""Printing: tables for people, JSON for machines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def console() -> Console:
    """Standard output; names and paths with brackets in them are never markup."""
    from rich.console import Console

    return Console(markup=False, highlight=False, soft_wrap=False)


def table(*columns: str, numbers: tuple[str, ...] = ()) -> Table:
    """A table without lines between its cells; the columns in ``numbers`` stand to the right."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        made.add_column(name, justify="right" if name in numbers else "left", overflow="fold")
    return made


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False, default=_plain))


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "_asdict"):
        return value._asdict()
    return list(value)
