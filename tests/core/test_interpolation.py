"""The smooth fill against scikit-image's, and where it must be exact."""

from __future__ import annotations

import pytest
import torch

from groundstate.interpolation import smooth_fill

inpaint = pytest.importorskip("skimage.restoration", reason="needs scikit-image").inpaint_biharmonic


def test_as_scikit_image_inside() -> None:
    image = torch.rand(14, 17, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).cumsum(0).cumsum(1)
    known = torch.ones(14, 17, dtype=torch.bool)
    known[2:-2, 2:-2] = torch.rand(10, 13, generator=torch.Generator().manual_seed(1)) < 0.5
    found = smooth_fill(torch.where(known, image, torch.nan), known)
    wanted = torch.from_numpy(inpaint(torch.where(known, image, 0.0).numpy(), ~known.numpy()))
    torch.testing.assert_close(found, wanted, atol=1e-8, rtol=1e-8)


def test_one_known_pixel_is_everywhere() -> None:
    known = torch.zeros(5, 6, dtype=torch.bool)
    known[4, 0] = True
    torch.testing.assert_close(smooth_fill(torch.full((5, 6), 7.0), known), torch.full((5, 6), 7.0).double())


def test_nothing_missing() -> None:
    image = torch.arange(12.0).view(3, 4)
    torch.testing.assert_close(smooth_fill(image, torch.ones(3, 4, dtype=torch.bool)), image.double())
