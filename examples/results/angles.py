"""What protocols of DrSAE measure and draw: the angle between a unit's encoder row and its decoder column."""

from __future__ import annotations

import numpy as np
import torch
from lab import Trained
from numpy.typing import NDArray

from groundstate.model import encode_source

PART, CATEGORICAL = 0.5, 0.7  # radians, the paper's bounds
SHOWN = 12


def used(run: Trained) -> NDArray[np.bool_]:
    """Which units are ever active on the test images."""
    test = run.opened().splits.test
    assert test is not None
    with torch.no_grad():
        return (encode_source(run.model, test) != 0).any(0).numpy()


def angle_of(run: Trained) -> NDArray[np.float64]:
    """The angle of each unit in use, radians."""
    return every_angle(run)[used(run)]


def every_angle(run: Trained) -> NDArray[np.float64]:
    decoder, encoder = run.model.decoder, run.model.encoder
    assert decoder is not None
    assert encoder is not None
    return decoder.structure().angles(encoder.feedforward).numpy()


def valley(angles: NDArray[np.float64]) -> float:
    """The fewest units per bin between the bounds, over the lower of the peaks below and above; 1 for one mode."""
    edges = np.arange(0, np.pi / 2 + 0.05, 0.05)
    counts, middle = np.histogram(angles, edges)[0], (edges[:-1] + edges[1:]) / 2
    below, above = counts[middle < PART].max(), counts[middle > CATEGORICAL].max()
    between = counts[(middle > PART) & (middle < CATEGORICAL)].min()
    lower = min(below, above)
    return float(between / lower) if lower else 1.0


def sheet(tiles: NDArray[np.float32]) -> NDArray[np.float32]:
    """Two rows of filters, each scaled by its largest absolute value."""
    full = np.ones((2 * 29, SHOWN // 2 * 29), np.float32)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, SHOWN // 2)
        full[row * 29 : row * 29 + 28, column * 29 : column * 29 + 28] = tile / np.abs(tile).max()
    return full
