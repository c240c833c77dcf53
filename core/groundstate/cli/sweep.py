"""``groundstate sweep``: many runs over a range of configs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from groundstate.cli.output import console, print_json, table
from groundstate.errors import relative

if TYPE_CHECKING:
    from groundstate.sweep import Sweep

SHOWN = 20
"""So many trials are printed; the others are in the sweep's folder."""


def sweep(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="A config, with a [sweep] table or without.", show_default=False)
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Changes to every trial's config.", show_default=False),
    ] = None,
    over: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUES",
            help="Search this key too: a list [1, 2] or a range {low = 1e-3, high = 1, log = true}.",
        ),
    ] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="How many.")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Trials at a time.")] = None,
    metric: Annotated[str | None, typer.Option(help="What decides, e.g. validation/energy.")] = None,
    mode: Annotated[str | None, typer.Option(help="Which values are better: min or max.")] = None,
    sampler: Annotated[str | None, typer.Option(help="How values are chosen: tpe, random or grid.")] = None,
    pruner: Annotated[str | None, typer.Option(help="What ends trials early: none, median or hyperband.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the choice of values.")] = None,
    storage: Annotated[
        str | None, typer.Option(metavar="URL", help="A database that several machines use for one sweep.")
    ] = None,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="Go on with trials that another machine began and left.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
) -> None:
    """Search for the best values of any keys of a config.

    The same command goes on with a sweep that was cut short.
    """
    from groundstate.sweep import sweep as run_sweep

    options = {
        "trials": trials,
        "jobs": jobs,
        "metric": metric,
        "mode": mode,
        "sampler": sampler,
        "pruner": pruner,
        "seed": seed,
        "storage": storage,
    }
    done = run_sweep(
        config,
        overrides or [],
        settings={name: value for name, value in options.items() if value is not None},
        over=over or [],
        take_over=take_over,
        tell=lambda text: print(text, file=sys.stderr, flush=True),
    )
    if as_json:
        print_json({"folder": str(done.folder), **done.record, **_outcome(done)})
    else:
        _show(done)


def _outcome(done: Sweep) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((done.folder / "trials.json").read_text(encoding="utf-8"))
    return {"importances": found["importances"], "table": found["trials"]}


def _show(done: Sweep) -> None:
    outcome = _outcome(done)
    keys = list(done.record["search"]["over"])
    rows = table("trial", "state", done.record["search"]["metric"], *keys, "run", numbers=("trial",))
    rows.columns[-1].no_wrap = True  # its name is what `runs show` takes
    for one in outcome["table"][:SHOWN]:
        value = "–" if one["value"] is None else f"{one['value']:.4g}"
        values = [_text(one["values"].get(key)) for key in keys]
        rows.add_row(str(one["trial"]), one["state"], value, *values, one["run"] or "–")
    shown = console()
    shown.print(rows)
    if (rest := len(outcome["table"]) - SHOWN) > 0:
        print(f"… and {rest} more")
    if outcome["importances"]:
        shares = (f"{key} {100 * share:.0f} %" for key, share in outcome["importances"].items())
        print(f"importance: {', '.join(shares)}")
    print(f"best: trial {done.record['best']['trial']}, {relative(done.folder / 'best.toml')}")
    print(f"table and pictures: {relative(done.folder)}")


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)
