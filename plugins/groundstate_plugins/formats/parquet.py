"""Apache Parquet: inputs from a column of lists or from columns of numbers; codes dense or sparse."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field

from groundstate.components import Format
from groundstate.errors import Fault, InputError, nearest, relative
from groundstate.formats import Reader, Writer

ROWS_AT_ONCE = 4096  # decoded together while reading
GROUP_BYTES = 1 << 24  # of dense codes in a row group

Columns = Annotated[tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)]


class ParquetReader(Reader):
    """Rows of a Parquet file, decoded a few thousand at a time; going on where the last call ended costs nothing."""

    def __init__(self, path: Path, columns: tuple[str, ...]) -> None:
        self._where = relative(path)
        try:
            self._file = pq.ParquetFile(path, memory_map=False, pre_buffer=False, buffer_size=1 << 20)
        except (OSError, pa.ArrowException) as error:
            raise InputError(Fault(f"cannot be read as Parquet ({error})", where=self._where)) from error
        try:
            self._columns = self._chosen(columns)
            metadata = self._file.metadata
            self._samples = metadata.num_rows
            sizes = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
            self._starts = np.cumsum([0, *sizes])
            self._width: int | None = None
            self._seek(0)
            self.shape = (len(self._columns),) if len(self._columns) > 1 or not self._lists else (self._list_length(),)
        except BaseException:
            self._file.close()
            raise

    def __len__(self) -> int:
        return self._samples

    def read(self, first: int, last: int) -> NDArray[Any]:
        if first != self._at:
            self._seek(first)
        parts, missing = [], last - first
        while missing:
            if not len(self._left):
                self._left = self._next()
            parts.append(self._left[:missing])
            self._left = self._left[missing:]
            missing -= len(parts[-1])
        self._at = last
        return np.concatenate(parts) if len(parts) != 1 else parts[0]

    def close(self) -> None:
        self._file.close()

    def _chosen(self, wanted: tuple[str, ...]) -> tuple[str, ...]:
        """The columns of the inputs: those that were asked for, else the only one of lists, else all of numbers."""
        schema = self._file.schema_arrow
        lists = [field.name for field in schema if _is_list(field.type) and _is_number(field.type.value_type)]
        numbers = [field.name for field in schema if _is_number(field.type)]
        for name in wanted:
            if name not in schema.names:
                raise InputError(Fault(f"has no column '{name}'; {nearest(name, schema.names)}", where=self._where))
            if name not in (lists if len(wanted) == 1 else ()) and name not in numbers:
                message = f"column '{name}' holds {schema.field(name).type}; it must hold numbers, or lists of them"
                raise InputError(Fault(message, where=self._where))
        if not wanted and len(lists) > 1:
            raise InputError(Fault(f"has several columns of lists, {', '.join(lists)}; name one", where=self._where))
        chosen = wanted or tuple(lists or numbers)
        if not chosen:
            raise InputError(
                Fault(f"has no column of numbers or of lists of them; there is: {schema}", where=self._where)
            )
        self._lists = chosen[0] in lists
        return chosen

    def _list_length(self) -> int:
        kind = self._file.schema_arrow.field(self._columns[0]).type
        if pa.types.is_fixed_size_list(kind):
            return int(kind.list_size)
        if not self._samples:
            return 0
        self._left = self._next()
        return self._left.shape[1]

    def _seek(self, row: int) -> None:
        group = max(0, int(np.searchsorted(self._starts, row, side="right")) - 1)
        groups = range(group, len(self._starts) - 1)
        self._batches: Iterator[pa.RecordBatch] = self._file.iter_batches(
            ROWS_AT_ONCE, row_groups=list(groups), columns=list(self._columns), use_threads=False
        )
        self._at = self._decoded = int(self._starts[group])
        self._left: NDArray[Any] = np.empty((0, 0))
        while self._at < row:
            self._left = self._left if len(self._left) else self._next()
            skipped = min(len(self._left), row - self._at)
            self._left, self._at = self._left[skipped:], self._at + skipped

    def _next(self) -> NDArray[Any]:
        """The next rows, as one array (rows, values)."""
        try:
            batch = next(self._batches)
        except (OSError, pa.ArrowException, StopIteration) as error:
            raise InputError(
                Fault(f"cannot be read from row {self._decoded} on ({error})", where=self._where)
            ) from error
        columns = [batch.column(name) for name in self._columns]
        for column in columns:
            self._require_all(np.asarray(column.is_valid()), "an empty value")
        if self._lists:
            values = self._flat(columns[0])
        else:
            values = np.stack([column.to_numpy(zero_copy_only=False) for column in columns], 1)
        self._decoded += len(values)
        return values

    def _flat(self, lists: pa.Array) -> NDArray[Any]:
        lengths = np.asarray(lists.value_lengths())
        self._width = int(lengths[0]) if self._width is None else self._width
        self._require_all(lengths == self._width, f"a list that is not of length {self._width}, as the first is")
        values = lists.flatten()
        if values.null_count:
            self._require_all(
                np.asarray(values.is_valid()).reshape(len(lists), -1).all(1), "an empty value in its list"
            )
        return values.to_numpy(zero_copy_only=False).reshape(len(lists), -1)

    def _require_all(self, good: NDArray[np.bool_], what: str) -> None:
        if not good.all():
            raise InputError(Fault(f"holds {what}", where=f"{self._where}, row {self._decoded + int(good.argmin())}"))


class ParquetWriter(Writer):
    """Row groups of some MiB: a column ``code`` of lists of the same length, or ``indices`` and ``values``."""

    def __init__(
        self, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], layout: str, compression: str | None
    ) -> None:
        self._units = int(np.prod(shape[1:]))
        self._sparse = layout == "sparse"
        number = pa.from_numpy_dtype(dtype)
        if self._sparse:
            fields = {"indices": pa.list_(pa.int32()), "values": pa.list_(number)}
        else:
            fields = {"code": pa.list_(number, self._units)}
        metadata = {"code_shape": str(list(shape[1:]))}
        self._schema = pa.schema([pa.field(name, kind, False) for name, kind in fields.items()], metadata)
        # Dictionaries and statistics of floating-point codes cost time and save nothing.
        self._file = pq.ParquetWriter(
            path, self._schema, compression=compression or "none", use_dictionary=False, write_statistics=False
        )
        self._group = max(1, GROUP_BYTES // (self._units * dtype.itemsize))
        self._waiting: list[NDArray[Any]] = []

    def append(self, codes: NDArray[Any]) -> None:
        self._waiting.append(codes.reshape(len(codes), -1))
        if sum(map(len, self._waiting)) >= self._group:
            self._flush()

    def close(self) -> None:
        try:
            if self._waiting:
                self._flush()
        finally:
            self._file.close()

    def _flush(self) -> None:
        codes = np.concatenate(self._waiting)
        self._waiting.clear()
        if self._sparse:
            rows = scipy.sparse.csr_matrix(codes)
            ends = pa.array(rows.indptr.astype(np.int32))
            arrays = [
                pa.ListArray.from_arrays(ends, pa.array(part))
                for part in (rows.indices.astype(np.int32, copy=False), rows.data)
            ]
        else:
            arrays = [pa.FixedSizeListArray.from_arrays(pa.array(codes.ravel()), self._units)]
        self._file.write_table(pa.Table.from_arrays(arrays, schema=self._schema), row_group_size=len(codes))


class Parquet(Format):
    """Inputs: a column of lists of one length, or several of numbers. Codes: a column of lists, or the non-zeros' two.

    Dense codes of several axes are flattened; the file's metadata keep ``code_shape``.
    """

    suffixes = (".parquet",)

    class Config(Format.Config):
        columns: Columns = Field(
            (),
            description="that hold the inputs: one of lists, or several of numbers; by default the only one of lists, "
            "or all of numbers",
        )
        layout: Literal["dense", "sparse"] = Field(
            "dense", description="write a column 'code' of all values, or 'indices' and 'values' of the non-zeros"
        )
        compression: Literal["zstd", "snappy", "none"] = Field("snappy", description="of the files that are written")

    def open(self, path: Path) -> ParquetReader:
        return ParquetReader(path, self.config.columns)

    def create(self, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> ParquetWriter:
        return ParquetWriter(path, shape, dtype, self.config.layout, self.config.compression)


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)
