"""Restoration of small pictures: better than what came in, by the same numbers each time; bad input in a sentence."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import groundstate
from groundstate import InputError
from groundstate.restoration import psnr

QUICK = {"model.decoder.units": 64, "phases.learn.epochs": 2, "learning.batch_size": 500}
FILLING = {**QUICK, "inference.max_iterations": 30, "phases.learn.epochs": 1}


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
    mean = torch.where(known, clean, clean[known].mean())
    assert psnr(found, clean) > psnr(mean, clean) + 4


def test_missing_pixels_of_a_noisy_image() -> None:
    clean = picture()
    known = torch.rand(clean.shape, generator=torch.Generator().manual_seed(1)) < 0.7
    found = groundstate.restore(noisy(clean), noise=25.0, mask=known, changes=FILLING).image
    given = torch.where(known, noisy(clean), noisy(clean)[known].mean())
    assert psnr(found, clean) > psnr(given, clean) + 4


def test_a_given_dictionary_is_used_as_it_is() -> None:
    clean = picture()
    learned = groundstate.restore(noisy(clean), noise=25.0, changes=QUICK)
    found = groundstate.restore(noisy(clean), noise=25.0, dictionary=learned.dictionaries[0], changes=QUICK)
    torch.testing.assert_close(found.image, learned.image, atol=1e-4, rtol=1e-4)


def test_progress_ends_where_it_said() -> None:
    told: list[tuple[str, int, int]] = []
    groundstate.restore(noisy(picture()), noise=25.0, changes=QUICK, progress=lambda *now: told.append(now))
    assert [what for what, done, of in told if done == of] == ["learning", "coding"]


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
        ({"mask": (torch.arange(1600) < 1).view(40, 40)}, "pixel in row 0, column 8"),
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
