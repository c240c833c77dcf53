"""What several data plugins share: parts, scales, labelled pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from sklearn.preprocessing import normalize

from groundstate.errors import InputError
from groundstate_plugins.data.rows import Share, part_sizes, picture_splits, unit_norm_


def pictures(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (count, 4, 5), generator=generator).to(torch.uint8)
    return pixels, torch.randint(3, (count,), generator=generator)


def test_parts_by_count_and_by_fraction():
    assert part_sizes(1000, 0.2, 50) == {"validation": 200, "test": 50}
    assert part_sizes(1000, 0, 0.0) == {}
    assert part_sizes(10, 9) == {"validation": 9}


@pytest.mark.parametrize(("validation", "test"), [(0.5, 0.5), (10, 0), (0.2, 8)])
def test_parts_that_leave_nothing_for_training(validation, test):
    with pytest.raises(InputError, match=r"data\.validation.*none of the 10 samples for training"):
        part_sizes(10, validation, test)


def test_a_share_is_a_count_or_a_fraction_below_one():
    share = TypeAdapter(Share)
    assert [share.validate_python(value) for value in (0, 5, 0.25)] == [0, 5, 0.25]
    for wrong in (-1, -0.5, 1.0, 1.5):
        with pytest.raises(ValidationError) as raised:
            share.validate_python(wrong)
        assert raised.value.error_count() == 1


def test_unit_norm_equals_scikit_learn_and_keeps_zeros():
    x = torch.randn(7, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x[2] = 0
    expected = normalize(x.flatten(1).numpy())
    np.testing.assert_allclose(unit_norm_(x.clone()).flatten(1).numpy(), expected, rtol=1e-12)


def test_standard_uses_the_training_pictures_alone():
    train, test = pictures(50, 0), pictures(9, 1)
    splits = picture_splits(
        {"train": train, "test": test}, peak=255, scale="standard", flat=True, classes=3, where="here"
    )
    reference = train[0].numpy() / 255
    expected = (test[0].numpy() / 255 - reference.mean()) / reference.std()
    assert splits.test is not None
    np.testing.assert_allclose(splits.test.read(torch.arange(9)).x.reshape(9, 4, 5), expected, rtol=1e-4, atol=1e-6)
    assert splits.validation is None
    assert splits.picture_shape == (4, 5)


def test_the_fingerprint_covers_pixels_labels_parts_and_scale():
    def digest(scale="none", flat=True, part="test", change=lambda train: None):
        train, other = pictures(20, 0), pictures(5, 1)
        change(train)
        parts = {"train": train, part: other}
        return picture_splits(parts, peak=255, scale=scale, flat=flat, classes=3, where="here").fingerprint

    different = [
        digest(),
        digest(scale="unit-norm"),
        digest(flat=False),
        digest(part="validation"),
        digest(change=lambda train: train[0][3, 1, 1].add_(1)),
        digest(change=lambda train: train[1][3].add_(1)),
    ]
    assert len(set(different)) == len(different)
    assert digest() == digest()


def test_constant_pictures_are_refused():
    flat = (torch.full((5, 4, 4), 9, dtype=torch.uint8), torch.zeros(5, dtype=torch.int64))
    with pytest.raises(InputError, match=r"here: every value is 9"):
        picture_splits({"train": flat}, peak=255, scale="none", flat=True, classes=1, where="here")
