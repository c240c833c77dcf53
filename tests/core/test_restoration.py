"""Restoration of small pictures: better than what came in, by the same numbers each time; bad input in a sentence."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import groundstate
from groundstate import InputError
from groundstate.interpolation import smooth_fill
from groundstate.restoration import psnr

QUICK = {"model.decoder.units": 64, "phases.learn.epochs": 2, "learning.batch_size": 500}
FILLING = {**QUICK, "phases.learn.epochs": 1}


def picture(side: int = 40) -> Tensor:
    """Stripes in two directions, grey levels."""
    row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return torch.where((row + column) % 16 < 8, 60.0, 180.0) + torch.where(column > side / 2, 30.0, 0.0)


def noisy(clean: Tensor, sigma: float = 25.0) -> Tensor:
    return clean + sigma * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("colour", [False, True])
def test_noise_is_removed(colour: bool) -> None:
    clean = torch.stack([picture(), 0.5 * picture(), 200 - picture()]) if colour else picture()
    found = groundstate.restore(noisy(clean), noise=25.0, changes=QUICK)
    assert found.image.shape == clean.shape
    assert psnr(found.image, clean) > psnr(noisy(clean), clean) + 7
    assert [matrix.shape for matrix in found.dictionaries] == [(64, 64)] * (3 if colour else 1)
    again = groundstate.restore(noisy(clean), noise=25.0, changes=QUICK)
    assert torch.equal(again.image, found.image)


def test_a_scale_of_the_image_and_the_noise_changes_nothing_else() -> None:
    clean = picture()
    one = groundstate.restore(noisy(clean), noise=25.0, changes=QUICK).image
    other = groundstate.restore(noisy(clean) * 0.5, noise=12.5, changes=QUICK).image
    torch.testing.assert_close(one, 2 * other, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("by", ["mask", "nan"])
def test_missing_pixels_are_filled_in_and_known_ones_stay(by: str) -> None:
    clean = picture().double()
    known = torch.rand(clean.shape, generator=torch.Generator().manual_seed(1)) < 0.5
    gone = torch.where(known, clean, torch.nan if by == "nan" else 999.0)
    found = groundstate.restore(gone, mask=known if by == "mask" else None, changes=FILLING).image
    assert torch.equal(found[known], clean[known])
    assert psnr(found, clean) > psnr(smooth_fill(clean, known), clean) + 4


def test_missing_pixels_of_a_noisy_image() -> None:
    clean = picture()
    known = torch.rand(clean.shape, generator=torch.Generator().manual_seed(1)) < 0.7
    found = groundstate.restore(noisy(clean), noise=25.0, mask=known, changes=FILLING).image
    assert psnr(found, clean) > psnr(smooth_fill(noisy(clean), known), clean) + 4


def test_the_range_of_the_known_pixels_is_the_unit_without_noise() -> None:
    clean = picture()
    known = torch.rand(clean.shape, generator=torch.Generator().manual_seed(1)) < 0.5
    one = groundstate.restore(clean, mask=known, changes=FILLING).image
    other = groundstate.restore(clean / 255, mask=known, changes=FILLING).image
    torch.testing.assert_close(one, 255 * other, atol=1e-3, rtol=1e-5)


def test_a_hole_in_a_flat_picture_is_flat() -> None:
    known = torch.ones(40, 40, dtype=torch.bool)
    known[10:30, 10:30] = False
    found = groundstate.restore(torch.full((40, 40), 9.0), mask=known, changes=FILLING).image
    torch.testing.assert_close(found, torch.full((40, 40), 9.0).double())


def test_a_given_dictionary_is_used_as_it_is() -> None:
    clean = picture()
    (learned,) = groundstate.restore(noisy(clean), noise=25.0, changes=QUICK).dictionaries
    found = groundstate.restore(noisy(clean), noise=25.0, dictionary=2 * learned, changes=QUICK)
    torch.testing.assert_close(found.dictionaries[0], learned)
    assert psnr(found.image, clean) > psnr(noisy(clean), clean) + 4


def test_progress_ends_where_it_said() -> None:
    told: list[tuple[str, int, int]] = []
    groundstate.restore(noisy(picture()), noise=25.0, changes=QUICK, progress=lambda *now: told.append(now))
    assert [what for what, done, of in told if done == of] == [
        "learning 1/2",
        "coding 1/2",
        "learning 2/2",
        "coding 2/2",
    ]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"image": torch.zeros(6, 30), "noise": 1.0}, "6×30 pixels, fewer than a patch of 8×8"),
        ({"noise": 0.0}, "above 0"),
        ({"noise": float("nan")}, "above 0"),
        ({}, "nothing is to be done"),
        ({"mask": torch.ones(3, 4)}, "the mask has 3×4 pixels, the image 40×40"),
        ({"mask": torch.zeros(40, 40)}, "every pixel of the image is missing"),
        ({"image": torch.full((40, 40), torch.nan)}, "every pixel of the image is missing"),
        ({"image": torch.full((40, 40), torch.inf), "noise": 1.0}, "infinity"),
        ({"image": torch.zeros(4, 40, 40), "noise": 1.0}, "(height, width) or (3, height, width)"),
        ({"noise": 1.0, "dictionary": torch.zeros(49, 100)}, "(64, units)"),
        ({"noise": 1.0, "size": 1}, "at least 2"),
    ],
)
def test_bad_input(given: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as refused:
        groundstate.restore(**{"image": picture(), **given})
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)
