"""scikit-learn's 8×8 digits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from sklearn.datasets import load_digits
from sklearn.preprocessing import normalize

from groundstate.errors import InputError
from groundstate_plugins.data.digits import Digits


def everything(source) -> tuple[np.ndarray, np.ndarray]:
    batch = source.read(torch.arange(len(source)))
    return batch.x.numpy(), batch.fields["y"].numpy()


def test_the_parts_hold_every_sample_once():
    parts = Digits(scale="none").load(0).parts()
    assert {name: len(source) for name, source in parts.items()} == {"train": 1079, "validation": 359, "test": 359}
    pairs = [everything(source) for source in parts.values()]
    found = np.concatenate([np.column_stack([x * 16, y]) for x, y in pairs])
    bunch = load_digits()
    expected = np.column_stack([bunch.data, bunch.target])
    np.testing.assert_array_equal(found[np.lexsort(found.T)], expected[np.lexsort(expected.T)])


def test_each_part_has_each_digit_in_proportion():
    whole = np.bincount(load_digits().target) / 1797
    for source in Digits().load(0).parts().values():
        _, y = everything(source)
        np.testing.assert_allclose(np.bincount(y, minlength=10), whole * len(y), atol=1)


def test_rows_have_unit_norm_and_raw_is_the_same_split():
    data = Digits()
    scaled, raw = data.load(0), data.raw()
    for name, source in scaled.parts().items():
        x, y = everything(source)
        pixels, labels = everything(raw.parts()[name])
        np.testing.assert_allclose(x, normalize(pixels), atol=1e-6)
        np.testing.assert_array_equal(y, labels)
        assert pixels.min() == 0
        assert pixels.max() == 1
    assert raw.fingerprint == Digits(scale="none").load(0).fingerprint


def test_the_split_moves_with_split_seed_alone():
    assert Digits().load(0).fingerprint == Digits().load(1).fingerprint
    prints = [Digits(**fields).load(0).fingerprint for fields in ({}, {"split_seed": 1}, {"scale": "standard"})]
    assert len(set(prints)) == 3


@pytest.mark.parametrize("fields", [{}, {"flat": False}, {"validation": 100, "test": 0}])
def test_describe_tells_what_load_gives(fields):
    data = Digits(**fields)
    info, splits = data.describe(), data.load(0)
    assert info.input_shape == splits.train.input_shape
    assert info.fields == splits.train.names
    assert info.samples == {name: len(source) for name, source in splits.parts().items()}
    assert info.classes == splits.classes == 10
    assert splits.picture_shape == (8, 8)


def test_parts_too_small_to_hold_each_digit():
    with pytest.raises(InputError, match=r"data\.validation.*9 samples for validation are too few"):
        Digits(validation=9).describe()
    with pytest.raises(InputError, match="7 samples for training are too few"):
        Digits(validation=1000, test=790).load(0)
    with pytest.raises(InputError, match="none of the 1797 samples"):
        Digits(validation=1797).describe()


def test_values_out_of_range_are_refused():
    for wrong in ({"validation": 1.0}, {"scale": "loud"}, {"split_seed": -1}, {"unknown": 1}):
        with pytest.raises(ValidationError):
            Digits(**wrong)
