"""Orientation maps: how filters on a sheet are tuned, whether neighbours are alike, and where pinwheels are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor

FINER = 4
"""The spectrum is sampled at so many points per reciprocal of a filter's side."""
AT_ONCE = 2048
"""Filters whose spectra are held at the same time."""


class Tuning(NamedTuple):
    """What gratings filters answer to, float64 of the filters' own leading shape.

    orientation: of the wave vector, radians in [0, π), from the columns' axis towards the rows'; stripes lie across
    it. frequency: cycles per pixel.
    """

    orientation: Tensor
    frequency: Tensor


def tuning(filters: Tensor) -> Tuning:
    """The tuning of filters (…, height, width), by the centroid of each one's Fourier power around its peak.

    A real filter's power is the same at f and −f. The centroid is taken over the neighbourhood of the peak, one
    reciprocal of the shorter side around it, of the power above half the peak's; each point is f or −f, whichever
    lies towards the peak. The mean is left out. A filter without power is at 0, 0.
    """
    *shape, height, width = filters.shape
    flat = filters.detach().to("cpu", torch.float64).reshape(-1, height, width)
    parts = [_tuning(part) for part in torch.split(flat, AT_ONCE)]
    orientation, frequency = (torch.cat(values).view(shape) for values in zip(*parts, strict=True))
    return Tuning(orientation, frequency)


def _tuning(filters: Tensor) -> Tuning:
    _, height, width = filters.shape
    padded = (FINER * height, FINER * width)
    power = torch.fft.fft2(filters - filters.mean((1, 2), keepdim=True), s=padded).abs().square()
    place = torch.cartesian_prod(*(torch.fft.fftfreq(side, dtype=torch.float64) for side in padded))
    power = power.flatten(1)
    height_of_peak, at = power.max(1, keepdim=True)
    peak = place[at[:, 0]]
    towards = torch.sign(peak @ place.T)
    mirrored = towards[:, :, None] * place  # a point at a right angle to the peak is far from it, or counts for both
    near = (mirrored - peak[:, None]).norm(dim=2) < 1 / min(height, width)
    weight = torch.where(near, (power - 0.5 * height_of_peak).clamp_min(0), 0.0)
    centre = (weight[:, :, None] * mirrored).sum(1) / weight.sum(1, keepdim=True).clamp_min(1e-300)
    return Tuning(torch.atan2(centre[:, 0], centre[:, 1]) % math.pi % math.pi, centre.norm(dim=1))


def turn(start: Tensor, end: Tensor) -> Tensor:
    """The signed angle from one orientation to another the shorter way, radians in [−π/2, π/2)."""
    return (end - start + math.pi / 2) % math.pi - math.pi / 2


@dataclass(frozen=True)
class OrientationMap:
    """Tuning of units on a sheet: orientation and frequency (rows, columns); wrap: the sheet is a torus."""

    orientation: Tensor
    frequency: Tensor
    wrap: bool = True

    @classmethod
    def of(cls, filters: Tensor, *, wrap: bool = True) -> Self:
        """filters: (rows, columns, height, width)."""
        return cls(*tuning(filters), wrap=wrap)

    def orientation_ratio(self) -> float:
        """Mean orientation difference of neighbours beside and below each other, over that of all pairs of units."""
        return self.orientation_difference() / _mean_of_pairs(self.orientation, _angle)

    def orientation_difference(self) -> float:
        """Mean orientation difference of neighbours, radians in [0, π/2]; π/4 where they do not know each other."""
        return _mean(_angle(*pair) for pair in self._neighbours(self.orientation))

    def frequency_ratio(self) -> float:
        """The same as ``orientation_ratio`` of the absolute difference in spatial frequency."""
        near = _mean(_distance(*pair) for pair in self._neighbours(self.frequency))
        return near / _mean_of_pairs(self.frequency, _distance)

    def pinwheels(self) -> Tensor:
        """+1 or −1 where orientation turns by π once around a square of four units, 0 elsewhere, int64.

        Entry (i, j) is the square whose upper left unit is (i, j): (rows, columns) on a torus, where all add up to 0,
        else (rows − 1, columns − 1). +1: it turns the same way as the path, rows pointing down.
        """
        angle = self.orientation
        down, right = turn(angle, angle.roll(-1, 0)), turn(angle, angle.roll(-1, 1))
        # each step between two units counts once in either direction, so that nothing is left over on a torus
        around = right + down.roll(-1, 1) - right.roll(-1, 0) - down
        number = torch.round(around / math.pi).to(torch.int64)
        return number if self.wrap else number[:-1, :-1]

    def shuffled(self, generator: torch.Generator) -> OrientationMap:
        """The same units in random places: what the figures are without order."""
        order = torch.randperm(self.orientation.numel(), generator=generator)
        orientation, frequency = (x.flatten()[order].view_as(x) for x in (self.orientation, self.frequency))
        return OrientationMap(orientation, frequency, self.wrap)

    def _neighbours(self, values: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Pairs one step apart along each axis that has steps."""
        pairs = []
        for axis, side in enumerate(values.shape):
            if side > 1:
                first, second = values, values.roll(-1, axis)
                inside = side if self.wrap and side > 2 else side - 1
                pairs.append((first.narrow(axis, 0, inside).flatten(), second.narrow(axis, 0, inside).flatten()))
        return pairs


def _angle(one: Tensor, two: Tensor) -> Tensor:
    return turn(one, two).abs()


def _distance(one: Tensor, two: Tensor) -> Tensor:
    return (one - two).abs()


def _mean(parts: Iterable[Tensor]) -> float:
    return float(torch.cat(list(parts)).mean())


def _mean_of_pairs(values: Tensor, difference: Callable[[Tensor, Tensor], Tensor]) -> float:
    """Over all pairs of units, a row of the matrix of differences at a time."""
    flat = values.flatten()
    return _mean(difference(value, flat[number + 1 :]) for number, value in enumerate(flat))
