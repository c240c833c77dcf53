"""Filters as pictures: the decoder's columns, and the encoder's rows of the same units."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from markupsafe import Markup
from torch import Tensor

from groundstate.report.charts import histogram
from groundstate.report.material import Material, render
from groundstate.report.pictures import Pixels, as_pictures, columns_for, picture, sheet, signed_tiles
from groundstate.report.windows import shared_and_local
from groundstate.report.words import number
from groundstate.structure import Inhibition, Pooled, Tree

MOST = 1024
"""Filters shown at most,"""
MOST_VALUES = 1_000_000
"""and their pixels, for the size of the page."""
_BY_USE = "the most used first"


@dataclass(frozen=True)
class Dictionary:
    """A linear decoder's columns as rows, (units, n), in the order they are shown, and why in that one.

    shape: of one as a picture. sheet: (height, width) where the units stand on one.
    """

    columns: Tensor
    order: Tensor
    reason: str
    shape: tuple[int, ...]
    sheet: tuple[int, int] | None = None


def dictionary(material: Material) -> Dictionary | None:
    """The decoder's columns where they can be looked at: a matrix, and inputs that are pictures."""
    decoder, shape = material.model.decoder, material.splits.picture_shape
    linear = decoder.structure() if decoder is not None else None
    if linear is None or shape is None or linear.matrix.shape[0] != int(np.prod(shape)):
        return None
    columns = linear.matrix.detach().cpu().T
    frequency = material.observed.frequency
    if _numbered(material):
        order, reason = torch.arange(len(columns)), "in the order of the units, which the energy gives a meaning"
    elif len(frequency) == len(columns):
        order, reason = torch.argsort(frequency, descending=True, stable=True), _BY_USE
    else:
        order, reason = torch.arange(len(columns)), "in the order of the units"
    forms = [term.structure() for term in material.model.energy.terms.values()]
    sides = next((form.sheet for form in forms if isinstance(form, Pooled) and form.sheet), None)
    if sides is not None and sides[0] * sides[1] == len(columns):
        return Dictionary(columns, order, f"on their {sides[0]}×{sides[1]} sheet", tuple(shape), sides)
    return Dictionary(columns, order, reason, tuple(shape))


def _numbered(material: Material) -> bool:
    """Whether units are related by their numbers: pools, trees, or inhibition that is given."""
    for term in material.model.energy.terms.values():
        match term.structure():
            case Pooled() | Tree():
                return True
            case Inhibition():
                return not any(spec.direction == "ascend" for _, _, spec in term.declared())
    return False


def filters(material: Material) -> Markup | None:
    shown = dictionary(material)
    if shown is None:
        return shared_and_local(material)
    total, order = len(shown.columns), shown.order
    order = order[: min(MOST, max(1, MOST_VALUES // shown.columns.shape[1]))]
    decoder = filter_sheet(shown.columns[order], shown)
    rows = encoder_rows(material, tuple(shown.columns.shape))
    pictures = [
        (
            f"The decoder’s columns, {shown.reason}{_dead(material, shown)}",
            picture(decoder, f"Sheet of {len(order)} decoder filters of {_size(shown.shape)} pixels, {shown.reason}."),
        )
    ]
    angles = None
    if rows is not None:
        name, matrix = rows
        pictures.append(
            (
                f"The encoder’s rows ({name}) of the same units",
                picture(
                    filter_sheet(matrix[order], shown),
                    f"Sheet of the encoder filters of the same {len(order)} units, in the same places.",
                ),
            )
        )
        angles = _angles(matrix, shown.columns)
    return render("filters", pictures=pictures, shown=len(order), total=total, angles=angles)


def _dead(material: Material, shown: Dictionary) -> str:
    dead = int((material.observed.frequency == 0).sum())
    by_use = shown.reason == _BY_USE
    return f"; the last {dead} are never active" if dead > 1 and by_use else ""


def filter_sheet(rows: Tensor, shown: Dictionary) -> Pixels:
    """Filters (m, n) beside and below each other, on their own sheet where they have one."""
    tiles = signed_tiles(as_pictures(rows, shown.shape))
    if shown.sheet is not None and len(rows) == shown.sheet[0] * shown.sheet[1]:
        return sheet(tiles, shown.sheet[1])
    return sheet(tiles, columns_for(len(tiles), *tiles.shape[1:3]))


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[-2]}×{shape[-1]}"


def encoder_rows(material: Material, shape: tuple[int, ...]) -> tuple[str, Tensor] | None:
    """The encoder's first parameter with a row per unit: (units, n), or the first of several such matrices."""
    if material.model.encoder is None:
        return None
    for name, parameter in material.model.encoder.named_parameters():
        if parameter.shape == shape:
            return name, parameter.detach().cpu()
        if parameter.dim() == 3 and parameter.shape[1:] == shape:
            return f"{name}, first step", parameter[0].detach().cpu()
    return None


def _angles(rows: Tensor, columns: Tensor) -> Markup | None:
    """How far each unit's encoder row points away from its decoder column."""
    if rows.shape[0] == rows.shape[1] and len(rows) < 10:
        return None
    cosine = torch.cosine_similarity(rows.double(), columns.double(), dim=1).clamp(-1, 1)
    angle = cosine.arccos().numpy()
    middle = number(float(np.median(angle)), 3)
    return histogram(
        "angles",
        "angle between encoder row and decoder column",
        angle,
        across="angle (radians)",
        up="units",
        edges=np.linspace(0, np.ceil(10 * max(float(angle.max()), 0.1)) / 10, 41),
        alt=f"Histogram of the angle between a unit’s encoder row and decoder column: median {middle} radians.",
    )
