"""``groundstate bench``: which solver and backend suit a config."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from groundstate.cli.output import console, print_json, table

if TYPE_CHECKING:
    from groundstate.benchmark import Comparison


def bench(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="A config file (TOML), or groundstate:NAME.", show_default=False)
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Changes, e.g. energy.sparsity.weight=0.1", show_default=False),
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Take the parameters of this run or model.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Held-out inputs to encode.")] = 1000,
    repeats: Annotated[int, typer.Option(min=1, help="Times that each is run.")] = 5,
    tolerance: Annotated[
        float | None, typer.Option(min=0, help="Relative certificate to reach; the config's by default.")
    ] = None,
    max_iterations: Annotated[int | None, typer.Option(min=1, help="Of every solver; the config's by default.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
) -> None:
    """Time every solver and backend on a config's own inference problem.

    Each finds the codes of the same held-out inputs; the best are those whose certificate reaches the tolerance on
    the most of them, the fastest first.
    """
    from rich.console import Console

    from groundstate.api import find_model
    from groundstate.benchmark import compare_solvers
    from groundstate.config import load_config
    from groundstate.model import Model

    with Console(stderr=True).status("loading") as status:
        found = compare_solvers(
            load_config(config, overrides or []),
            samples=samples,
            repeats=repeats,
            tolerance=tolerance,
            max_iterations=max_iterations,
            trained=Model.load(find_model(model)) if model is not None else None,
            follow=status.update,
        )
    if as_json:
        print_json(found.record())
    else:
        _show(found)


def _show(found: Comparison) -> None:
    out = console()
    kind = found.timings[0].certificate_kind
    numbers = ("µs/sample", "steps", "reached", "worst", "energy")
    rows = table("solver", "backend", "kernel", *numbers, numbers=numbers)
    for one in found.timings:
        rows.add_row(
            one.solver,
            one.backend,
            one.kernel or "",
            f"{1e6 * one.seconds / found.samples:,.1f}",
            f"{one.iterations:,.0f}",
            f"{one.reached:.1%}",
            f"{one.certificate:.1e}",
            f"{one.energy:.6g}",
        )
    out.print(rows)
    out.print(
        f"{found.samples:,} held-out inputs, {found.threads} threads. Reached: the relative {kind}, in float64, is at "
        f"most {found.tolerance:g}; worst: of all samples"
    )
    for name, why in found.left_out.items():
        out.print(f"left out: {name}: {why}")
