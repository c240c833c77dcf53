"""``prune``: a smaller run out of a trained one."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated

import typer

from groundstate.cli.output import print_json
from groundstate.errors import relative


def prune(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's id or folder, or 'last'; it stays as it is.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Changes, e.g. phases.refine.epochs=4 to train what is left.",
            show_default=False,
        ),
    ] = None,
    keep: Annotated[int | None, typer.Option(metavar="N", help="So many units stay, the most used ones.")] = None,
    least_used: Annotated[int | None, typer.Option(metavar="N", help="So many units go, the least used ones.")] = None,
    rarer_than: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Units go that a smaller share of the codes uses.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
) -> None:
    """Take rarely used units out of a run: a new, smaller run goes on from there.

    Parameters, learned inhibition, the optimiser's state and the config shrink.
    """
    from groundstate.pruning import Pruned
    from groundstate.pruning import prune as prune_run

    left = prune_run(run, overrides or [], keep=keep, least_used=least_used, rarer_than=rarer_than)
    cut = Pruned(**{field.name: left.record["pruned"][field.name] for field in fields(Pruned)})
    energy = left.metrics.get(left.metric(f"{cut.part}/energy"))
    if as_json:
        print_json({"id": left.id, "folder": left.folder, "pruned": left.record["pruned"], "metrics": left.metrics})
        return
    print(f"units: {cut.units[0]:,} → {cut.units[1]:,}")
    print(f"parameters: {cut.parameters[0]:,} → {cut.parameters[1]:,}")
    print(f"{cut.part} energy: {cut.energy[0]:.4g}, {cut.energy[1]:.4g} without them, {energy:.4g} at the end")
    print(f"run: {relative(left.folder)}")
