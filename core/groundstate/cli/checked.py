"""What ``check`` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from groundstate.cli.output import table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from groundstate.check import CheckReport


def show(report: CheckReport, console: Console) -> None:
    """The formula, then tables of terms, parameters, memory and phases."""
    for below in report.below:
        show(below, console)
        console.print()
    if report.layer:
        console.rule(report.layer, align="left")
    console.print(Text(report.formula, style="bold"))
    console.print()
    _terms(report, console)
    _model(report, console)
    _parameters(report, console)
    _memory(report, console)
    _phases(report, console)
    for warning in report.warnings:
        console.print(Text(f"warning: {warning}", style="yellow"))


def _terms(report: CheckReport, console: Console) -> None:
    rows = table("term", "type", "weight", "acts in", "energy", *report_phases(report), numbers=("weight",))
    for term in report.terms:
        acts = "inference, learning" if term.acts == "both" else term.acts
        weights = [f"{term.phases[name]:g}" if name in term.phases else "–" for name in report_phases(report)]
        rows.add_row(term.name, f"{term.type} ({term.kind})", f"{term.weight:g}", acts, term.formula, *weights)
    console.print(rows)
    console.print()


def report_phases(report: CheckReport) -> list[str]:
    """The phases' names, as columns of the terms' table."""
    return [phase.name for phase in report.phases]


def _model(report: CheckReport, console: Console) -> None:
    samples = ", ".join(f"{name} {count:,}" for name, count in report.info.samples.items())
    classes = f", {report.info.classes} classes" if report.info.classes else ""
    parts = f"encoder {report.encoder or 'none'}, decoder {report.decoder or 'none'}"
    rows = table("", "")
    rows.show_header = False
    rows.add_row("data", f"{report.data}: inputs {shape(report.info.input_shape)}{classes}; {samples}")
    if report.input is not None:
        rows.add_row("input", report.input)
    rows.add_row("code", f"{shape(report.code_shape)}; {parts}")
    if report.pool is not None or report.layer:
        rows.add_row("features", f"{shape(report.features_shape)}; pool {report.pool or 'none'}")
    rows.add_row("inference", f"{report.solver}: {_settings(report.solver_settings)}")
    rows.add_row("learning", f"{report.learner}: {_settings(report.learner_settings)}")
    rows.add_row("backend", report.backend + (f"; codes by its kernel '{report.kernel}'" if report.kernel else ""))
    console.print(rows)
    console.print()


def _settings(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in values.items())


def _parameters(report: CheckReport, console: Console) -> None:
    rows = table("parameter", "shape", "count", "learns", "rate ×", "constraint", numbers=("count", "rate ×"))
    for one in report.parameters:
        learns = {"descend": "descends", "ascend": "ascends"}[one.direction]
        rows.add_row(one.name, shape(one.shape), f"{one.count:,}", learns, f"{one.rate:.3g}", one.constraint or "–")
    rows.add_row("together", "", f"{report.count:,}", "", "", "")
    console.print(rows)
    console.print()


def _memory(report: CheckReport, console: Console) -> None:
    memory = report.memory
    parts: Mapping[str, int] = {
        "parameters": memory.parameters,
        "gradients": memory.gradients,
        "optimiser": memory.optimiser,
        "one batch": memory.activations,
    }
    words = ", ".join(f"{name} {size(count)}" for name, count in parts.items())
    console.print(f"memory: about {size(memory.total)} (an estimate: {words})")
    console.print()


def _phases(report: CheckReport, console: Console) -> None:
    rows = table("phase", "epochs", "steps", "rate", "schedule", "terms", "frozen", numbers=("epochs", "steps", "rate"))
    for phase in report.phases:
        terms = ", ".join(phase.terms)
        frozen = ", ".join(phase.frozen) or "–"
        rows.add_row(
            phase.name, f"{phase.epochs:,}", f"{phase.steps:,}", f"{phase.rate:g}", phase.schedule, terms, frozen
        )
    console.print(rows)


def shape(sizes: tuple[int, ...]) -> str:
    """Sizes as a person writes them: 8 × 8."""
    return " × ".join(map(str, sizes)) or "scalar"


def size(count: int) -> str:
    """Bytes as a person reads them: 1.4 MB."""
    value, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.3g} {unit}"
