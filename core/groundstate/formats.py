"""File formats as plugins: which one reads or writes a path, and inputs as one long sequence over many files."""

from __future__ import annotations

import glob
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from groundstate.data import require_finite
from groundstate.errors import InputError, PluginError, nearest, relative
from groundstate.registry import Entry, Registry

if TYPE_CHECKING:
    from groundstate.components import Format

KIND = "format"


class Reader(ABC):
    """The inputs in one file, read in order and a block at a time; may be larger than memory.

    shape: of one input. ``len`` is the number of inputs, known without reading them all.
    """

    shape: tuple[int, ...]

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, first: int, last: int) -> NDArray[Any]:
        """Inputs first … last − 1, (last − first, *shape), real numbers. The next call goes on at last, or anywhere.

        What the file turns out not to hold raises InputError with the row.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of the file."""


class Writer(ABC):
    """One file of codes in the making."""

    @abstractmethod
    def append(self, codes: NDArray[Any]) -> None:
        """The next codes, (m, *code_shape), of the dtype that the writer was made for."""

    @abstractmethod
    def close(self) -> None:
        """Write what is left; the file is whole afterwards."""


class Formats:
    """The formats that are installed; one from a registry.toml in the working directory where it is named.

    reading, writing: options as in a config's table, ``type`` and the fields of the format's Config.
    """

    def __init__(self, reading: Mapping[str, Any] | None = None, writing: Mapping[str, Any] | None = None) -> None:
        self._reading, self._writing = dict(reading or {}), dict(writing or {})
        self._installed = Registry.discover()

    def reader(self, path: Path) -> Format:
        """The format that reads a file of this name. InputError where there is none."""
        return self._find(path, self._reading, "open", "reads")

    def writer(self, path: Path) -> Format:
        """The format that writes a file of this name; of one without a suffix (a folder), the default."""
        return self._find(path, self._writing, "create", "writes")

    def writes(self, path: Path) -> bool:
        """Whether the name is that of one file which some format writes."""
        return path.suffix.lower() in self._suffixes("create")

    def reads(self, path: Path) -> bool:
        """Whether some format reads files of this name."""
        return "type" in self._reading or path.suffix.lower() in self._suffixes("open")

    def _find(self, path: Path, options: Mapping[str, Any], method: str, verb: str) -> Format:
        named = options.get("type")
        if named is not None:
            registry = Registry.discover(Path.cwd())
            entry = registry.get(KIND, str(named))
            found = self._make(entry, registry.load(entry), options)
            if getattr(found, method) is None:
                raise InputError(f"{entry} {verb} no files; choose another type")
            return found
        known = self._suffixes(method)
        suffix = path.suffix.lower()
        if suffix in known:
            entry = known[suffix]
        elif not suffix and method == "create" and (default := self._installed.default(KIND)) is not None:
            entry = default
        else:
            hint = nearest(suffix, known) if suffix else f"known: {', '.join(sorted(known))}"
            raise InputError(f"{relative(path)}: no format {verb} files that end in '{suffix}'; {hint}")
        return self._make(entry, self._installed.load(entry), options)

    def _suffixes(self, method: str) -> dict[str, Entry]:
        """By suffix, the format whose files have it and can be opened, or created. Broken ones are left out."""
        found: dict[str, Entry] = {}
        for entry in self._installed.entries(KIND):
            try:
                cls: Any = self._installed.load(entry)
            except (InputError, PluginError):
                continue
            if getattr(cls, method) is not None:
                found = {**dict.fromkeys(cls.suffixes, entry), **found}
        return found

    def _make(self, entry: Entry, cls: Any, options: Mapping[str, Any]) -> Format:
        fields = {key: value for key, value in options.items() if key != "type"}
        try:
            made: Format = cls(**fields)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(map(str, first["loc"]))
            message = first["msg"]
            if first["type"] == "extra_forbidden":
                message = f"is no option of {entry}; {nearest(key, cls.Config.model_fields)}"
            raise InputError(f"option '{key}': {message}") from error
        return made


class Inputs:
    """Inputs from one or many files of one format, in order, shaped as a model takes them.

    paths: files, folders (their files by name) or patterns such as ``photos/*.png``. shape: of the model's inputs;
    an input of other axes of length 1, or any input for a model of flat ones, is reshaped. InputError, before
    anything is read, where there is none, where formats are mixed and where a file's inputs do not fit.
    """

    def __init__(self, paths: Sequence[Path], formats: Formats, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.files = [file for path in paths for file in _files(path, formats)]
        suffixes = sorted({type(formats.reader(file)).__name__ for file in self.files})
        if len(suffixes) > 1:
            raise InputError(f"the inputs are of several formats ({', '.join(suffixes)}); give files of one")
        self.format = formats.reader(self.files[0])
        assert self.format.open is not None
        self._readers = [self.format.open(file) for file in self.files]
        self._ends = np.cumsum([len(reader) for reader in self._readers])
        if not len(self):
            raise InputError(f"{relative(self.files[0])} holds no inputs; at least one is needed")
        for file, reader in zip(self.files, self._readers, strict=True):
            if not _fits(reader.shape, shape):
                raise InputError(
                    f"{relative(file)} holds inputs of shape {reader.shape}; this model takes {shape}"
                    + (f" ({relative(self.files[0])} fits)" if _fits(self._readers[0].shape, shape) else "")
                )

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def digest(self) -> str:
        """SHA-256 over each file's name, size and time of change, and its number of inputs: changed files differ."""
        found = hashlib.sha256(repr(self.format.config).encode())
        for file, reader in zip(self.files, self._readers, strict=True):
            stat = file.stat()
            found.update(f"{file.name}\0{stat.st_size}\0{stat.st_mtime_ns}\0{len(reader)}\n".encode())
        return found.hexdigest()

    def read(self, first: int, last: int, dtype: np.dtype[Any]) -> torch.Tensor:
        """Inputs first … last − 1, (last − first, *shape). InputError names the file and row of a bad one."""
        block = np.empty((last - first, *self.shape), dtype)
        number = int(np.searchsorted(self._ends, first, side="right"))
        done = 0
        while done < len(block):
            reader, end = self._readers[number], int(self._ends[number])
            start = first + done - (end - len(reader))
            stop = min(len(reader), start + len(block) - done)
            part = block[done : done + stop - start]
            part[...] = reader.read(start, stop).reshape(part.shape)
            require_finite(torch.from_numpy(part), relative(self.files[number]), start)
            done += stop - start
            number += 1
        return torch.from_numpy(block)

    def close(self) -> None:
        for reader in self._readers:
            reader.close()


def _files(path: Path, formats: Formats) -> Iterator[Path]:
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.is_file() and formats.reads(file))
        if not found:
            raise InputError(f"the folder {relative(path)} holds no file that a format reads")
    elif path.is_file():
        found = [path]
    elif glob.has_magic(str(path)):
        found = sorted(Path(match) for match in glob.glob(str(path), recursive=True) if Path(match).is_file())
        if not found:
            raise InputError(f"no file matches {relative(path)}")
    else:
        raise InputError(f"there is no file or folder {relative(path)}")
    yield from found


def _fits(given: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether an input means the same in both shapes: equal but for axes of length 1, or flattened."""
    if len(wanted) == 1:
        return int(np.prod(given)) == wanted[0]
    return [side for side in given if side != 1] == [side for side in wanted if side != 1]
