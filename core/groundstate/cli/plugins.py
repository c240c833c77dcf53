"""``groundstate plugins``: what can be named in a config."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from groundstate.cli.output import print_json
from groundstate.errors import InputError, nearest
from groundstate.glance import glance
from groundstate.registry import KINDS, SYSTEM, Entry, Registry

app = typer.Typer(help="What a config may name.", no_args_is_help=True, rich_markup_mode=None)

Folder = Annotated[
    Path, typer.Option("--folder", metavar="FOLDER", help="Look for local plugins here; by default where you are.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]


@app.command("list")
def list_plugins(
    kind: Annotated[str | None, typer.Argument(metavar="[KIND]", help="Only of this kind.", show_default=False)] = None,
    folder: Folder = Path(),
    as_json: Json = False,
) -> None:
    """Every plugin and published system found, by kind, with where it comes from."""
    registry = Registry.discover(folder)
    kinds = (*KINDS, SYSTEM)
    if kind is not None and kind not in kinds:
        raise InputError(f"'{kind}' is not a kind of plugin; {nearest(kind, kinds)}")
    entries = [glance(entry) for entry in registry.entries(*(kinds if kind is None else (kind,)))]
    if as_json:
        found = [record(entry) for entry in entries]
        print_json({"plugins": found, "problems": [str(one) for one in registry.problems]})
        return
    _print_entries(entries)
    for problem in registry.problems:
        print(f"not readable: {problem}")


def _print_entries(entries: list[Entry]) -> None:
    # Plain lines: rich takes longer to import than all the rest.
    width = max((len(entry.name) for entry in entries), default=0)
    last = ""
    for entry in entries:
        if entry.kind != last:
            print(f"{entry.kind}")
            last = entry.kind
        words = entry.summary
        if entry.broken is not None:
            words = f"BROKEN: {entry.broken}"
        elif entry.source.kind != "built-in":
            words += f" (from {entry.source})"
        print(f"  {entry.name:{width}}  {words}{' (default)' if entry.default else ''}")


def record(entry: Entry) -> dict[str, Any]:
    """An entry as plain values."""
    return {
        "kind": entry.kind,
        "name": entry.name,
        "summary": entry.summary,
        "path": entry.path,
        "source": str(entry.source),
        "default": entry.default,
        "broken": entry.broken,
    }


@app.command("show")
def show_plugin(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name in a config's type.")],
    kind: Annotated[str | None, typer.Option(help="Only of this kind, where several have the name.")] = None,
    folder: Folder = Path(),
    as_json: Json = False,
) -> None:
    """What a plugin does, its options, and a table to paste into a config."""
    registry = Registry.discover(folder)
    kinds = (*KINDS, SYSTEM) if kind is None else (kind,)
    found = [entry for entry in registry.entries(*kinds) if entry.name == name]
    if not found:
        registry.get(kinds, name)
    from groundstate.cli.described import describe, print_description

    if as_json:
        print_json([{**record(entry), **describe(entry, registry)} for entry in found])
        return
    for number, entry in enumerate(found):
        if number:
            print()
        print_description(entry, registry)
