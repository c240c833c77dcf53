"""The metrics of a run, one JSON line a record: ``metrics.jsonl`` in the run's folder."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from groundstate.files import write_text

RecordKind = Literal["step", "epoch", "final"]


@dataclass(frozen=True)
class Record:
    """Metrics at one step. time: seconds since 1970. phase: its name."""

    step: int
    time: float
    phase: str
    kind: RecordKind
    values: Mapping[str, float]


class History:
    """Appends records to a file; lines reach the disk at ``flush``. count: records so far, over all resumes.

    kept: write them at all; another process may do so.
    """

    def __init__(self, path: Path, *, kept: bool = True) -> None:
        self.path = path
        self.kept = kept
        self.count = 0
        self._lines: list[str] = []

    def add(self, step: int, phase: str, kind: RecordKind, values: Mapping[str, float]) -> Record:
        record = Record(step, time.time(), phase, kind, dict(values))
        self._lines.append(json.dumps(asdict(record)))
        self.count += 1
        return record

    def flush(self) -> None:
        if self._lines and self.kept:
            size = self.path.stat().st_size if self.path.exists() else 0
            try:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write("\n".join(self._lines) + "\n")
            except OSError:  # a full disk: the lines stay in memory, and none is half written
                os.truncate(self.path, size)
                raise
        self._lines.clear()

    def truncate(self, count: int) -> None:
        """Keep the first ``count`` records: drop those after a checkpoint, and a line torn by a kill."""
        if not self.kept:
            self.count = count
            return
        kept = [json.dumps(asdict(record)) for record in islice(read_history(self.path), count)]
        write_text(self.path, "".join(line + "\n" for line in kept))
        self.count = len(kept)


def read_history(path: Path) -> Iterator[Record]:
    """The records of a metrics.jsonl, up to a torn last line; nothing where the file is missing."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            try:
                yield Record(**json.loads(line))
            except json.JSONDecodeError:
                return
