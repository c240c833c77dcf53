"""Curves over training: phases shaded and named, epochs marked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from numpy.typing import NDArray

from groundstate.history import Record
from groundstate.report.charts import BLUE, LEFT, MUTED, ORANGE, RIGHT, SHADE, TOP, WIDTH, chart, logarithmic, svg
from groundstate.report.words import number

BINS = 200
"""A curve has at most about this many points in a phase; more are averaged, with a band where they spread."""
WIDE_RANGE = 30
"""Above this ratio of the largest to the smallest value an axis is logarithmic."""
MARKS = 100
"""At most so many epochs are marked one by one."""

Series = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Steps and values."""


@dataclass(frozen=True)
class Phase:
    """A phase of training: it covers the steps after ``first`` up to ``last``."""

    name: str
    first: int
    last: int


@dataclass(frozen=True)
class Timeline:
    """What was recorded, by name: over steps on training batches, over epochs on validation data."""

    records: Sequence[Record]
    phases: Sequence[Phase]
    epochs: NDArray[np.int64]

    @classmethod
    def of(cls, records: Sequence[Record]) -> Timeline:
        phases: list[Phase] = []
        for record in records:
            if record.kind == "final":
                continue
            if not phases or phases[-1].name != record.phase:
                phases.append(Phase(record.phase, phases[-1].last if phases else 0, record.step))
            else:
                phases[-1] = Phase(record.phase, phases[-1].first, record.step)
        epochs = np.array([record.step for record in records if record.kind == "epoch"], dtype=np.int64)
        return cls(records, phases, epochs)

    def names(self, kind: str) -> list[str]:
        """Every metric of records of this kind, in the order they appeared."""
        found: dict[str, None] = {}
        for record in self.records:
            if record.kind == kind:
                found |= dict.fromkeys(record.values)
        return list(found)

    def series(self, name: str, kind: str, phases: Sequence[Phase] | None = None) -> Series:
        """Finite values of one metric, in some phases or in all."""
        return _series(
            (record.step, record.values[name]) for record in self.of_kind(kind, phases) if name in record.values
        )

    def of_kind(self, kind: str, phases: Sequence[Phase] | None = None) -> Iterator[Record]:
        """The records of this kind in some phases, or in all."""
        for record in self.records:
            inside = phases is None or any(phase.first < record.step <= phase.last for phase in phases)
            if record.kind == kind and inside:
                yield record

    def acting(self, phase: Phase) -> set[str]:
        """The terms whose energies were recorded on training batches of this phase."""
        names = {name for record in self.of_kind("step", [phase]) for name in record.values}
        return {name.removeprefix("energy/") for name in names if name.startswith("energy/")}

    def training(self, name: str) -> list[Series]:
        """One metric on training batches, phase by phase."""
        parts = [self.series(name, "step", [phase]) for phase in self.phases]
        return [part for part in parts if len(part[0])]

    def validation(self, name: str, term: str | None = None) -> Series:
        """One metric on the validation split; of a term, only over the phases in which it acts."""
        acting = None if term is None else [phase for phase in self.phases if term in self.acting(phase)]
        return self.series(f"validation/{name}", "epoch", acting)

    def validation_energy(self) -> Series:
        """The total energy on the validation split, of the terms that act in training at the time."""
        points = []
        for phase in self.phases:
            names = [f"validation/energy/{term}" for term in self.acting(phase)]
            for record in self.of_kind("epoch", [phase]):
                if names and all(name in record.values for name in names):
                    points.append((record.step, sum(record.values[name] for name in names)))
        return _series(points)

    def mark_spacing(self) -> int:
        """Epochs between two marks."""
        return next((every for every in (1, 2, 5, 10, 20, 50, 100) if len(self.epochs) <= MARKS * every), 1000)


def _series(points: Iterable[tuple[int, float]]) -> Series:
    finite = [point for point in points if np.isfinite(point[1])]
    steps, values = zip(*finite, strict=True) if finite else ((), ())
    return np.array(steps, dtype=float), np.array(values, dtype=float)


NOTHING: Series = _series(())


def curve(
    timeline: Timeline,
    key: str,
    title: str,
    *,
    training: Sequence[Series] = (),
    validation: Series = NOTHING,
    log: bool = True,
) -> Markup | None:
    """One metric over the steps: blue on training batches, orange on validation data. None without values.

    log: a logarithmic axis where values are positive and spread far.
    """
    everything = np.concatenate([*(values for _, values in training), validation[1]])
    if not len(everything):
        return None
    with chart(title, "training step", "", top=44 if len(timeline.phases) > 1 else TOP) as (figure, axes):
        low, high = float(everything.min()), float(everything.max())
        if log and low > 0 and high > WIDE_RANGE * low:
            logarithmic(axes, "y", low, high)
        _draw_phases(axes, timeline)
        for part in training:
            _draw_training(axes, part)
        if len(validation[0]):
            marker = "o" if len(validation[0]) <= 40 else ""
            for phase in timeline.phases:
                inside = (phase.first < validation[0]) & (validation[0] <= phase.last)
                steps, values = validation[0][inside], validation[1][inside]
                axes.plot(steps, values, color=ORANGE, linewidth=1.4, marker=marker, markersize=3.5)
        return svg(figure, key, _said(title, training, validation))


def _draw_phases(axes: Axes, timeline: Timeline) -> None:
    if not timeline.phases:
        return
    first, last = timeline.phases[0].first, timeline.phases[-1].last
    axes.set_xlim(first, max(last, first + 1))
    room = (WIDTH - LEFT - RIGHT) / max(last - first, 1)
    if len(timeline.phases) > 1:
        for number_, phase in enumerate(timeline.phases):
            if number_ % 2 == 0:
                axes.axvspan(phase.first, phase.last, color=SHADE, linewidth=0, zorder=0)
            middle = (phase.first + phase.last) / 2
            fits = 6 * len(phase.name) <= room * (phase.last - phase.first)
            axes.text(
                middle,
                1.03,
                phase.name if fits else str(number_ + 1),
                ha="center",
                color=MUTED,
                fontsize=10.5,
                transform=axes.get_xaxis_transform(),
            )
    marks = timeline.epochs[timeline.mark_spacing() - 1 :: timeline.mark_spacing()]
    axes.vlines(marks, 0, 0.03, color=MUTED, linewidth=0.8, transform=axes.get_xaxis_transform())


def thinned(steps: NDArray[np.float64], values: NDArray[np.float64]) -> Series:
    """At most about BINS points: means over neighbours."""
    if len(steps) <= 2 * BINS:
        return steps, values
    groups = np.array_split(np.arange(len(steps)), BINS)
    return np.array([steps[group].mean() for group in groups]), np.array([values[group].mean() for group in groups])


def _draw_training(axes: Axes, series: Series) -> None:
    steps, values = series
    if len(steps) > 2 * BINS:
        groups = np.array_split(np.arange(len(steps)), BINS)
        low, high = ([np.quantile(values[group], share) for group in groups] for share in (0.1, 0.9))
        steps, values = thinned(steps, values)
        axes.fill_between(steps, low, high, color=BLUE, alpha=0.25, linewidth=0)
    axes.plot(steps, values, color=BLUE, linewidth=1.5, marker="." if len(steps) == 1 else "")


def _said(title: str, parts: Sequence[Series], held: Series) -> str:
    """The chart in a sentence: where each curve begins and ends."""
    said = []
    if parts:
        said.append(f"on training batches from {number(parts[0][1][0], 3)} to {number(parts[-1][1][-1], 3)}")
    if len(held[0]):
        said.append(f"on validation data from {number(held[1][0], 3)} to {number(held[1][-1], 3)}")
    return f"Line chart of {title} over training: {'; '.join(said)}."
