"""NumPy's .npz: dense inputs are read from one, sparse codes written to one as SciPy does (CSR)."""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from pydantic import Field

from groundstate.components import Format
from groundstate.errors import Fault, InputError, nearest, relative
from groundstate.formats import Reader, Writer

SPARSE = ("data", "indices", "indptr", "shape", "format")  # the arrays that save_npz writes


class NpzReader(Reader):
    """Rows of one array of a .npz, unpacked as they are read; going back starts from the file's beginning."""

    def __init__(self, path: Path, key: str | None) -> None:
        self._path, self._stream, self._at = path, None, 0
        self._archive = _opened(path)
        try:
            keys = [name.removesuffix(".npy") for name in self._archive.namelist()]
            if key is None:
                key = "x" if "x" in keys or len(keys) != 1 else keys[0]
            if key not in keys:
                raise InputError(Fault(f"holds no array '{key}'; {nearest(key, keys)}", where=relative(path)))
            self._member = f"{key}.npy"
            self._begin()
        except BaseException:
            self._archive.close()
            raise

    def __len__(self) -> int:
        return self._samples

    def read(self, first: int, last: int) -> NDArray[Any]:
        if first < self._at:
            self._begin()
        skip, size = (first - self._at) * self._row_bytes, (last - first) * self._row_bytes
        assert self._stream is not None
        try:
            while skip:
                gone = len(self._stream.read(min(skip, 1 << 20)))
                if not gone:
                    raise EOFError("it is cut off")
                skip -= gone
            data = self._stream.read(size)
            if len(data) < size:
                raise EOFError("it is cut off")
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise _unreadable(self._path, error) from error
        self._at = last
        return np.frombuffer(data, self._dtype).reshape(-1, *self.shape)

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
        self._archive.close()

    def _begin(self) -> None:
        """Open the array's stream and read its header."""
        if self._stream is not None:
            self._stream.close()
        where = relative(self._path)
        try:
            # The header goes through NumPy's parser, which wants a file that it can read in small pieces.
            stream: BinaryIO = io.BufferedReader(self._archive.open(self._member))  # type: ignore[arg-type, assignment]
            self._stream = stream
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(stream)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise _unreadable(self._path, error) from error
        if dtype.kind not in "fiub" or len(shape) < 2:
            message = f"array of {dtype} and shape {shape}; it must be (samples, …) real numbers"
            raise InputError(Fault(message, where=where))
        if fortran:
            message = "its array is stored column by column and cannot be read row by row; save it in C order"
            raise InputError(Fault(message, where=where))
        self._samples, self.shape, self._dtype, self._at = shape[0], tuple(shape[1:]), dtype, 0
        self._row_bytes = dtype.itemsize * int(np.prod(self.shape))


class CsrReader(Reader):
    """Rows of a sparse matrix as ``scipy.sparse.save_npz`` writes it; its non-zeros are held in memory."""

    def __init__(self, path: Path) -> None:
        try:
            self._matrix = scipy.sparse.csr_matrix(scipy.sparse.load_npz(path))
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise _unreadable(path, error) from error
        self.shape = (self._matrix.shape[1],)

    def __len__(self) -> int:
        return int(self._matrix.shape[0])

    def read(self, first: int, last: int) -> NDArray[Any]:
        rows: NDArray[Any] = self._matrix[first:last].toarray()
        return rows

    def close(self) -> None:
        """The file was read whole."""


class NpzWriter(Writer):
    """Collects the non-zeros, and writes them as ``scipy.sparse.save_npz`` does."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], compressed: bool) -> None:
        self._path, self._columns, self._dtype, self._compressed = path, int(np.prod(shape[1:])), dtype, compressed
        self._parts: list[scipy.sparse.csr_matrix] = []

    def append(self, codes: NDArray[Any]) -> None:
        self._parts.append(scipy.sparse.csr_matrix(codes.reshape(len(codes), -1)))

    def close(self) -> None:
        empty = scipy.sparse.csr_matrix((0, self._columns), dtype=self._dtype)
        matrix = scipy.sparse.vstack([empty, *self._parts], format="csr")
        self._parts.clear()
        with self._path.open("wb") as file:
            scipy.sparse.save_npz(file, matrix, compressed=self._compressed)


class Npz(Format):
    """Inputs: one dense array, (samples, …). Codes: a sparse matrix (samples, units), read by scipy.sparse.load_npz.

    Such a sparse matrix can be an input too.
    """

    suffixes = (".npz",)
    streams = False  # a file's non-zeros are collected before they are written

    class Config(Format.Config):
        key: str | None = Field(None, description="name of the inputs' array; 'x', or the only one, by default")
        compressed: bool = Field(False, description="write smaller files, more slowly")

    def open(self, path: Path) -> Reader:
        with _opened(path) as archive:
            sparse = {f"{name}.npy" for name in SPARSE} <= set(archive.namelist())
        return CsrReader(path) if sparse else NpzReader(path, self.config.key)

    def create(self, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NpzWriter:
        return NpzWriter(path, shape, dtype, self.config.compressed)


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(Fault(f"cannot be read as .npz ({error})", where=relative(path)))
