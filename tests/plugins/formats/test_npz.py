"""The .npz format against NumPy's and SciPy's own readers and writers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse

from groundstate.errors import InputError
from groundstate_plugins.formats.npz import Npz


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_dense_rows_are_read_as_numpy_saved_them(tmp_path: Path, save: Callable[..., None]) -> None:
    rows = np.random.default_rng(0).standard_normal((500, 3, 5))
    save(tmp_path / "x.npz", x=rows, y=np.arange(500))
    with closing(Npz().open(tmp_path / "x.npz")) as reader:
        assert (len(reader), reader.shape) == (500, (3, 5))
        for first, last in ((0, 100), (100, 500), (250, 260)):
            assert np.array_equal(reader.read(first, last), rows[first:last])


def test_sparse_codes_are_written_as_scipy_reads_them(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    codes = (draw.standard_normal((40, 2, 5)) * (draw.random((40, 2, 5)) < 0.2)).astype(np.float32)
    with closing(Npz(compressed=True).create(tmp_path / "z.npz", codes.shape, codes.dtype)) as writer:
        writer.append(codes[:15])
        writer.append(codes[15:])
    found = scipy.sparse.load_npz(tmp_path / "z.npz")
    assert (found.format, found.dtype) == ("csr", np.float32)
    assert np.array_equal(found.toarray(), codes.reshape(40, 10))
    with closing(Npz().open(tmp_path / "z.npz")) as reader:
        assert np.array_equal(reader.read(3, 33), codes.reshape(40, 10)[3:33])


def test_an_array_that_is_not_there_or_cannot_be_streamed(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", first=np.zeros((3, 2)), second=np.asfortranarray(np.ones((3, 2))))
    with pytest.raises(InputError, match="holds no array 'x'"):
        Npz().open(tmp_path / "x.npz")
    with pytest.raises(InputError, match="holds no array 'secnd'; did you mean 'second'"):
        Npz(key="secnd").open(tmp_path / "x.npz")
    with pytest.raises(InputError, match="column by column"):
        Npz(key="second").open(tmp_path / "x.npz")


def test_a_file_that_is_cut_off(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros((300, 2)))
    whole = (tmp_path / "x.npz").read_bytes()
    (tmp_path / "x.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"cannot be read as \.npz"):
        Npz().open(tmp_path / "x.npz")
