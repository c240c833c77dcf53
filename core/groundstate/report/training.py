"""How training went: each energy over the steps, inference from iteration to iteration, learning rate."""

from __future__ import annotations

from markupsafe import Markup

from groundstate.report.charts import lines
from groundstate.report.material import Material, render
from groundstate.report.observe import follow_inference
from groundstate.report.timeline import curve
from groundstate.report.words import count, number

_OWN = ("energy", "code", "certificate", "amortisation_gap")
"""First parts of the names of validation metrics that are shown elsewhere."""


def energies(material: Material) -> Markup | None:
    timeline, terms = material.timeline, material.model.energy.terms
    pictures = []
    for number_, name in enumerate(("energy", *(f"energy/{term}" for term in terms))):
        picture = curve(
            timeline, f"energy{number_}", _title(material, name), training=name, validation=f"validation/{name}"
        )
        pictures.append(picture)
    wanted = [name for name in timeline.names("epoch") if name.split("/")[1] not in _OWN]
    for number_, name in enumerate(wanted):
        title = name.removeprefix("validation/").replace("/", ": ")
        pictures.append(curve(timeline, f"metric{number_}", title, training=None, validation=name))
    shown = [picture for picture in pictures if picture is not None]
    if not shown:
        return None
    descent = follow_inference(material.model, material.run.splits, material.run.config.seed)
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
    numbered = [phase.name for phase in timeline.phases]
    return render(
        "energies",
        pictures=shown,
        phases=numbered if len(numbered) > 1 else [],
        epochs=len(timeline.epochs),
        spacing=timeline.mark_spacing(),
        inference=inference,
        samples=descent.samples if descent is not None else 0,
    )


def _title(material: Material, metric: str) -> str:
    if metric == "energy":
        return "total energy"
    name = metric.removeprefix("energy/")
    ascending = [
        parameter for parameter, _, spec in material.model.energy.terms[name].declared() if spec.direction == "ascend"
    ]
    return f"{name} ({', '.join(ascending)} ascends)" if ascending else name


def rate(material: Material) -> Markup | None:
    picture = curve(material.timeline, "rate", "learning rate", training="rate", validation=None)
    speed = curve(material.timeline, "speed", "samples per second", training="samples_per_second", validation=None)
    if picture is None:
        return None
    learning = material.run.config.learning
    return render("rate", pictures=[part for part in (picture, speed) if part is not None], learning=learning)
