"""Local contrast normalisation against its definition, written with loops in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from groundstate import Context, InputError
from groundstate_plugins.transforms.contrast_normalise import ContrastNormalise


def built(shape: tuple[int, ...], size: int) -> ContrastNormalise:
    part = ContrastNormalise(size=size)
    part.build(Context(shape, shape, torch.Generator()))
    return part.double()


def by_definition(x: np.ndarray, size: int) -> np.ndarray:
    """Jarrett et al. 2009, section 2.1, pixel by pixel; the window's weights sum to 1 over what is inside."""
    _, height, width = x.shape
    middle, sigma = size // 2, size / 4

    def smooth(image: np.ndarray) -> np.ndarray:
        out = np.zeros((height, width))
        for row in range(height):
            for column in range(width):
                total, weight = 0.0, 0.0
                for i in range(max(0, row - middle), min(height, row + middle + 1)):
                    for j in range(max(0, column - middle), min(width, column + middle + 1)):
                        w = np.exp(-((i - row) ** 2 + (j - column) ** 2) / (2 * sigma**2))
                        total += w * image[:, i, j].mean()
                        weight += w
                out[row, column] = total / weight
        return out

    v = x - smooth(x)
    deviation = np.sqrt(smooth(v**2))
    normalised: np.ndarray = v / np.maximum(deviation, deviation.mean())
    return normalised


def test_it_is_its_definition() -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 9, 7))
    found = built((3, 9, 7), 5)(torch.from_numpy(x))
    for sample in range(2):
        # the window is made in single precision
        np.testing.assert_allclose(found[sample].numpy(), by_definition(x[sample], 5), rtol=1e-5, atol=1e-6)


def test_brightness_and_contrast_of_an_image_do_not_matter() -> None:
    x = torch.rand(1, 1, 12, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    part = built((1, 12, 12), 7)
    torch.testing.assert_close(part(3 * x + 5), part(x), rtol=1e-9, atol=1e-9)


def test_an_image_without_contrast_gives_zeros() -> None:
    found = built((1, 8, 8), 3)(torch.full((1, 1, 8, 8), 0.5, dtype=torch.float64))
    assert float(found.abs().max()) < 1e-6


def test_what_does_not_fit_is_refused_in_one_sentence() -> None:
    with pytest.raises(InputError, match="size: a window of 9×9 is too large for images of 4×20"):
        ContrastNormalise(size=9).output_shape((1, 4, 20))
    with pytest.raises(InputError, match=r"needs images .*, not inputs of shape \(64,\)"):
        ContrastNormalise().output_shape((64,))
    with pytest.raises(ValidationError, match="a window needs a middle: 7 or 9, not 8"):
        ContrastNormalise(size=8)
