"""``groundstate plugins new``, ``test`` and ``pin``: for those who write plugins."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from groundstate.cli import plugins
from groundstate.cli.output import console, print_json, table
from groundstate.errors import InputError, relative
from groundstate.registry import KINDS

if TYPE_CHECKING:
    from groundstate.testing import Result, Target

app = plugins.app
SIGNS = {"passed": "passed", "failed": "FAILED", "skipped": "–"}


@app.command("new")
def write_plugin(
    kind: Annotated[str, typer.Argument(metavar="KIND", help=f"One of {', '.join(KINDS)}.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name in a config, e.g. smooth-l1.")],
    package: Annotated[
        bool, typer.Option("--package", help="A distribution of its own, to install and publish.")
    ] = False,
    folder: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where to write it; by default where you are.")
    ] = Path(),
) -> None:
    """Write a working plugin of a kind, its test, and the lines that name it."""
    from groundstate.scaffold import new_plugin

    for path in new_plugin(kind, name, folder, package=package):
        print(relative(path.absolute()))
    if package:
        print(f"next: pip install -e {relative((folder / f'groundstate-{name}').absolute())}, then pytest there")
    else:
        print(f"next: groundstate plugins test {name}")


@app.command("test")
def examine_plugin(
    what: Annotated[str, typer.Argument(metavar="NAME|PATH", help="A plugin's name, its .py file, or its folder.")],
    fields: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FIELD=VALUE]...", help="Fields to make it with, e.g. units=16.", show_default=False),
    ] = None,
    kind: Annotated[str | None, typer.Option(help="Only of this kind, where several have the name.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
) -> None:
    """Check that a plugin does what its kind has to; each failure with the input that shows it."""
    from groundstate.testing import examine, find

    given = dict(_field(word) for word in fields) if fields else None
    failed = False
    records: list[dict[str, Any]] = []
    for target in find(what, kind=kind):
        results = [] if target.cls is None else examine(target.cls, target.kind, name=target.name, fields=given)
        failed |= target.cls is None or any(result.status == "failed" for result in results)
        if as_json:
            records.append(_record(target, results))
        else:
            _print(target, results)
    if as_json:
        print_json(records)
    if failed:
        raise typer.Exit(1)


@app.command("pin")
def pin_plugins(
    folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="By default where you are.")] = Path(),
) -> None:
    """Record what local plugins are now; with --locked, others are refused."""
    from groundstate.pinning import pin

    pinned = pin(folder)
    for file in pinned.files:
        print(relative(file))
    for module in pinned.missing:
        print(f"not a file of this folder, not pinned: {module}")
    print(f"pinned in {relative(pinned.lock)}")


def _field(word: str) -> tuple[str, Any]:
    """``name=value`` with a TOML value; a bare word is text."""
    name, equals, text = word.partition("=")
    if not equals:
        raise InputError(f"'{word}' is no FIELD=VALUE")
    try:
        return name, tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return name, text


def _record(target: Target, results: list[Result]) -> dict[str, Any]:
    return {
        "kind": target.kind,
        "name": target.name,
        "error": target.error,
        "checks": [
            {
                "name": one.check.name,
                "says": one.check.says,
                "status": one.status,
                "message": one.message,
                "shown": one.shown,
                "advice": one.advice,
            }
            for one in results
        ],
    }


def _print(target: Target, results: list[Result]) -> None:
    print(target)
    if target.cls is None:
        print(f"  {target.error}")
        return
    rows = table("check", "", "what it makes sure of")
    for result in results:
        said = result.check.says if result.status != "skipped" else f"{result.check.says} (skipped: {result.message})"
        rows.add_row(result.check.name, SIGNS[result.status], said)
    console().print(rows)
    failures = [result for result in results if result.status == "failed"]
    for result in failures:
        print(f"\nFAILED {result}")
    counts = ", ".join(
        f"{count} {status}"
        for status in ("passed", "failed", "skipped")
        if (count := sum(one.status == status for one in results))
    )
    print(f"\n{counts}")
