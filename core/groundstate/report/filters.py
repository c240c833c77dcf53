"""Filters as pictures: the decoder's columns, the encoder's rows of the same units, learned inhibition."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from markupsafe import Markup
from torch import Tensor

from groundstate.report.charts import histogram
from groundstate.report.material import Material, render
from groundstate.report.pictures import as_pictures, columns_for, picture, sheet, signed_tiles, tinted
from groundstate.report.words import count, number, percent
from groundstate.structure import Groups, Inhibition, Tree

MOST = 1024
"""Filters shown at most,"""
MOST_VALUES = 1_000_000
"""and their pixels, for the size of the page."""
LARGEST_MATRIX = 512
PAIRS = 12
_BY_USE = "the most used first"


@dataclass(frozen=True)
class Dictionary:
    """A linear decoder's columns as rows, (units, n), in the order they are shown, and why in that one."""

    columns: Tensor
    order: Tensor
    reason: str
    shape: tuple[int, ...]


def dictionary(material: Material) -> Dictionary | None:
    """The decoder's columns where they can be looked at: a matrix, and inputs that are pictures."""
    decoder, shape = material.model.decoder, material.run.splits.picture_shape
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
    return Dictionary(columns, order, reason, tuple(shape))


def _numbered(material: Material) -> bool:
    """Whether units are related by their numbers: pools, trees, or inhibition that is given."""
    for term in material.model.energy.terms.values():
        match term.structure():
            case Groups() | Tree():
                return True
            case Inhibition():
                return not any(spec.direction == "ascend" for _, _, spec in term.declared())
    return False


def filters(material: Material) -> Markup | None:
    shown = dictionary(material)
    if shown is None:
        return None
    total, order = len(shown.columns), shown.order
    order = order[: min(MOST, max(1, MOST_VALUES // shown.columns.shape[1]))]
    decoder = _sheet(shown.columns[order], shown.shape)
    rows = _encoder_rows(material, tuple(shown.columns.shape))
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
                    _sheet(matrix[order], shown.shape),
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


def _sheet(rows: Tensor, shape: tuple[int, ...]) -> np.ndarray:
    tiles = signed_tiles(as_pictures(rows, shape))
    return sheet(tiles, columns_for(len(tiles), *tiles.shape[1:3]))


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[-2]}×{shape[-1]}"


def _encoder_rows(material: Material, shape: tuple[int, ...]) -> tuple[str, Tensor] | None:
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


def inhibition(material: Material) -> Markup | None:
    """Each term that is lateral inhibition: its matrix S, sorted where it is learned."""
    found = []
    for name, term in material.model.energy.terms.items():
        form = term.structure()
        if isinstance(form, Inhibition):
            learned = any(spec.direction == "ascend" for _, _, spec in term.declared())
            found.append(_matrix(material, name, form.matrix.detach().cpu().double(), learned))
    return Markup().join(found) if found else None


def _matrix(material: Material, name: str, matrix: Tensor, learned: bool) -> Markup:
    order = _seriation(matrix) if learned else torch.arange(len(matrix))
    ordered = matrix[order][:, order]
    step = -(-len(ordered) // LARGEST_MATRIX)
    if step > 1:
        ordered = torch.nn.functional.max_pool2d(ordered[None, None], step, ceil_mode=True)[0, 0]
    largest = float(matrix.max())
    share = float((matrix > 0).double().sum()) / max(1, len(matrix) * (len(matrix) - 1))
    pixels = np.rint(255 * (ordered / max(largest, 1e-30)).clamp(0, 1).sqrt().numpy()).astype(np.uint8)
    alt = (
        f"Matrix of inhibition between {count(len(matrix), 'unit')}: {percent(share)} of the pairs inhibit each "
        f"other, the strongest by {number(largest, 3)}."
    )
    return render(
        "inhibition",
        name=name,
        picture=tinted(pixels, alt),
        learned=learned,
        largest=largest,
        share=share,
        row_sum=float(matrix.sum(1).max()),
        pooled=step,
        pairs=_strongest(material, matrix),
    )


def _seriation(matrix: Tensor) -> Tensor:
    """An order of units in which each next one is inhibited most by one that came before (Prim's).

    Where several could be next, the one with the largest sum of its row.
    """
    strength = matrix.sum(1)
    ties = 1e-6 * matrix.max() * strength / strength.max().clamp_min(1e-30)
    nearness = torch.zeros_like(strength)
    order: list[int] = []
    for _ in range(len(matrix)):
        score = nearness + ties
        score[order] = -torch.inf
        order.append(int(score.argmax()))
        nearness = torch.maximum(nearness, matrix[order[-1]])
    return torch.tensor(order)


def _strongest(material: Material, matrix: Tensor) -> Markup | None:
    """The filters of the pairs that inhibit each other most, one above the other."""
    shown = dictionary(material)
    if shown is None or len(shown.columns) != len(matrix) or not bool((matrix > 0).any()):
        return None
    above = matrix.triu(1)
    flat = above.flatten().topk(min(PAIRS, int((above > 0).sum()))).indices
    first, second = flat // len(matrix), flat % len(matrix)
    tiles = signed_tiles(as_pictures(shown.columns[torch.cat([first, second])], shown.shape))
    return picture(
        sheet(tiles, len(flat)),
        f"The decoder filters of the {len(flat)} pairs of units that inhibit each other most, one above the other.",
        css="strip",
    )
