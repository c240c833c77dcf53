"""The codes of held-out samples: how units are used, what the codes restore, how near to the lowest energy they are."""

from __future__ import annotations

import numpy as np
import torch
from markupsafe import Markup
from numpy.typing import NDArray

from groundstate.report.charts import histogram, lines
from groundstate.report.material import Material, render
from groundstate.report.observe import Observed
from groundstate.report.pictures import as_pictures, picture, positive_tiles, sheet, signed_tiles
from groundstate.report.timeline import curve
from groundstate.report.words import count, number, percent

SIGNALS = 4


def usage(material: Material) -> Markup:
    seen = material.observed
    frequency = seen.frequency.numpy()
    dead = int((frequency == 0).sum())
    alive = frequency[frequency > 0]
    edges = np.linspace(0, _above(float(frequency.max(initial=0.01))), 41)
    pictures = [
        histogram(
            "usage",
            "how often a unit is active",
            alive,
            across="share of samples in which it is active",
            up="units",
            edges=edges,
            apart=(dead, f"{count(dead, 'dead unit')}") if dead else None,
            alt=f"Histogram of the share of samples in which a unit is active: median "
            f"{percent(float(np.median(frequency)))}, largest {percent(float(frequency.max()))}; "
            f"{count(dead, 'unit')} never active.",
        ),
        _active(seen),
        curve(
            material.timeline,
            "density",
            "active share of a code",
            training=material.timeline.training("code/density"),
            validation=material.timeline.validation("code/density"),
        ),
    ]
    density = float(seen.active.double().mean()) / seen.entries
    return render(
        "usage",
        pictures=[part for part in pictures if part is not None],
        seen=seen,
        dead=dead,
        units=len(frequency),
        density=density,
        positions=seen.entries // len(frequency),
    )


def _above(value: float) -> float:
    """A round number not below value, for the end of an axis."""
    step = 10 ** np.floor(np.log10(value)) / 2
    return float(np.ceil(value / step) * step)


def _active(seen: Observed) -> Markup:
    active = seen.active.numpy()
    low, high = int(active.min()), int(active.max())
    step = max(1, -(-(high - low + 1) // 40))
    return histogram(
        "active",
        "active entries of a code",
        active,
        across="active entries",
        up="samples",
        edges=np.arange(low, high + step + 1, step) - 0.5,
        alt=f"Histogram of the number of active entries of a code: from {low:,} to {high:,}, "
        f"median {number(float(np.median(active)))} of {seen.entries:,}.",
    )


def reconstructions(material: Material) -> Markup | None:
    seen = material.observed
    if seen.decoded is None or seen.decoded.shape != seen.shown.x.shape:
        return None
    x, decoded = seen.shown.x.flatten(1).double(), seen.decoded.flatten(1).double()
    unexplained = (x - decoded).square().sum(1) / x.square().sum(1).clamp_min(1e-30)
    shape = material.splits.picture_shape
    if shape is None or int(np.prod(shape)) != x.shape[1]:
        return _signals(seen, x, decoded, unexplained)
    samples = []
    for number_, (one, restored) in enumerate(zip(x, decoded, strict=True)):
        trio = as_pictures(torch.stack([one, restored, one - restored]), tuple(shape))
        scale = float(np.abs(trio[0]).max())
        signed = float(trio[0].min()) < 0
        tiles = signed_tiles(trio, scale) if signed else positive_tiles(trio[:2], scale)
        if not signed:
            tiles = np.concatenate([tiles, signed_tiles(trio[2:], scale)])
        error = percent(float(unexplained[number_]))
        alt = f"Sample {number_ + 1}: input, reconstruction and difference, one above the other; {error} unexplained."
        samples.append((picture(sheet(tiles, 1), alt, css="sample", sharp_width=140), error, _said(seen, number_)))
    return render("reconstructions", samples=samples, split=seen.split, labels=seen.labels)


def _said(seen: Observed, row: int) -> tuple[int, int] | None:
    """The label of a sample and what the model says."""
    if seen.labels is None:
        return None
    return int(seen.labels.truth[row]), int(seen.labels.predicted[row])


def _signals(seen: Observed, x: torch.Tensor, decoded: torch.Tensor, unexplained: torch.Tensor) -> Markup:
    places = np.arange(x.shape[1])
    pictures = [
        lines(
            f"signal{row}",
            f"sample {row + 1}: {percent(float(unexplained[row]))} unexplained",
            [(places, x[row].numpy()), (places, decoded[row].numpy())],
            across="entry of the input",
            up="",
            alt=f"The {x.shape[1]} entries of sample {row + 1} and their reconstruction, "
            f"which leaves {percent(float(unexplained[row]))} unexplained.",
        )
        for row in range(min(SIGNALS, len(x)))
    ]
    return render("signals", pictures=pictures, split=seen.split)


def certificates(material: Material) -> Markup | None:
    seen = material.observed
    if seen.certificate is None:
        return None
    solver = material.model.solver.config
    relative = seen.certificate.relative.double().numpy()
    finite = relative[np.isfinite(relative)]
    positive = finite[finite > 0]
    stops = solver.max_iterations > 0
    tolerance = solver.tolerance if stops else None
    kind = "duality gap" if seen.certificate.kind == "gap" else "fixed-point residual"
    chart = None
    if len(positive):
        chart = histogram(
            "certificate",
            f"relative {kind}",
            positive,
            across="relative " + kind,
            up="samples",
            edges=_decades(positive, tolerance),
            log=True,
            mark=(tolerance, "tolerance") if tolerance else None,
            alt=f"Histogram of the relative {kind} of {count(len(relative), 'code')}: median "
            f"{number(float(np.median(relative)), 3)}, largest {number(float(relative.max()), 3)}"
            + (f"; the tolerance is {number(tolerance)}." if tolerance else "."),
        )
    gaps = {name: value for name, value in material.metrics.items() if "amortisation_gap/" in name}
    return render(
        "certificates",
        picture=chart,
        kind=kind,
        gap=seen.certificate.kind == "gap",
        samples=len(relative),
        zero=int((relative == 0).sum()),
        infinite=int((~np.isfinite(relative)).sum()),
        median=float(np.median(relative)),
        tolerance=tolerance,
        reached=float((relative <= solver.tolerance).mean()),
        iterations=seen.iterations.double().numpy(),
        limit=solver.max_iterations,
        gaps={name.rsplit("/", 1)[1]: value for name, value in gaps.items()},
        reference=material.run.config.evaluation.reference,
    )


def _decades(values: NDArray[np.float64], through: float | None) -> NDArray[np.float64]:
    """Evenly spaced powers around positive values, one of them ``through`` a given place."""
    low, high = np.log10(values.min()), np.log10(values.max())
    middle = np.log10(through) if through else low
    low, high = min(low, middle), max(high, middle)
    width = next((width for width in (0.02, 0.05, 0.1, 0.2) if high - low <= 40 * width), (high - low) / 40)
    before, after = np.ceil((middle - low) / width), np.floor((high - middle) / width) + 1
    return np.logspace(middle - width * before, middle + width * after, int(before + after) + 1)
