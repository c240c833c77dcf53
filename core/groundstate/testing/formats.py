"""Checks of file formats: what is written comes back, in any pieces; what is not of the format is refused."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from groundstate.components import Format
from groundstate.errors import InputError
from groundstate.formats import Reader
from groundstate.testing.results import Broken, NotApplicable, check
from groundstate.testing.subject import Subject, make

ROWS, UNITS = 57, 6


class FormatCase:
    """A format with files of its own in a folder that is removed."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject

    def __str__(self) -> str:
        return str(self.subject)

    @property
    def format(self) -> Format:
        made: Format = make(self.subject)
        return made

    @contextmanager
    def written(self, codes: NDArray[np.floating], block: int) -> Iterator[Path]:
        """A file of these codes, appended in blocks of this many."""
        plugin = self.format
        if plugin.create is None:
            raise NotApplicable("it writes no files")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "codes.tmp"
            with closing(plugin.create(path, codes.shape, codes.dtype)) as writer:
                for first in range(0, len(codes), block):
                    writer.append(codes[first : first + block])
            whole = path.with_name(f"codes{plugin.suffixes[0]}")
            path.rename(whole)
            yield whole

    @contextmanager
    def reader(self, path: Path) -> Iterator[Reader]:
        plugin = self.format
        if plugin.open is None:
            raise NotApplicable("it reads no files")
        with closing(plugin.open(path)) as reader:
            yield reader


def made_up(dtype: str) -> NDArray[np.floating]:
    """Sparse codes, (ROWS, UNITS)."""
    draw = np.random.default_rng(0)
    values = draw.standard_normal((ROWS, UNITS)) * (draw.random((ROWS, UNITS)) < 0.4)
    return values.astype(dtype)


@check("format", says="codes that are written come back, in both precisions, whatever the blocks")
def round_trip(case: FormatCase) -> None:
    for dtype in ("float32", "float64"):
        for block in (1, 10, ROWS):
            codes = made_up(dtype)
            with case.written(codes, block) as path, case.reader(path) as reader:
                if len(reader) != ROWS or tuple(reader.shape) != (UNITS,):
                    raise Broken(
                        f"of codes ({ROWS}, {UNITS}) it reads {len(reader)} inputs of shape {reader.shape}",
                        shown=f"{dtype}, blocks of {block}",
                        advice="the length and the shape of one input are what was written",
                    )
                if not np.array_equal(reader.read(0, ROWS), codes):
                    raise Broken("other codes come back", shown=f"{dtype}, blocks of {block}")


@check("format", says="inputs are the same in pieces, from the middle, and again from the start")
def reads_in_pieces(case: FormatCase) -> None:
    codes = made_up("float32")
    with case.written(codes, 20) as path, case.reader(path) as reader:
        for pieces in ((0, 1, 30, ROWS), (40, 50, ROWS), (5, 6, 7), (0, ROWS)):
            for first, last in pairwise(pieces):
                if not np.array_equal(reader.read(first, last), codes[first:last]):
                    raise Broken(
                        f"read({first}, {last}) gives other rows",
                        shown=f"reads at {pieces}",
                        advice="read gives rows first … last − 1, wherever the call before ended",
                    )


@check("format", says="a file that is empty, or not of the format, is refused with InputError")
def refuses_other_files(case: FormatCase) -> None:
    plugin = case.format
    if plugin.open is None:
        raise NotApplicable("it reads no files")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"x{plugin.suffixes[0]}"
        for content in (b"", b"\x93\xff neither text nor numbers \x00" * 20):
            path.write_bytes(content)
            try:
                with case.reader(path) as reader:
                    reader.read(0, max(1, len(reader)))
            except InputError:
                continue
            raise Broken(
                "reads it without a word",
                shown=f"a file of {len(content)} bytes",
                advice="open, or read, raises groundstate.InputError with the file and the reason",
            )
