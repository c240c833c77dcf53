"""How training went: each energy over the steps, learning rate, inference by iteration."""

from __future__ import annotations

from markupsafe import Markup

from groundstate.components import Term
from groundstate.report.charts import lines
from groundstate.report.material import Material, render
from groundstate.report.observe import follow_inference
from groundstate.report.timeline import curve
from groundstate.report.words import count, number

_ELSEWHERE = ("energy", "code", "certificate")
"""First parts of the names of validation metrics that have their own pictures."""


def energies(material: Material) -> Markup | None:
    timeline, terms = material.timeline, material.model.energy.terms
    pictures = [
        curve(
            timeline,
            "energy",
            "total energy",
            training=timeline.training("energy"),
            validation=timeline.validation_energy(),
        )
    ]
    for number_, (name, term) in enumerate(terms.items()):
        metric = f"energy/{name}"
        pictures.append(
            curve(
                timeline,
                f"energy{number_}",
                _title(name, term),
                training=timeline.training(metric),
                validation=timeline.validation(metric, name),
            )
        )
    own = [name.removeprefix("validation/") for name in timeline.names("epoch")]
    for number_, metric in enumerate(own):
        group = metric.partition("/")[0]
        if group not in _ELSEWHERE:
            held = timeline.validation(metric, group if group in terms else None)
            pictures.append(curve(timeline, f"metric{number_}", metric.replace("/", ": "), validation=held))
    pictures.append(curve(timeline, "rate", "learning rate", training=timeline.training("rate"), log=False))
    shown = [picture for picture in pictures if picture is not None]
    if not shown:
        return None
    descent = follow_inference(material.model, material.splits, material.run.config.seed)
    inference = None
    if descent is not None and descent.above.max() > 0:
        inference = lines(
            "descent",
            "energy above the lowest reached",
            [(descent.iterations[descent.above > 0], descent.above[descent.above > 0])],
            across="iteration of the solver",
            up="",
            log=True,
            alt=f"Line chart of the mean energy of {count(descent.samples, 'sample')} during inference, above the "
            f"lowest that each reached: from {number(descent.above[0], 3)} at iteration {descent.iterations[0]} to 0 "
            f"at iteration {descent.iterations[-1]}.",
        )
    ascending = [name for name, term in terms.items() if _ascending(term)]
    numbered = [phase.name for phase in timeline.phases]
    return render(
        "energies",
        pictures=shown,
        phases=numbered if len(numbered) > 1 else [],
        epochs=len(timeline.epochs),
        spacing=timeline.mark_spacing(),
        inference=inference,
        learning=material.config.learning,
        ascending=ascending,
        samples=descent.samples if descent is not None else 0,
    )


def _title(name: str, term: Term) -> str:
    ascending = _ascending(term)
    return f"{name} ({', '.join(ascending)} ascends)" if ascending else name


def _ascending(term: Term) -> list[str]:
    """The parameters of a term that ascend the energy."""
    return [name for name, _, spec in term.declared() if spec.direction == "ascend"]
