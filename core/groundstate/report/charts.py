"""Charts by matplotlib, as SVG inside the page: text in the page's font, colours that follow light and dark."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import ArrayLike, NDArray

from groundstate.report.words import number

# Each colour stands for a variable of the page's style sheet, which has a value for light and one for dark.
# Blue and vermilion are of Okabe & Ito's palette for all kinds of colour vision.
INK, MUTED, GRID, SHADE = "#1c2024", "#5b6470", "#dde2e8", "#eef1f5"
BLUE, ORANGE = "#0072b2", "#d55e00"
COLOURS = {
    BLUE: "blue",
    ORANGE: "orange",
    "#00795a": "green",
    "#9c3d78": "purple",
    "#7a6000": "brown",
    "#4a55b8": "indigo",
}
"""Of curves, and what each is called in the page's style sheet."""
DASHES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)), (0, (1, 1)))
VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid", SHADE: "shade", **COLOURS}

WIDTH, HEIGHT = 400, 220
"""Of a chart, in CSS pixels at its natural size."""
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 30, 42
"""Margins around the axes, in the same pixels."""

_STYLE: Any = {  # the names that matplotlib's stubs allow differ between its versions
    "svg.fonttype": "none",
    "svg.hashsalt": "groundstate",
    "text.parse_math": False,  # names in a config may hold a $
    "font.family": "DejaVu Sans",  # for the room that texts take; the page's own font is at most as wide
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlecolor": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
}


@contextmanager
def chart(title: str, across: str, up: str, *, top: int = TOP) -> Iterator[tuple[Figure, Axes]]:
    """A figure with one pair of axes in the page's style, named; draw inside the block, and end with ``svg``.

    top: the room above the axes, for the title and what stands below it.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH / 72, HEIGHT / 72), dpi=72)
        FigureCanvasSVG(figure)
        box = (LEFT / WIDTH, BOTTOM / HEIGHT, 1 - (LEFT + RIGHT) / WIDTH, 1 - (top + BOTTOM) / HEIGHT)
        axes = figure.add_axes(box)
        figure.text(0, 1 - 14 / HEIGHT, title, fontsize=12, fontweight="bold")
        axes.set_xlabel(across)
        axes.set_ylabel(up)
        for axis in (axes.xaxis, axes.yaxis):
            linear(axis)
        yield figure, axes


@contextmanager
def drawing(width: float, height: float, title: str) -> Iterator[tuple[Figure, Axes]]:
    """A figure without axes, whose coordinates are pixels from its upper left corner; end with ``svg``."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width / 72, height / 72), dpi=72)
        FigureCanvasSVG(figure)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)
        axes.text(0, 12, title, fontsize=12, fontweight="bold", color=INK)
        yield figure, axes


def thumbnail(axes: Axes, tile: NDArray[np.uint8], x: float, y: float, side: float) -> None:
    """A small picture with its middle at (x, y) of a ``drawing``, its longer side this many pixels."""
    height, width = (side * length / max(tile.shape[:2]) for length in tile.shape[:2])
    extent = (x - width / 2, x + width / 2, y + height / 2, y - height / 2)
    axes.imshow(tile, cmap="gray", vmin=0, vmax=255, extent=extent, interpolation="none", aspect="auto", zorder=2)


def linear(axis: Axis, ticks: int = 5) -> None:
    """Few ticks, with numbers as in the text."""
    axis.set_major_locator(MaxNLocator(ticks))
    axis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))


def logarithmic(axes: Axes, name: Literal["x", "y"], low: float, high: float) -> None:
    """Ticks at powers of ten, and between them where values go from low to high over few powers."""
    if name == "x":
        axes.set_xscale("log")
    else:
        axes.set_yscale("log")
    axis = axes.xaxis if name == "x" else axes.yaxis
    decades = np.log10(high / low)
    steps = (1.0, 2.0, 5.0) if decades < 1.5 else (1.0, 3.0) if decades < 2.5 else (1.0,)
    axis.set_major_locator(LogLocator(subs=steps, numticks=6 if decades >= 2.5 else 12))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: number(value, plain=9e-3)))


def svg(figure: Figure, key: str, alt: str) -> Markup:
    """The figure as an <svg> element. key: unique on the page, begins the element's ids. alt: what is seen."""
    buffer = io.StringIO()
    figure.savefig(
        buffer,
        format="svg",
        transparent=True,
        metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
    )
    text = buffer.getvalue()
    text = text[text.index(">", text.index("<svg")) + 1 :]
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, count=1, flags=re.DOTALL)
    used = set(re.findall(r"(?:url\(|href=\")#(\w+)", text))
    text = re.sub(r' id="([^"]+)"', lambda found: f' id="{key}-{found[1]}"' if found[1] in used else "", text)
    text = re.sub(r"(url\(|href=\")#", rf"\g<1>#{key}-", text)
    for colour, variable in VARIABLES.items():
        text = text.replace(f": {colour}", f": var(--{variable})")
    text = text.replace("'DejaVu Sans'", "var(--font)")
    text = re.sub(r"\s*\n\s*", "\n", text)
    width, height = (round(72 * inches) for inches in figure.get_size_inches())
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}').format(
        width, height, escape(alt), Markup(text)
    )


def histogram(
    key: str,
    title: str,
    values: ArrayLike,
    *,
    across: str,
    up: str,
    alt: str,
    edges: NDArray[np.floating[Any]],
    log: bool = False,
    mark: tuple[float, str] | None = None,
    apart: tuple[int, str] | None = None,
) -> Markup:
    """How often values fall between edges. mark: a place on the axis, with its name. apart: how many values were
    left out because they are special, with what they are; drawn as a bar of its own at the left.
    """
    with chart(title, across, up) as (figure, axes):
        heights, _ = np.histogram(np.asarray(values), edges)
        if log:
            logarithmic(axes, "x", edges[0], edges[-1])
        axes.bar(edges[:-1], heights, 0.93 * np.diff(edges), align="edge", color=BLUE, linewidth=0)
        top = max(int(heights.max(initial=0)), apart[0] if apart else 0, 1)
        axes.set_ylim(0, 1.18 * top)
        if apart is not None:
            width = edges[1] - edges[0]
            axes.bar(edges[0] - 1.5 * width, apart[0], 0.93 * width, align="edge", color=ORANGE, linewidth=0)
            axes.annotate(
                apart[1],
                (edges[0] - width, apart[0]),
                (0, 4),
                textcoords="offset points",
                ha="left",
                color=ORANGE,
                fontsize=10.5,
            )
        if mark is not None:
            place, name = mark
            axes.axvline(place, color=ORANGE, linewidth=1.6)
            low, high = axes.get_xlim()
            position = (np.log(place / low) / np.log(high / low)) if log else (place - low) / (high - low)
            axes.annotate(
                name,
                (place, 1.1 * top),
                (-5 if position > 0.5 else 5, 0),
                textcoords="offset points",
                ha="right" if position > 0.5 else "left",
                color=ORANGE,
                fontsize=10.5,
            )
        return svg(figure, key, alt)


def lines(
    key: str,
    title: str,
    curves: Sequence[tuple[ArrayLike, ArrayLike]],
    *,
    across: str,
    up: str,
    alt: str,
    log: bool = False,
    dots: bool = False,
    whole: bool = False,
    diagonal: bool = False,
    styles: Sequence[int] | None = None,
    names: Sequence[str] = (),
) -> Markup:
    """Curves (x, y), each with its own colour and dashes: the first blue, the second orange and dashed.

    dots: at each value. whole: x are whole numbers. diagonal: a line where y is x, both from 0 to 1. styles: the
    numbers of the curves' styles. names: of the curves, written where they end.
    """
    with chart(title, across, up) as (figure, axes):
        if log:
            heights = np.concatenate([np.asarray(y) for _, y in curves])
            logarithmic(axes, "y", heights.min(), heights.max())
        if diagonal:
            axes.plot((0, 1), (0, 1), color=MUTED, linewidth=0.8)
            axes.set_xlim(0, 1.05)
            axes.set_ylim(0, 1.05)
        if whole:
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        for place, (x, y) in enumerate(curves):
            style = place if styles is None else styles[place]
            colour = list(COLOURS)[style]
            marker = "o" if dots or np.size(x) == 1 else ""
            axes.plot(x, y, linestyle=DASHES[style], color=colour, linewidth=1.6, marker=marker, markersize=3.5)
            if names:
                end = (np.asarray(x)[-1], np.asarray(y)[-1])
                axes.annotate(
                    names[place], end, (4, 0), textcoords="offset points", color=colour, fontsize=10.5, va="center"
                )
        return svg(figure, key, alt)


def outlines(
    key: str,
    title: str,
    values: Sequence[NDArray[Any]],
    *,
    across: str,
    up: str,
    alt: str,
    whole: bool = False,
) -> Markup:
    """Histograms over each other, as outlines in the styles of ``lines``. whole: values are whole numbers."""
    everything = np.concatenate(values)
    low, high = float(everything.min()), float(everything.max())
    if whole:
        step = max(1, round((high - low) / 40))
        edges = np.arange(low, high + 2 * step, step) - 0.5
    else:
        edges = np.linspace(low, high if high > low else low + 1, 31)
    with chart(title, across, up) as (figure, axes):
        for place, one in enumerate(values):
            heights, _ = np.histogram(one, edges)
            axes.stairs(heights, edges, color=list(COLOURS)[place], linestyle=DASHES[place], linewidth=1.5)
        return svg(figure, key, alt)
