"""Codes that are distributions: what they cost (rate, in bits) and what they lose (distortion)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from markupsafe import Markup
from numpy.typing import NDArray
from torch import Tensor

from groundstate.report.charts import BLUE, chart, histogram, svg
from groundstate.report.material import Material, render
from groundstate.report.observe import CLOSELY, held_out
from groundstate.report.words import count, number

USED = 0.01
"""Nats of divergence from the prior above which a unit carries something (Burda, Grosse & Salakhutdinov 2016)."""


@dataclass(frozen=True)
class Channel:
    """Codes as a channel from input to decoded. rate: (samples,) bits, KL(q(z|x) ‖ N(0, 1)). units: (units,) bits.

    distortion: (samples,), ½‖x − decoded‖² at a drawn code; at_mean: at the code's mean. None without a decoder.
    """

    rate: NDArray[np.float64]
    units: NDArray[np.float64]
    distortion: NDArray[np.float64] | None
    at_mean: NDArray[np.float64] | None


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, variance) ‖ N(0, 1)) of each entry, in bits, the shape of mean."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance) / math.log(2)


def channel(material: Material) -> Channel | None:
    """What held-out samples' codes cost and lose; None where the encoder shares no mean and log-variance."""
    model, source = material.model, held_out(material.splits)[1]
    if model.encoder is None:
        return None
    batch = source.read(torch.arange(min(CLOSELY, len(source)))).to(model.device, model.dtype)
    generator = torch.Generator(model.device).manual_seed(material.run.config.seed)
    with torch.no_grad():
        code = model.run_encoder(batch.x, generator)
        if code is None or code.mean is None or code.log_variance is None:
            return None
        bits = divergence(code.mean.double(), code.log_variance.double()).cpu()
        lost = (
            [None, None]
            if model.decoder is None
            else [
                0.5 * (batch.x - model.decode(z)).flatten(1).double().square().sum(1).cpu().numpy()
                for z in (code.value, code.mean)
            ]
        )
    units = bits.mean(0).flatten(1).sum(1) if bits.dim() > 2 else bits.mean(0)
    return Channel(bits.flatten(1).sum(1).numpy(), units.numpy(), lost[0], lost[1])


def rate_and_distortion(material: Material) -> Markup | None:
    found = channel(material)
    if found is None:
        return None
    used = found.units > USED / math.log(2)
    top = max(float(found.units.max()), 1e-3)
    pictures = [
        histogram(
            "rate",
            "rate of a code",
            found.rate,
            across="bits",
            up="samples",
            edges=_edges(found.rate),
            alt=f"Histogram of the rate of {count(len(found.rate), 'code')}: mean {number(found.rate.mean(), 3)} bits, "
            f"from {number(found.rate.min(), 3)} to {number(found.rate.max(), 3)}.",
        ),
        histogram(
            "rate-units",
            "rate of a unit",
            found.units[used],
            across="bits, mean over samples",
            up="units",
            edges=np.linspace(0, 1.0001 * top, 31),
            apart=(int((~used).sum()), f"{count(int((~used).sum()), 'unit')} with next to none")
            if (~used).any()
            else None,
            alt=f"Histogram of the mean rate of a unit: {int(used.sum())} of {len(used)} carry more than {USED} nats, "
            f"the most {number(top, 3)} bits.",
        ),
    ]
    if found.distortion is not None:
        pictures.append(_scatter(found.rate, found.distortion))
    return render("variational", found=found, pictures=pictures, used=int(used.sum()), units=len(used), bound=USED)


def _edges(values: NDArray[np.float64]) -> NDArray[np.float64]:
    low, high = float(values.min()), float(values.max())
    return np.linspace(low, high if high > low else low + 1, 41)


def _scatter(rate: NDArray[np.float64], distortion: NDArray[np.float64]) -> Markup:
    shown = slice(0, 500)
    with chart("rate and distortion of samples", "rate (bits)", "½‖x − decoded‖²") as (figure, axes):
        axes.scatter(rate[shown], distortion[shown], 7, color=BLUE, alpha=0.6, linewidths=0)
        axes.set_ylim(bottom=0)
        alt = (
            f"Scatter plot of {len(rate[shown])} samples: rate {number(rate.mean(), 3)} bits and distortion "
            f"{number(distortion.mean(), 3)} on average."
        )
        return svg(figure, "rate-distortion", alt)
