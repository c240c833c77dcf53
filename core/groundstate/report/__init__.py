"""The report of a run: one HTML page that holds all that it shows."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from groundstate import provenance
from groundstate.errors import InputError
from groundstate.files import require_writable, write_text
from groundstate.hooks import Section
from groundstate.report import (
    codes,
    comparison,
    filters,
    groups,
    inhibition,
    iterates,
    labels,
    origin,
    training,
    trees,
    variational,
)
from groundstate.report.material import Material, render
from groundstate.report.summary import summary
from groundstate.report.words import when
from groundstate.run import CHECKPOINT, MODEL, REPORT, Run, open_run
from groundstate.stack import Stack

logger = logging.getLogger(__name__)

Make = Callable[[Material], Markup | None]

SECTIONS: tuple[tuple[int, str, Make], ...] = (
    (10, "Summary", summary),
    (20, "Filters", filters.filters),
    (30, "Energies and learning rate", training.energies),
    (40, "Steps of the encoder", iterates.steps),
    (50, "Use of the code", codes.usage),
    (52, "Pools", groups.pools),
    (54, "Trees", trees.sections),
    (56, "Lateral inhibition", inhibition.inhibition),
    (58, "Rate and distortion", variational.rate_and_distortion),
    (60, "Reconstructions", codes.reconstructions),
    (70, "Confusion matrix", labels.confusion),
    (75, "Calibration", labels.calibration),
    (80, "Certificates", codes.certificates),
    (900, "Config", origin.config),
    (910, "Environment", origin.environment),
)
"""Order, heading and maker of each built-in section; a maker gives None where a section does not apply."""


OF_THE_RUN = 900
"""From this order on, sections are of the whole run, not of a layer."""
EACH_LAYER = 100
"""So far on are the sections of the next layer."""


def write_report(run: Run | Path) -> Path:
    """Write ``report.html`` into a run's folder and return its path.

    run: a run in this process, or the folder of one; its data is then read and its model loaded, from where it
    was saved or else from the last checkpoint. Sections of callbacks (hook ``report_sections``) are sorted in by
    their order. A section that fails is replaced by what went wrong and logged: a picture is not worth a run.
    """
    if isinstance(run, Path):
        run = opened(run)
    layers = (Material(run, depth) for depth in range(len(run.stack)))
    built_in = [section for material in layers for section in _of_layer(material)]
    sections = sorted((*built_in, *_of_callbacks(run)), key=lambda section: section.order)
    status = run.record["status"]
    about = Markup('<span class="status {}">{}</span> {} · {}').format(
        status, status, run.id, when(run.record["created"])
    )
    return _write(run.folder / REPORT, f"{run.name}: report of {run.id}", "report of a run", run.name, about, sections)


def write_comparison(folders: Sequence[Path], path: Path) -> Path:
    """Write one page with several runs side by side to ``path`` and return it.

    folders: of two runs or more, whose data is read and whose models are loaded, as for a report of one. InputError
    where one cannot be, where one is given twice, or where they are too many for one page.
    """
    if not 2 <= len(folders) <= comparison.MOST:
        raise InputError(f"a page takes 2 to {comparison.MOST} runs side by side, not {len(folders)}")
    places = [folder.resolve() for folder in folders]
    twice = next((place for place in places if places.count(place) > 1), None)
    if twice is not None:
        raise InputError(f"{twice.name} is given twice; name each run once")
    require_writable(path.parent, "--output")
    runs = comparison.Runs([_top(opened(folder)) for folder in folders])
    made = (_section(title, 0, make, runs) for title, make in comparison.SECTIONS)
    names = dict.fromkeys(material.run.name for material in runs.materials)
    title = " · ".join(names)
    about = f"{len(folders)} runs side by side"
    return _write(
        path, f"{title}: {about}", "comparison of runs", title, Markup(escape(about)), list(filter(None, made))
    )


def _write(path: Path, title: str, what: str, name: str, about: Markup, sections: Sequence[Section]) -> Path:
    version = provenance.versions()[provenance.DISTRIBUTION]
    page = render("page", title=title, what=what, name=name, about=about, sections=sections, version=version)
    write_text(path, str(page))
    return path


def _top(run: Run) -> Material:
    return Material(run, len(run.stack) - 1)


def _of_layer(material: Material) -> Iterable[Section]:
    """Every section of a layer; those of the whole run with the first one."""
    for order, title, make in SECTIONS:
        whole = order >= OF_THE_RUN
        section = None if whole and material.depth else _section(title, order, make, material)
        if section is None:
            continue
        if whole or not material.name:
            yield section
        else:
            # layer after layer, each with all of its sections
            place = min(order + EACH_LAYER * material.depth, OF_THE_RUN - 1)
            yield Section(f"{material.name}: {title}", _apart(section.html, material.name), place)


def _apart(html: str, name: str) -> str:
    """The same with ids that no other layer's section has."""
    return re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{name}-", html)


def _section(
    title: str, order: int, make: Callable[[Any], Markup | None], material: Material | comparison.Runs
) -> Section | None:
    try:
        html = make(material)
    except Exception as error:
        html = _problem(title, error)
    return None if html is None else Section(title, str(html), order)


def _of_callbacks(run: Run) -> Iterable[Section]:
    try:
        return [section for sections in run.hook.report_sections(run=run) for section in sections]
    except Exception as error:
        return [Section("Sections of callbacks", str(_problem("Sections of callbacks", error)), 800)]


def _problem(title: str, error: Exception) -> Markup:
    logger.warning("the report's section '%s' could not be made", title, exc_info=error)
    return Markup('<p class="problem">This section could not be made: {}: {}</p>').format(
        type(error).__name__, escape(str(error))
    )


def opened(folder: Path) -> Run:
    """The run in a folder with its trained model, from where it was saved or else from the last checkpoint."""
    run = open_run(folder)
    if (folder / MODEL).is_dir():
        run.adopt(Stack.load(folder / MODEL))
        return run
    checkpoint = folder / CHECKPOINT
    if not checkpoint.is_file():
        raise InputError(f"{folder} holds neither a trained model nor a checkpoint; there is nothing to report yet")
    run.restore()
    return run
