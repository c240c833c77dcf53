"""The report of a run: one HTML page that holds all that it shows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path

from markupsafe import Markup, escape
from safetensors import safe_open

from groundstate import provenance
from groundstate.errors import InputError
from groundstate.files import write_text
from groundstate.hooks import Section
from groundstate.model import Model
from groundstate.report import codes, filters, origin, training
from groundstate.report.material import Material, render
from groundstate.report.summary import summary
from groundstate.run import CHECKPOINT, MODEL, REPORT, Run, open_run

logger = logging.getLogger(__name__)

Make = Callable[[Material], Markup | None]

SECTIONS: tuple[tuple[int, str, Make], ...] = (
    (10, "Summary", summary),
    (20, "Filters", filters.filters),
    (30, "Energies and learning rate", training.energies),
    (50, "Use of the code", codes.usage),
    (60, "Reconstructions", codes.reconstructions),
    (70, "Confusion matrix", codes.confusion),
    (80, "Certificates", codes.certificates),
    (90, "Lateral inhibition", filters.inhibition),
    (900, "Config", origin.config),
    (910, "Environment", origin.environment),
)
"""Order, heading and maker of each built-in section; a maker gives None where a section does not apply."""


def write_report(run: Run | Path) -> Path:
    """Write ``report.html`` into a run's folder and return its path.

    run: a run in this process, or the folder of one; its data is then read and its model loaded, from where it
    was saved or else from the last checkpoint. Sections of callbacks (hook ``report_sections``) are sorted in by
    their order. A section that fails is replaced by what went wrong and logged: a picture is not worth a run.
    """
    if isinstance(run, Path):
        run = _opened(run)
    material = Material(run)
    sections = sorted((*_built_in(material), *_of_callbacks(run)), key=lambda section: section.order)
    record = run.record
    page = render(
        "page",
        name=run.name,
        id=run.id,
        status=record["status"],
        when=_when(record["created"]),
        sections=sections,
        version=provenance.versions()[provenance.DISTRIBUTION],
    )
    path = run.folder / REPORT
    write_text(path, str(page))
    return path


def _built_in(material: Material) -> Iterable[Section]:
    for order, title, make in SECTIONS:
        try:
            html = make(material)
        except Exception as error:
            html = _problem(title, error)
        if html is not None:
            yield Section(title, str(html), order)


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


def _when(stamp: str) -> str:
    return datetime.fromisoformat(stamp).strftime("%-d %B %Y, %H:%M")


def _opened(folder: Path) -> Run:
    run = open_run(folder)
    if (folder / MODEL).is_dir():
        run.model = Model.load(folder / MODEL)
        return run
    checkpoint = folder / CHECKPOINT
    if not checkpoint.is_file():
        raise InputError(f"{folder} holds neither a trained model nor a checkpoint; there is nothing to report yet")
    with safe_open(checkpoint, "pt") as file:
        names = [name for name in file.keys() if name.startswith("model/")]  # noqa: SIM118
        run.model.load_state_dict({name.removeprefix("model/"): file.get_tensor(name) for name in names})
    return run
