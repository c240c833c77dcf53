"""The report's first section: what was trained, and what it reached."""

from __future__ import annotations

import re
from collections.abc import Mapping

from markupsafe import Markup, escape

from groundstate import formula
from groundstate.components import Stage, Term
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
SPLITS = ("validation", "test")


def summary(material: Material) -> Markup:
    metrics = material.metrics
    model = material.model
    names = dict.fromkeys(name.split("/", 1)[1] for name in metrics if name.startswith(SPLITS))
    splits = [split for split in SPLITS if f"{split}/energy" in metrics]
    table = [(label(name), [cell(name, metrics.get(f"{split}/{name}"), model) for split in splits]) for name in names]
    others = [
        (label(name), [cell(name, value, model)]) for name, value in metrics.items() if not name.startswith(SPLITS)
    ]
    return render(
        "summary",
        cards=_cards(material, metrics),
        formula=formula_of(model),
        terms=[
            (
                name,
                f"{term.kind} {material.config.energy[name].type}",
                _typeset(term.formula()),
                number(term.config.weight),
                _acts(term),
            )
            for name, term in model.energy.terms.items()
        ],
        phases=[
            (name, phase.epochs, " and ".join(phase.terms) if phase.terms else "all terms", phase.schedule)
            for name, phase in material.config.phases.items()
        ],
        table=table,
        splits=splits,
        others=others,
        samples=material.run.record["data"]["samples"],
        error=material.run.record["error"],
    )


def formula_of(model: Model) -> Markup:
    """The energy; a line may break between its summands, not inside them."""
    summands, conditions = formula.parts((term.config.weight, term.formula()) for term in model.energy.terms.values())
    whole = [_typeset(summand).replace(" ", "\u00a0") for summand in summands]
    return Markup(", ").join([Markup(" + ").join(whole), *map(_typeset, conditions)])


def _typeset(text: str) -> Markup:
    """A formula with its one-letter subscripts set low."""
    return Markup(re.sub(r"_(\w)\b", r"<sub>\1</sub>", str(escape(text))))


def _acts(term: Term) -> str:
    stages: tuple[Stage, ...] = ("inference", "learning")
    acts = " and ".join(stage for stage in stages if term.acts_in(stage))
    ascending = [name for name, _, spec in term.declared() if spec.direction == "ascend"]
    return f"{acts}; {', '.join(ascending)} ascends" if ascending else acts


def label(name: str) -> str:
    """A metric as a person calls it."""
    if name in _NAMES:
        return _NAMES[name]
    group, _, rest = name.partition("/")
    if group == "energy":
        return f"energy: {rest}"
    return f"{group}: {rest.replace('/', ', ')}" if rest else name


def cell(name: str, value: float | None, model: Model) -> str:
    """A metric's value as a table shows it."""
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
    split = next((split for split in reversed(SPLITS) if f"{split}/energy" in metrics), None)
    if split is not None:
        cards.append((f"{split} energy", number(metrics[f"{split}/energy"], 3)))
        cards.append(("entries active", percent(metrics[f"{split}/code/density"])))
    if "seconds" in metrics:
        cards.append(("training time", seconds(metrics["seconds"])))
    cards.append(("parameters", f"{sum(p.numel() for p in material.model.parameters()):,}"))
    return cards
