"""``groundstate runs``, ``reproduce`` and ``sync``: runs that are there already."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from groundstate.cli.output import console, print_json, table
from groundstate.errors import InputError, relative

app = typer.Typer(
    help="Runs that are there: a list, one, or two side by side.", no_args_is_help=True, rich_markup_mode=None
)

RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run's id or folder, or 'last'.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]
Folder = Annotated[Path, typer.Option("--folder", metavar="FOLDER", help="The folder of runs.")]


@app.command("list")
def list_runs(folder: Folder = Path("runs"), as_json: Json = False) -> None:
    """Every run, the newest last."""
    from groundstate import compare

    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; train something, or give --folder")
    found = compare.list_runs(folder)
    if as_json:
        print_json([one.record() for one in found])
        return
    rows = table("run", "status", "seconds", "figure", "metric", numbers=("seconds", "figure"))
    for whole in rows.columns[:4]:
        whole.no_wrap = True
    for one in found:
        seconds = "–" if one.seconds is None else f"{one.seconds:.1f}"
        figure = "–" if one.figure is None else f"{one.figure:.4g}"
        rows.add_row(one.id, one.status, seconds, figure, one.metric or one.problem or "–")
    console().print(rows)


@app.command("show")
def show_run(run: RunName, as_json: Json = False) -> None:
    """What one run is and what came out of it."""
    from groundstate import compare
    from groundstate.run import find_run

    folder = find_run(run)
    summary, record = compare.summarise(folder), compare.read_record(folder)
    metrics = compare.final_metrics(folder, record)
    if as_json:
        print_json({**record, "status": summary.status, "metrics": metrics, "folder": str(folder)})
        return
    git = record.get("git") or {}
    commit = f"{git['commit'][:12]}{' with uncommitted changes' if git['dirty'] else ''}" if git else None
    told = {
        "run": summary.id,
        "status": summary.status,
        "error": record.get("error"),
        "part of": summary.parent,
        "created": record.get("created"),
        "ended": record.get("ended"),
        "command": record.get("command"),
        "config": f"{summary.config_hash[:8]} ({relative(folder / 'config.toml')})",
        "data": f"{record['data']['fingerprint'][:8]}, {_samples(record['data']['samples'])}",
        "commit": commit,
        "versions": ", ".join(f"{name} {record['versions'].get(name)}" for name in ("python", "torch", "groundstate")),
        "machine": f"{record['host']['cpu']}, {record['host']['threads']} threads",
    }
    _two_columns({key: value for key, value in told.items() if value})
    print()
    _two_columns({name: f"{value:.6g}" for name, value in metrics.items()})


def _samples(samples: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in samples.items())


@app.command("diff")
def diff_runs(one: RunName, two: RunName, as_json: Json = False) -> None:
    """In what two runs differ: config, code, data, machine, figures."""
    from groundstate import compare
    from groundstate.run import find_run

    found = compare.diff_runs(find_run(one), find_run(two))
    if as_json:
        print_json(found.record())
        return
    rows = table("", one, two, "change", numbers=("change",))
    rows.columns[0].no_wrap = rows.columns[3].no_wrap = True
    for part, differing in vars(found).items():
        if not differing:
            rows.add_row(f"{part}: the same", "", "", "")
            continue
        rows.add_row(f"{part}:", "", "", "")
        for key, (first, second) in differing.items():
            rows.add_row(f"  {key}", _text(first), _text(second), _change(first, second))
    console().print(rows)


def _change(first: Any, second: Any) -> str:
    """By how much a number has become larger, relatively; nothing for what is no number."""
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (first, second))
    if not numbers or not first or not math.isfinite(second / first):
        return ""
    return f"{100 * (second - first) / abs(first):+.3g} %"


def reproduce(
    run: RunName,
    tolerance: Annotated[
        float, typer.Option(min=0, help="Relative difference of a figure that counts as agreement.")
    ] = 0.0,
    as_json: Json = False,
) -> None:
    """Run a run again from its stored config, and say whether the figures agree.

    Exit code 0 where they do, 1 where they do not.
    """
    from groundstate.reproduce import reproduce as run_again

    found = run_again(run)
    agrees = found.agrees(tolerance)
    if as_json:
        print_json({**found.record(), "agrees": agrees})
    elif found.identical:
        print(f"{found.second.name} is {found.first.name} again, bit for bit: every parameter and every figure")
    else:
        print(f"{found.second.name} {'agrees with' if agrees else 'differs from'} {found.first.name}:")
        rows = table("", found.first.name, found.second.name)
        for name, largest in found.parameters.items():
            rows.add_row(f"parameter {name}", "", f"differs by up to {largest:.3g}")
        for part in ("figures", "code", "machine"):
            for key, (first, second) in getattr(found.difference, part).items():
                rows.add_row(key, _text(first), _text(second))
        console().print(rows)
    if not agrees:
        raise typer.Exit(1)


def sync(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN]...", help="Ids or folders of runs and sweeps; by default all.", show_default=False
        ),
    ] = None,
    folder: Folder = Path("runs"),
    to: Annotated[
        str | None, typer.Option(metavar="STORE", help="Another store; only for what has not been begun elsewhere.")
    ] = None,
) -> None:
    """Deliver what the default tracker keeps and could not deliver yet.

    Exit code 1 where something is still left.
    """
    from groundstate.registry import Registry

    registry = Registry.discover(Path.cwd())
    entry = registry.default("tracker")
    if entry is None:
        raise InputError("no tracker is installed, so there is nothing to deliver")
    deliver = getattr(registry.load(entry), "sync", None)
    if deliver is None:
        raise InputError(f"{entry} delivers at once and keeps nothing")
    folders = [_kept(name, folder) for name in runs] if runs else _all(folder)
    complete = True
    told = False
    for place, done, text in deliver(folders, to):
        print(f"{relative(place)}: {text}", flush=True)
        complete, told = complete and done, True
    if not told:
        print("everything is delivered")
    if not complete:
        raise typer.Exit(1)


def _all(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; give runs, or --folder")
    return sorted(file.parent for pattern in ("*/run.json", "sweeps/*/sweep.json") for file in folder.glob(pattern))


def _kept(name: str, folder: Path) -> Path:
    from groundstate.run import find_run

    for place in (Path(name), folder / "sweeps" / name, folder / name):
        if any((place / record).is_file() for record in ("run.json", "sweep.json")):
            return place
    return find_run(name)


def _two_columns(values: Mapping[str, str]) -> None:
    rows = table("", "")
    rows.show_header = False
    for key, value in values.items():
        rows.add_row(key, value)
    console().print(rows)


def _text(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.6g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)
