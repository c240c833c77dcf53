"""The Parquet format against pyarrow's own tables."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse

from groundstate.errors import InputError
from groundstate_plugins.formats.parquet import Parquet

ROWS = np.random.default_rng(0).standard_normal((10_000, 6)).astype(np.float32)
FIXED = pa.FixedSizeListArray.from_arrays(pa.array(ROWS.ravel()), 6)
LISTS = pa.array(ROWS.tolist(), pa.list_(pa.float32()))


def table(folder: Path, columns: dict[str, Any], **options: Any) -> Path:
    pq.write_table(pa.table(columns), folder / "x.parquet", **options)
    return folder / "x.parquet"


@pytest.mark.parametrize(
    "column", [FIXED, LISTS, LISTS.cast(pa.large_list(pa.float32()))], ids=["fixed", "lists", "large"]
)
def test_a_column_of_lists_is_the_inputs(tmp_path: Path, column: pa.Array) -> None:
    path = table(tmp_path, {"name": ["a"] * 10_000, "number": range(10_000), "x": column}, row_group_size=3000)
    with closing(Parquet().open(path)) as reader:
        assert (len(reader), reader.shape) == (10_000, (6,))
        for first, last in ((0, 1), (1, 9000), (9000, 10_000), (2999, 3001), (5000, 5000 + 4097)):
            assert np.array_equal(reader.read(first, last), ROWS[first:last])


def test_columns_of_numbers_are_the_inputs(tmp_path: Path) -> None:
    path = table(tmp_path, {"a": ROWS[:, 0], "name": ["a"] * 10_000, "b": ROWS[:, 1], "c": np.arange(10_000)})
    with closing(Parquet().open(path)) as reader:
        assert np.array_equal(reader.read(7, 90), np.column_stack([ROWS[7:90, :2], np.arange(7, 90)]))
    with closing(Parquet(columns=["b", "a"]).open(path)) as reader:
        assert np.array_equal(reader.read(0, 10), ROWS[:10, [1, 0]])


def test_sparse_codes_are_their_indices_and_values(tmp_path: Path) -> None:
    codes = ROWS[:100] * (ROWS[:100] > 1)
    with closing(Parquet(layout="sparse").create(tmp_path / "z.parquet", codes.shape, codes.dtype)) as writer:
        writer.append(codes[:40])
        writer.append(codes[40:])
    found = pq.read_table(tmp_path / "z.parquet")
    lengths = np.concatenate([[0], np.cumsum([len(row) for row in found["indices"].to_pylist()])])
    flat = [np.concatenate(found[name].to_pylist()) for name in ("values", "indices")]
    assert np.array_equal(scipy.sparse.csr_matrix((*flat, lengths), shape=codes.shape).toarray(), codes)


def test_codes_of_several_axes_keep_their_shape_in_the_metadata(tmp_path: Path) -> None:
    codes = ROWS[:10].reshape(10, 3, 2, 1)
    with closing(Parquet().create(tmp_path / "z.parquet", codes.shape, codes.dtype)) as writer:
        writer.append(codes)
    found = pq.read_table(tmp_path / "z.parquet")
    assert found.schema.metadata[b"code_shape"] == b"[3, 2, 1]"
    assert np.array_equal(found["code"].combine_chunks().flatten().to_numpy().reshape(codes.shape), codes)


@pytest.mark.parametrize(
    ("columns", "wanted", "message"),
    [
        ({"name": ["a", "b"]}, (), "has no column of numbers or of lists"),
        ({"one": [[1.0], [2.0]], "two": [[1.0], [2.0]]}, (), "several columns of lists, one, two; name one"),
        ({"one": [1.0, 2.0]}, ("on",), "has no column 'on'; did you mean 'one'"),
        ({"one": [1.0, 2.0], "name": ["a", "b"]}, ("one", "name"), "column 'name' holds string"),
        ({"x": [[1.0, 2.0], [3.0]]}, (), "row 1: holds a list that is not of length 2"),
        ({"x": [[1.0, 2.0], None]}, (), "row 1: holds an empty value"),
        ({"x": [[1.0, 2.0], [3.0, None]]}, (), "row 1: holds an empty value in its list"),
        ({"x": [1.0, None]}, (), "row 1: holds an empty value"),
    ],
)
def test_tables_that_are_no_inputs_are_refused(
    tmp_path: Path, columns: dict[str, Any], wanted: tuple[str, ...], message: str
) -> None:
    path = table(tmp_path, columns)

    def read() -> None:
        with closing(Parquet(columns=wanted).open(path)) as reader:
            reader.read(0, 2)

    with pytest.raises(InputError, match=message):
        read()
