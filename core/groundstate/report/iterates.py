"""Encoders that iterate: energy and error over their steps, and part-units beside categorical-units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from markupsafe import Markup
from numpy.typing import NDArray
from torch import Tensor

from groundstate.components import Code
from groundstate.energy import Point
from groundstate.report.charts import BLUE, MUTED, ORANGE, chart, lines, svg
from groundstate.report.filters import Dictionary, dictionary, encoder_rows
from groundstate.report.material import Material, render
from groundstate.report.observe import held_out, predicting
from groundstate.report.pictures import as_pictures, picture, sheet, signed_tiles
from groundstate.report.words import number, percent

FOLLOWED = 500
"""Samples whose codes are followed from step to step."""
PART, CATEGORICAL = 0.5, 0.7
"""Radians between encoder row and decoder column: below, part-units; above, categorical-units (Rolfe & LeCun 2013)."""
EXAMPLES = 12


class Steps(NamedTuple):
    """Means over samples after each step: the energies of the acting terms, and the share of wrong labels."""

    energies: dict[str, NDArray[np.float64]]
    error: NDArray[np.float64] | None
    samples: int


def follow(material: Material) -> Steps | None:
    """The encoder's iterates on held-out samples; None where it tells none."""
    model, source = material.model, held_out(material.splits)[1]
    if model.encoder is None:
        return None
    batch = source.read(torch.arange(min(FOLLOWED, len(source)))).to(model.device, model.dtype)
    with torch.no_grad():
        iterates = model.encoder.iterates(batch.x)
        if iterates is None:
            return None
        weights = {name: term.config.weight for name, term in model.energy.terms.items()}
        task = predicting(model) if "y" in source.names else None
        energies: dict[str, list[float]] = {name: [] for name in weights}
        wrong: list[float] = []
        for z in iterates:
            generator = torch.Generator(model.device).manual_seed(material.run.config.seed)
            point = Point(batch, Code(z), model.decoder, z, generator)
            for name, value in model.energy.values(point, weights).items():
                energies[name].append(float(value.double().mean()))
            if task is not None and task[1].predict is not None:
                scores = task[1].predict(z)
                wrong.append(float((scores.argmax(1) != batch.fields["y"]).double().mean()))
    table = {name: np.array(values) for name, values in energies.items()}
    return Steps(table, np.array(wrong) if wrong else None, len(batch))


def steps(material: Material) -> Markup | None:
    """The section: what each step of the encoder does, and the two kinds of units."""
    found = follow(material)
    if found is None:
        return None
    count = len(next(iter(found.energies.values())))
    across = np.arange(1, count + 1)
    total = np.sum(list(found.energies.values()), axis=0)
    pictures = [_by_step("steps", "energy of all terms", across, total)]
    if len(found.energies) > 1:
        pictures += [
            _by_step(f"steps{place}", name, across, values)
            for place, (name, values) in enumerate(found.energies.items())
        ]
    if found.error is not None:
        pictures.append(_by_step("steps-error", "share of wrong labels", across, found.error))
    return render(
        "iterates",
        pictures=pictures,
        steps=count,
        samples=found.samples,
        first=total[0],
        last=total[-1],
        error=found.error,
        units=_units(material),
    )


def _by_step(key: str, title: str, across: NDArray[np.int64], values: NDArray[np.float64]) -> Markup:
    return lines(
        key,
        title,
        [(across, values)],
        across="step of the encoder",
        up="",
        alt=f"Line chart of {title} by step of the encoder: {number(values[0], 3)} after the first, "
        f"{number(values[-1], 3)} after the last of {len(values)}.",
        dots=True,
        whole=True,
    )


@dataclass(frozen=True)
class Units:
    """Units that are active at least once: numbers, angle of each in radians, and height in the picture."""

    rows: NDArray[np.int64]
    angle: NDArray[np.float64]
    height: NDArray[np.float64]
    named: str


def _units(material: Material) -> dict[str, object] | None:
    shown = dictionary(material)
    rows = encoder_rows(material, tuple(shown.columns.shape)) if shown is not None else None
    if shown is None or rows is None or len(material.observed.frequency) != len(shown.columns):
        return None
    units = _measured(material, rows[1], shown.columns)
    if len(units.rows) < 2:
        return None
    part, categorical = units.angle < PART, units.angle > CATEGORICAL
    order = units.rows[np.argsort(units.angle)]
    amount = min(EXAMPLES, len(order) // 2)
    ends = ((order[:amount], "smallest angle"), (order[::-1][:amount], "largest angle"))
    return {
        "scatter": _scatter(units),
        "part": float(part.mean()),
        "categorical": float(categorical.mean()),
        "dead": len(shown.columns) - len(units.rows),
        "named": units.named,
        "part_bound": PART,
        "categorical_bound": CATEGORICAL,
        "examples": [(which, _pairs(rows[1], shown, chosen, which)) for chosen, which in ends],
        "amount": amount,
    }


def _measured(material: Material, rows: Tensor, columns: Tensor) -> Units:
    cosine = torch.cosine_similarity(rows.double(), columns.double(), dim=1).clamp(-1, 1)
    alive = (material.observed.frequency > 0).nonzero().flatten()
    angle = cosine.arccos()[alive].numpy()
    selective = _selectivity(material)
    if selective is None:
        return Units(alive.numpy(), angle, material.observed.frequency[alive].numpy(), "share of samples")
    return Units(alive.numpy(), angle, selective[alive].numpy(), "share in one class")


def _selectivity(material: Material) -> Tensor | None:
    """How much of each unit's activity, class by class on average, falls on the class where it is most active."""
    seen, classes = material.observed, material.splits.classes
    if seen.labels is None or classes is None:
        return None
    size = seen.code.flatten(1).abs().double()
    label = torch.nn.functional.one_hot(seen.labels.truth[: len(size)], classes).double()
    mean = (label.T @ size) / label.sum(0)[:, None].clamp_min(1)
    selective: Tensor = mean.amax(0) / mean.sum(0).clamp_min(1e-30)
    return selective


def _scatter(units: Units) -> Markup:
    with chart("angle of each unit", "angle between row and column (radians)", units.named) as (
        figure,
        axes,
    ):
        kinds = (units.angle < PART, (units.angle >= PART) & (units.angle <= CATEGORICAL), units.angle > CATEGORICAL)
        for chosen, colour, marker in zip(kinds, (BLUE, MUTED, ORANGE), ("o", "x", "D"), strict=True):
            axes.scatter(units.angle[chosen], units.height[chosen], 11, color=colour, marker=marker, linewidths=0.8)
        axes.set_xlim(0, max(1.6, 1.05 * float(units.angle.max())))
        axes.set_ylim(0, 1.1 * float(units.height.max()))
        for bound in (PART, CATEGORICAL):
            axes.axvline(bound, color=MUTED, linewidth=0.8, linestyle=":")
        return svg(
            figure,
            "units",
            f"Scatter plot of {len(units.rows)} units: {percent(float(kinds[0].mean()))} have an angle below {PART} "
            f"radians, {percent(float(kinds[2].mean()))} above {CATEGORICAL}.",
        )


def _pairs(rows: Tensor, shown: Dictionary, chosen: NDArray[np.int64], which: str) -> Markup:
    index = torch.from_numpy(chosen.copy())
    tiles = signed_tiles(as_pictures(torch.cat([rows[index], shown.columns[index]]), shown.shape))
    alt = f"Encoder rows (above) and decoder columns (below) of the {len(chosen)} units with the {which}."
    return picture(sheet(tiles, len(chosen)), alt, css="strip")
