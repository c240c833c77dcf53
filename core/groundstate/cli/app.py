"""The commands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from groundstate.cli import INTERRUPTED, authoring, bench, encoding, pruning, restoring, runs, sweep
from groundstate.cli.output import console, print_json
from groundstate.errors import InputError, relative

if TYPE_CHECKING:
    from groundstate.config import LoadedConfig
    from groundstate.data import Splits
    from groundstate.stack import Stack


class Commands(TyperGroup):
    """Ends with 130 where a person interrupts, whatever ran."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise SystemExit(INTERRUPTED) from None


app = typer.Typer(
    cls=Commands,
    help="Compose energies, infer codes, learn features.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(authoring.app, name="plugins")
app.add_typer(runs.app, name="runs")
app.command("sweep")(sweep.sweep)
app.command("bench")(bench.bench)
app.command("encode")(encoding.encode)
app.command("restore")(restoring.restore)
app.command("prune")(pruning.prune)
app.command("reproduce")(runs.reproduce)
app.command("sync")(runs.sync)

Config = Annotated[
    Path, typer.Argument(metavar="CONFIG", help="A config file (TOML), or groundstate:NAME.", show_default=False)
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Changes, e.g. energy.sparsity.weight=0.1", show_default=False),
]


def _lock(wanted: bool) -> None:
    from groundstate.pinning import lock

    lock(wanted)


Locked = Annotated[
    bool, typer.Option("--locked", callback=_lock, help="Refuse local plugins that are not pinned, or have changed.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]
ModelName = Annotated[
    str, typer.Argument(metavar="MODEL", help="A run's id or folder, a model's folder, or a tracker's URI.")
]


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"groundstate {version('groundstate')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
    locked: Locked = False,
) -> None:
    pass


@app.command()
def train(
    config: Config,
    overrides: Overrides = None,
    resume: Annotated[
        str | None,
        typer.Option(metavar="[RUN]", help="Go on with a run of this config (its id or folder); alone: the last one."),
    ] = None,
    allow_changes: Annotated[
        bool, typer.Option("--allow-changes", help="Go on with a run although its config has changed since.")
    ] = False,
    as_json: Json = False,
    tracking: Annotated[bool, typer.Option("--tracking/--no-tracking", help="Whether a tracker records it.")] = True,
    locked: Locked = False,
) -> None:
    """Train what a config describes."""
    from groundstate.run import train as train_run

    words = [*(overrides or ()), *(() if tracking else ("tracking=false",))]
    run = train_run(_load(config, words), resume=resume, allow_changes=allow_changes)
    if not run.processes.first:
        return
    if as_json:
        page = run.folder / "report.html"
        report = page if page.is_file() else None
        print_json({"id": run.id, "folder": run.folder, "report": report, "metrics": run.metrics})
    else:
        for name, value in run.metrics.items():
            if name.startswith("test/"):
                print(f"{name}: {value:.4g}")


@app.command()
def check(config: Config, overrides: Overrides = None, as_json: Json = False, locked: Locked = False) -> None:
    """Show what a config says, or what is wrong with it.

    The energy as a formula, parameters, memory and phases. Reads no data, writes nothing.
    """
    from groundstate.check import check as check_config

    report = check_config(_load(config, overrides or []))
    if as_json:
        print_json(report.record())
    else:
        from groundstate.cli.checked import show

        show(report, console())


@app.command()
def evaluate(
    model: ModelName,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[DATA.KEY=VALUE]...", help="Changes to the data, e.g. data.path=other.npy"),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--data", metavar="CONFIG", help="Take [data] from this config, not from the run's.")
    ] = None,
    labels_per_class: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,…",
            help="Test error of a linear classifier on the features, for each number of labelled samples per class.",
        ),
    ] = None,
    draws: Annotated[int, typer.Option(min=1, help="Draws of the labelled samples.")] = 10,
    as_json: Json = False,
) -> None:
    """Measure a trained model on held-out data."""
    from groundstate.api import find_model
    from groundstate.config import assemble
    from groundstate.evaluate import evaluate as evaluate_split
    from groundstate.stack import Stack

    folder = find_model(model)
    beside = folder.parent / "config.toml"
    if config is None and not beside.is_file():
        raise InputError(f"{relative(folder)} stands outside its run, so nothing names the data; give --data CONFIG")
    loaded = _load(config if config is not None else beside, overrides or [])
    splits = assemble(loaded).data.load(loaded.config.seed)
    if labels_per_class is not None:
        _few_labels(Stack.load(folder), splits, labels_per_class, draws, loaded.config.seed, as_json)
        return
    parts = splits.parts()
    held = {name: source for name, source in parts.items() if name != "train"} or parts
    trained = Stack.load(folder)
    metrics = {
        f"{split}/{name}": value
        for split, source in held.items()
        for name, value in evaluate_split(trained.top.model, trained.seen(source), seed=loaded.config.seed).items()
    }
    if as_json:
        print_json(metrics)
    else:
        for name, value in metrics.items():
            print(f"{name}: {value:.4g}")


def _few_labels(stack: Stack, splits: Splits, counts: str, draws: int, seed: int, as_json: bool) -> None:
    from groundstate.few_labels import FewLabels, evaluate_few_labels

    try:
        numbers = [int(word) for word in counts.split(",")]
    except ValueError:
        raise InputError(
            f"--labels-per-class takes whole numbers joined by commas, e.g. 10,100, not '{counts}'"
        ) from None

    def follow(found: FewLabels) -> None:
        if not as_json:
            print(
                f"{found.per_class} labels per class: error {found.error:.2%} ± {found.spread:.2%} "
                f"({len(found.errors)} draws)",
                flush=True,
            )

    results = evaluate_few_labels(stack, splits, numbers, draws=draws, seed=seed, follow=follow)
    if as_json:
        print_json(
            {
                str(one.per_class): {"error": one.error, "spread": one.spread, "errors": one.errors, "C": one.strengths}
                for one in results
            }
        )


@app.command()
def report(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Ids or folders of runs, or 'last'.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Where to write several runs' page; by default comparison.html beside them."
        ),
    ] = None,
) -> None:
    """Write a run's report anew, or several runs side by side: one HTML page."""
    from groundstate.report import write_comparison, write_report
    from groundstate.run import find_run

    folders = [find_run(run) for run in runs]
    if len(folders) == 1:
        if output is not None:
            raise InputError("--output is for several runs; the report of one goes into its folder")
        print(relative(write_report(folders[0])))
    else:
        print(relative(write_comparison(folders, output or folders[0].parent / "comparison.html")))


@app.command()
def schema(
    registry: Annotated[bool, typer.Option("--registry", help="Of a registry.toml instead.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write it to this file.")] = None,
) -> None:
    """Print the JSON Schema of a config file.

    It holds every plugin found here; editors check and complete a config with it.
    """
    from groundstate.config import json_schema, registry_schema
    from groundstate.registry import Registry

    found = registry_schema() if registry else json_schema(Registry.discover(Path.cwd()))
    if output is None:
        print_json(found)
    else:
        from groundstate.files import write_json

        if not output.absolute().parent.is_dir():
            raise InputError(f"the folder {output.parent} does not exist")
        write_json(output, found)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Tell what works on this machine.

    Versions, which backends can be used and why others cannot, and whether their numbers are right.
    """
    from groundstate.doctor import diagnose
    from groundstate.registry import Registry

    found = diagnose(Registry.discover(Path.cwd()))
    if as_json:
        print_json(found.record())
    else:
        for line in found.lines():
            print(line)
    if not found.healthy:
        raise typer.Exit(1)


@app.command()
def ui(port: Annotated[int, typer.Option(min=1, max=65535, help="On this machine.")] = 5000) -> None:
    """Open the default tracker's page on its runs."""
    from groundstate.registry import Registry

    registry = Registry.discover(Path.cwd())
    entry = registry.default("tracker")
    if entry is None:
        raise InputError("no tracker is installed, so there is no page to open")
    serve = getattr(registry.load(entry), "ui", None)
    if serve is None:
        raise InputError(f"{entry} has no page of its own; look where it records")
    raise typer.Exit(serve(port=port) or 0)


def _load(config: Path, overrides: list[str]) -> LoadedConfig:
    from groundstate.config import load_config

    return load_config(config, overrides)
