"""Pictures of a sweep, as PNG: one line a trial through its values, and how much each key matters."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from groundstate.files import replacing
from groundstate.sweep.plan import Plan
from groundstate.sweep.space import Over, Range
from groundstate.sweep.study import Trial

INK, MUTED, BEST = "#1c2024", "#5b6470", "#d55e00"
COLOURS = "viridis_r"
_STYLE: Any = {"font.size": 9, "text.parse_math": False, "text.color": INK, "axes.edgecolor": MUTED}


def draw_parallel(path: Path, plan: Plan, trials: Sequence[Trial]) -> None:
    """An upright axis per searched key and one for the metric; the best trial's line stands out.

    Only finished trials have a line.
    """
    shown = [trial for trial in trials if trial.state == "finished" and trial.value is not None]
    axes = [_Axis.of(key, one) for key, one in plan.space.over.items()]
    figures = [trial.value for trial in shown if trial.value is not None]
    axes.append(_Axis(plan.metric, min(figures), max(figures)))
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(max(6.0, 1.6 * len(axes) + 1.0), 4.2), dpi=150)
        FigureCanvasAgg(figure)
        plot = figure.add_axes((0.06, 0.12, 0.88, 0.76))
        plot.set_axis_off()
        plot.set_xlim(-0.3, len(axes) - 0.4)
        plot.set_ylim(-0.05, 1.05)
        order = np.linspace(0.0, 1.0, max(len(shown), 2))
        for place, trial in reversed(list(enumerate(shown))):
            heights = [axis.height(trial.values.get(axis.name, trial.value)) for axis in axes]
            best = place == 0
            colour = BEST if best else mpl.colormaps[COLOURS](float(1 - order[place]))
            plot.plot(range(len(axes)), heights, color=colour, linewidth=2.4 if best else 0.9, alpha=1 if best else 0.7)
        for at, axis in enumerate(axes):
            axis.draw(plot, at)
        said = f"{len(shown)} trials, the better the darker; the best, number {shown[0].number}, in orange"
        plot.set_title(said, loc="left", fontsize=10)
        _save(figure, path)


class _Axis:
    """Maps values of one key to heights from 0 to 1."""

    def __init__(self, name: str, low: float, high: float, *, log: bool = False, values: Sequence[Any] = ()) -> None:
        self.name, self.low, self.high, self.log = name, low, high, log
        self.labels = [json.dumps(value, ensure_ascii=False) for value in values]

    @classmethod
    def of(cls, key: str, one: Over) -> _Axis:
        if isinstance(one, Range):
            return cls(key, one.low, one.high, log=one.log)
        return cls(key, 0, max(len(one) - 1, 1), values=one)

    def height(self, value: Any) -> float:
        if self.labels:
            value = self.labels.index(json.dumps(value, ensure_ascii=False))
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return 0.5 if high == low else (value - low) / (high - low)

    def draw(self, plot: Axes, at: int) -> None:
        plot.axvline(at, color=MUTED, linewidth=1, zorder=3)
        if self.labels:
            ticks = [(number / self.high, label.strip('"')) for number, label in enumerate(self.labels)]
        else:
            middle = math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2
            ticks = [(self.height(value), f"{value:.3g}") for value in (self.low, middle, self.high)]
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}
        for height, label in ticks:
            plot.annotate(label, (at, height), (4, 0), textcoords="offset points", va="center", fontsize=8, bbox=box)
        name = self.name if len(self.name) <= 22 else f"…{self.name[-21:]}"
        plot.annotate(name, (at, 0), (0, -18), textcoords="offset points", ha="center", va="top", annotation_clip=False)


def draw_importances(path: Path, importances: Mapping[str, float], metric: str) -> None:
    """A bar per searched key, as long as the share of the metric's variation that it explains."""
    names = list(importances)[::-1]
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 1.2 + 0.36 * len(names)), dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        plot = figure.add_subplot()
        bars = plot.barh(names, [importances[name] for name in names], color="#0072b2", height=0.6)
        plot.bar_label(bars, fmt=lambda value: f"{100 * value:.0f} %", padding=3)
        plot.set_xlim(0, 1.1 * max(*importances.values(), 0.01))
        plot.set_xlabel(f"share of the variation of {metric} (fANOVA)")
        plot.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        plot.spines[["top", "right"]].set_visible(False)
        _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})
