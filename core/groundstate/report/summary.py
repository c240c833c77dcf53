"""The report's first section: what was trained, and what it reached."""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import Markup

from groundstate.components import Term
from groundstate.model import Model
from groundstate.report.material import Material, render
from groundstate.report.words import number, percent, seconds

_NAMES = {
    "energy": "energy",
    "code/density": "active entries of a code",
    "code/dead": "units never active",
    "code/entropy": "evenness of use (1: all units alike)",
    "certificate/median": "certificate, median (relative)",
    "certificate/max": "certificate, largest (relative)",
    "amortisation_gap/mean": "energy above the reference solver’s, mean",
    "amortisation_gap/median": "energy above the reference solver’s, median",
    "amortisation_gap/reference_certificate": "certificate of the reference, largest (relative)",
    "seconds": "training time",
    "best_step": "step of the weights that were kept",
}
_SHARES = ("code/density", "code/dead", "amortisation_gap/mean", "amortisation_gap/median")
_SPLITS = ("validation", "test")


def summary(material: Material) -> Markup:
    metrics = material.metrics
    model = material.model
    names = dict.fromkeys(name.split("/", 1)[1] for name in metrics if name.startswith(_SPLITS))
    table = [
        (_label(name), [_cell(name, metrics.get(f"{split}/{name}"), model) for split in _SPLITS]) for name in names
    ]
    others = [
        (_label(name), _cell(name, value, model)) for name, value in metrics.items() if not name.startswith(_SPLITS)
    ]
    return render(
        "summary",
        cards=_cards(material, metrics),
        formula=formula(model),
        terms=[
            (name, term.kind, _weight(term), term.formula(), _acts(term), _ascending(term))
            for name, term in model.energy.terms.items()
        ],
        phases=[
            (name, phase.epochs, ", ".join(phase.terms) if phase.terms else "all terms", phase.schedule)
            for name, phase in material.run.phases
        ],
        table=table,
        others=others,
        samples=material.run.record["data"]["samples"],
        error=material.run.record["error"],
    )


def formula(model: Model) -> list[str]:
    """The weighted terms, to be joined by plus signs."""
    return [
        term.formula() if term.config.weight == 1 else f"{_weight(term)} · {_bracketed(term.formula())}"
        for term in model.energy.terms.values()
    ]


def _bracketed(text: str) -> str:
    depth, inside_norm = 0, False
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        inside_norm ^= letter in "‖|"
        if place and letter in "+−," and not depth and not inside_norm:
            return f"({text})"
    return text


def _weight(term: Term) -> str:
    return number(term.config.weight)


def _acts(term: Term) -> str:
    return " and ".join(stage for stage in ("inference", "learning") if term.acts_in(stage))  # type: ignore[arg-type]


def _ascending(term: Term) -> str:
    return ", ".join(name for name, _, spec in term.declared() if spec.direction == "ascend")


def _label(name: str) -> str:
    if name in _NAMES:
        return _NAMES[name]
    group, _, rest = name.partition("/")
    if group == "energy":
        return f"energy: {rest}"
    return f"{group}: {rest.replace('/', ', ')}" if rest else name


def _cell(name: str, value: float | None, model: Model) -> str:
    if value is None:
        return "–"
    if name == "seconds":
        return seconds(value)
    return percent(value) if name in _SHARES or _is_error(name, model) else number(value)


def _is_error(name: str, model: Model) -> bool:
    """Whether a metric is a share of wrong labels."""
    return name.endswith("/error") and model.shapes.classes is not None


def _cards(material: Material, metrics: Mapping[str, float]) -> list[tuple[str, str]]:
    """The few figures that a reader looks for first."""
    cards = []
    for name, term in material.model.energy.terms.items():
        error = metrics.get(f"test/{name}/error")
        if term.role == "task" and error is not None and _is_error(f"{name}/error", material.model):
            cards.append(("test error", percent(error)))
    for name, value in metrics.items():
        group, _, rest = name.partition("/")
        if group == "baseline" and name.endswith("/error"):
            cards.append((f"{rest.removesuffix('/error').replace('-', ' ')}, test error", percent(value)))
    split = next((split for split in reversed(_SPLITS) if f"{split}/energy" in metrics), None)
    if split is not None:
        cards.append((f"{split} energy", number(metrics[f"{split}/energy"], 3)))
        cards.append(("of a code active", percent(metrics[f"{split}/code/density"])))
    if "seconds" in metrics:
        cards.append(("training time", seconds(metrics["seconds"])))
    cards.append(("parameters", f"{sum(p.numel() for p in material.model.parameters()):,}"))
    return cards
