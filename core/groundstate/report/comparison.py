"""Several runs side by side on one page: figures, what differs, curves over each other, pictures beside each other."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from groundstate import compare
from groundstate.report import filters, labels, summary
from groundstate.report.charts import COLOURS, lines, outlines
from groundstate.report.material import Material, render
from groundstate.report.pictures import Pixels, as_pictures, picture, positive_tiles, sheet, signed_tiles
from groundstate.report.timeline import Series, thinned
from groundstate.report.words import number, percent, seconds, when

MOST = len(COLOURS)
"""Runs on a page: one colour each."""
FILTERS = 144
"""Filters shown of each run, the most used first."""
LETTERS = "ABCDEF"
_CURVES = "Means over the validation split after each epoch; over training batches where there is none."
_USAGE = "Codes of held-out samples of each run’s data."
_PARTS = {"config": "Config", "code": "Code and versions", "data": "Data", "machine": "Machine"}


@dataclass(frozen=True)
class Runs:
    """The runs of a page, in the order they were given."""

    materials: Sequence[Material]

    @property
    def letters(self) -> str:
        return LETTERS[: len(self.materials)]

    @property
    def columns(self) -> list[Markup]:
        """Each run's letter with its key, as a table's heading."""
        return [
            Markup('<span class="key {}"></span>{}').format(colour, letter)
            for colour, letter in zip(COLOURS.values(), self.letters, strict=False)
        ]

    def on_the_same_data(self) -> bool:
        return len({material.splits.fingerprint for material in self.materials}) == 1


def runs(found: Runs) -> Markup:
    rows = []
    for column, material in zip(found.columns, found.materials, strict=True):
        record = material.run.record
        took = material.metrics.get("seconds")
        rows.append(
            (column, material.run.id, record["status"], when(record["created"]), seconds(took) if took else "–")
        )
    return render("runs", rows=rows, formulas=_formulas(found))


def _formulas(found: Runs) -> list[tuple[Markup, Markup]]:
    """Each energy with the runs that have it."""
    by_formula: dict[Markup, list[Markup]] = {}
    for column, material in zip(found.columns, found.materials, strict=True):
        by_formula.setdefault(summary.formula_of(material.model), []).append(column)
    return [(Markup(" ").join(columns), formula) for formula, columns in by_formula.items()]


def figures(found: Runs) -> Markup:
    tables = [material.metrics for material in found.materials]
    names = [name for name in dict.fromkeys(name for one in tables for name in one) if name not in compare.TIMINGS]
    rows = []
    for name in names:
        split, _, rest = name.partition("/")
        whole = split not in summary.SPLITS
        values = [one.get(name) for one in tables]
        told = [value for value in values if value is not None]
        best = min(told) if name.endswith("/error") and len(set(told)) > 1 else None
        cells = [
            (summary.cell(name if whole else rest, value, material.model), best is not None and value == best)
            for value, material in zip(values, found.materials, strict=True)
        ]
        rows.append((summary.label(name) if whole else f"{split}: {summary.label(rest)}", cells))
    return render(
        "table", label="figures", caption="Final figures; bold: the least error.", head=found.columns, rows=rows
    )


def differences(found: Runs) -> Markup:
    differing = compare.diff_runs(*(material.run.folder for material in found.materials))
    parts = []
    for part, title in _PARTS.items():
        rows = [(key, [(_said(value), False) for value in values]) for key, values in getattr(differing, part).items()]
        parts.append((part, title, rows))
    same = [title.lower() for _, title, rows in parts if not rows]
    return render("differences", parts=[one for one in parts if one[2]], same=same, head=found.columns)


def _said(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return number(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def curves(found: Runs) -> Markup | None:
    lines_ = [material.timeline for material in found.materials]
    pictures = [
        _overlaid(
            found,
            "energy",
            "total energy",
            [_either(line.validation_energy(), line.training("energy")) for line in lines_],
        )
    ]
    terms = dict.fromkeys(name for material in found.materials for name in material.model.energy.terms)
    for place, term in enumerate(terms):
        metric = f"energy/{term}"
        series = [_either(line.validation(metric, term), line.training(metric)) for line in lines_]
        pictures.append(_overlaid(found, f"energy{place}", term, series))
    own = dict.fromkeys(name.removeprefix("validation/") for line in lines_ for name in line.names("epoch"))
    others = [name for name in own if name.partition("/")[0] not in ("energy", "certificate")]
    for place, metric in enumerate(others):
        group = metric.partition("/")[0]
        series = [line.validation(metric, group if group in terms else None) for line in lines_]
        pictures.append(_overlaid(found, f"metric{place}", summary.label(metric), series))
    shown = [one for one in pictures if one is not None]
    return render("overlaid", pictures=shown, head=found.columns, said=_CURVES) if shown else None


def _either(held: Series, training: Sequence[Series]) -> Series:
    if len(held[0]) or not training:
        return held
    steps, values = (np.concatenate(parts) for parts in zip(*training, strict=True))
    return thinned(steps, values)


def _overlaid(found: Runs, key: str, title: str, series: Sequence[Series]) -> Markup | None:
    there = [(place, one) for place, one in enumerate(series) if len(one[0])]
    if not there:
        return None
    ends = ", ".join(f"{found.letters[place]} {number(values[-1], 3)}" for place, (_, values) in there)
    everything = np.concatenate([values for _, (_, values) in there])
    return lines(
        key,
        title,
        [one for _, one in there],
        across="training step",
        up="",
        alt=f"Line chart of {title} over training of each run; it ends at {ends}.",
        log=bool(everything.min() > 0 and everything.max() > 30 * everything.min()),
        styles=[place for place, _ in there],
        names=[found.letters[place] for place, _ in there],
    )


def dictionaries(found: Runs) -> Markup | None:
    pictures = []
    for letter, material in zip(found.letters, found.materials, strict=True):
        shown = filters.dictionary(material)
        if shown is not None:
            order = shown.order[: FILTERS if shown.sheet is None else None]
            alt = f"Sheet of {len(order)} decoder filters of run {letter}, {shown.reason}."
            said = f"{letter}: {len(order)} of {len(shown.columns):,} filters, {shown.reason}."
            pictures.append((said, picture(filters.filter_sheet(shown.columns[order], shown), alt)))
    return render("beside", pictures=pictures) if pictures else None


def usage(found: Runs) -> Markup:
    frequency = [material.observed.frequency.numpy() for material in found.materials]
    active = [material.observed.active.numpy() for material in found.materials]
    pictures = [
        outlines(
            "usage",
            "how often a unit is active",
            frequency,
            across="share of samples in which it is active",
            up="units",
            alt="Histograms of the share of samples in which a unit is active; median "
            + ", ".join(
                f"{letter} {percent(float(np.median(one)))}"
                for letter, one in zip(found.letters, frequency, strict=True)
            )
            + ".",
        ),
        outlines(
            "active",
            "active entries of a code",
            active,
            across="active entries",
            up="samples",
            whole=True,
            alt="Histograms of the number of active entries of a code; median "
            + ", ".join(
                f"{letter} {number(float(np.median(one)))}" for letter, one in zip(found.letters, active, strict=True)
            )
            + ".",
        ),
    ]
    return render("overlaid", pictures=pictures, head=found.columns, said=_USAGE)


def reconstructions(found: Runs) -> Markup | None:
    """The same held-out samples as each run restores them."""
    shape = found.materials[0].splits.picture_shape
    seen = [material.observed for material in found.materials]
    if shape is None or not found.on_the_same_data() or any(one.decoded is None for one in seen):
        return None
    x = seen[0].shown.x.flatten(1)
    if any(one.decoded is None or one.decoded.flatten(1).shape != x.shape for one in seen) or x.shape[1] != np.prod(
        shape
    ):
        return None
    rows = [x, *(one.decoded.flatten(1) for one in seen if one.decoded is not None)]
    strips = [as_pictures(row, tuple(shape)) for row in rows]
    tiles: Callable[..., Pixels] = signed_tiles if float(x.min()) < 0 else positive_tiles
    scale = np.abs(strips[0]).max(axis=tuple(range(1, strips[0].ndim)), keepdims=True)
    stacked = np.concatenate([tiles(strip, scale) for strip in strips])
    lost = []
    for letter, one in zip(found.letters, seen, strict=True):
        assert one.decoded is not None
        error = (x - one.decoded.flatten(1)).double().square().sum(1) / x.double().square().sum(1).clamp_min(1e-30)
        lost.append((letter, float(error.mean())))
    alt = f"{len(x)} held-out samples in columns: the input above, below it what each of the {len(seen)} runs restores."
    return render("restored", picture=picture(sheet(stacked, len(x)), alt, css="wide"), lost=lost, samples=len(x))


def calibration(found: Runs) -> Markup | None:
    given = [
        (place, material.observed.labels)
        for place, material in enumerate(found.materials)
        if material.observed.labels is not None and material.observed.labels.confidence is not None
    ]
    if not given:
        return None
    measured = [(place, labels.reliability(one)) for place, one in given]
    chart = lines(
        "reliability",
        "reliability",
        [(one.probability, one.accuracy) for _, one in measured],
        across="probability that the task gives its answer",
        up="share that is right",
        alt="Reliability diagram of each run; expected calibration error "
        + ", ".join(f"{found.letters[place]} {percent(one.error)}" for place, one in measured)
        + ".",
        styles=[place for place, _ in measured],
        names=[found.letters[place] for place, _ in measured],
        dots=True,
        diagonal=True,
    )
    return render("calibrations", picture=chart, errors=[(found.letters[place], one.error) for place, one in measured])


SECTIONS: tuple[tuple[str, Callable[[Runs], Markup | None]], ...] = (
    ("Runs", runs),
    ("Figures", figures),
    ("What differs", differences),
    ("Energies and other curves", curves),
    ("Filters", dictionaries),
    ("Use of the code", usage),
    ("Reconstructions", reconstructions),
    ("Calibration", calibration),
)
