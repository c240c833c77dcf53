"""NumPy's .npy: one array."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundstate.components import Format
from groundstate.errors import Fault, InputError, relative
from groundstate.formats import Reader, Writer


class NpyReader(Reader):
    """Rows of a .npy file through a memory map that lives as long as a block: mapped pages count as memory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        array = self._map()
        if array.dtype.kind not in "fiub" or array.ndim < 2:
            message = f"array of {array.dtype} and shape {array.shape}; it must be (samples, …) real numbers"
            raise InputError(Fault(message, where=relative(path)))
        self._samples = len(array)
        self.shape = array.shape[1:]

    def __len__(self) -> int:
        return self._samples

    def read(self, first: int, last: int) -> NDArray[Any]:
        return np.array(self._map()[first:last])

    def close(self) -> None:
        """No file is open between two reads."""

    def _map(self) -> NDArray[Any]:
        try:
            array: NDArray[Any] = np.load(self._path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(Fault(f"cannot be read as .npy ({error})", where=relative(self._path))) from error
        return array


class NpyWriter(Writer):
    """A header that says the shape, then the rows as they come."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        # Written, not mapped: on a full disk a map ends the process, a write raises.
        self._file = path.open("wb")
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)

    def append(self, codes: NDArray[Any]) -> None:
        self._file.write(np.ascontiguousarray(codes).data)

    def close(self) -> None:
        self._file.close()


class Npy(Format):
    """One array, (samples, …); codes are written dense."""

    suffixes = (".npy",)

    def open(self, path: Path) -> NpyReader:
        return NpyReader(path)

    def create(self, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NpyWriter:
        return NpyWriter(path, shape, dtype)
