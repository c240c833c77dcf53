"""``encode``: its options, its progress and what it says at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from groundstate.cli.output import print_json, progress_bar
from groundstate.errors import InputError, relative


def encode(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A run's id or folder, a model's folder, or a tracker's URI.")
    ],
    inputs: Annotated[
        list[Path], typer.Argument(metavar="INPUT...", help="Files, folders or patterns like 'x-*.npy', of one format.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A file, by its suffix, or a folder of shards; default INPUT-codes.npy."),
    ] = None,
    read: Annotated[
        list[str] | None, typer.Option("--read", metavar="KEY=VALUE", help="Option of the inputs' format, or its type.")
    ] = None,
    write: Annotated[
        list[str] | None, typer.Option("--write", metavar="KEY=VALUE", help="Option of the codes' format, or its type.")
    ] = None,
    backend: Annotated[
        str | None, typer.Option(metavar="NAME", help="Where to compute, instead of where the model was trained.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Inputs that are solved together.")] = 1000,
    shard_rows: Annotated[
        int | None, typer.Option(min=1, help="Codes in one shard; by default 64 MiB of dense ones.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
) -> None:
    """Write the codes of any number of inputs.

    Memory does not grow with their number. A folder of shards is gone on with after an interruption: give the same
    command again.
    """
    from groundstate.api import load
    from groundstate.encode import encode as encode_inputs
    from groundstate.errors import Interrupted
    from groundstate.formats import Formats
    from groundstate.processes import Processes
    from groundstate.stack import Stack

    if output is None:
        if len(inputs) > 1:
            raise InputError("several inputs: say where their codes go with --output")
        output = inputs[0].with_name(f"{inputs[0].stem}-codes.npy")
    formats = Formats(_options(read, "--read"), _options(write, "--write"))
    trained = load(model, backend=backend)
    first = Processes((trained.top.model if isinstance(trained, Stack) else trained).backend).first
    try:
        with progress_bar() as bar:
            done = encode_inputs(
                trained,
                inputs,
                output,
                formats=formats,
                batch_size=batch_size,
                shard_rows=shard_rows,
                progress=(lambda done, of: bar("encoding", done, of)) if first else None,
            )
    except KeyboardInterrupt:
        kept = "the same command goes on after the last whole shard" if output.is_dir() else "nothing was kept"
        raise Interrupted(f"interrupted; {kept}") from None
    if not first:
        return
    speed = (done.shape[0] - done.kept) / max(done.seconds, 1e-9)
    if as_json:
        print_json(
            {
                "output": done.output,
                "shape": done.shape,
                "shards": done.shards,
                "kept": done.kept,
                "seconds": done.seconds,
                "samples_per_second": speed,
            }
        )
    else:
        shards = f" in {done.shards:,} shards" if output.is_dir() else ""
        kept = f", {done.kept:,} of them there before" if done.kept else ""
        print(f"{relative(output)}: {' × '.join(map(str, done.shape))}{shards}{kept}")


def _options(words: list[str] | None, option: str) -> dict[str, Any]:
    from groundstate.config.layers import read_overrides

    try:
        return read_overrides(words or []).values
    except InputError as error:
        raise InputError(f"{option}: {error.faults[0].message}") from error
