"""The .npy format against NumPy's own reader and writer."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from groundstate.errors import InputError
from groundstate_plugins.formats.npy import Npy


@pytest.mark.parametrize("order", ["C", "F"])
def test_rows_are_those_that_numpy_saved(tmp_path: Path, order: str) -> None:
    rows = np.asarray(np.random.default_rng(0).integers(0, 9, (31, 2, 3)), order=order)  # type: ignore[call-overload]
    np.save(tmp_path / "x.npy", rows)
    reader = Npy().open(tmp_path / "x.npy")
    assert (len(reader), reader.shape) == (31, (2, 3))
    assert np.array_equal(reader.read(10, 20), rows[10:20])


def test_numpy_reads_what_is_written(tmp_path: Path) -> None:
    codes = np.random.default_rng(0).standard_normal((10, 4, 2, 2))
    with closing(Npy().create(tmp_path / "z.npy", codes.shape, codes.dtype)) as writer:
        writer.append(codes[:3])
        writer.append(np.asfortranarray(codes[3:]))
    found = np.load(tmp_path / "z.npy")
    assert found.dtype == codes.dtype
    assert np.array_equal(found, codes)


@pytest.mark.parametrize("values", [np.zeros(3), np.zeros((2, 2), complex), np.array([["a"]])])
def test_arrays_that_are_no_inputs_are_refused(tmp_path: Path, values: np.ndarray) -> None:
    np.save(tmp_path / "x.npy", values)
    with pytest.raises(InputError, match="it must be"):
        Npy().open(tmp_path / "x.npy")
