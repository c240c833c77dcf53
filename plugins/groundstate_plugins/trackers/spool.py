"""A run's tracking records on disk: the run appends, a sender process reads and delivers them in order.

``<run folder>/tracking/`` holds ``spool.jsonl`` (one JSON object a line, only ever appended to),
``delivered.json`` (how far a sender has come), ``refused.jsonl`` (what the store would not take) and
``sender.lock``. A line without its newline is torn and does not count.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from groundstate.files import write_json

FOLDER = "tracking"
Record = dict[str, Any]

# default=float: a metric may be a 0-d tensor or a NumPy scalar.
_as_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, default=float).encode


def spool_file(run_folder: Path) -> Path:
    return run_folder / FOLDER / "spool.jsonl"


class Spool:
    """Appends records, which are collected in memory and written at most every ``flush_seconds``.

    They become text together, then: encoding many at once costs half of what it costs between two training steps,
    when the caches hold something else.
    """

    def __init__(self, run_folder: Path, flush_seconds: float = 0.2) -> None:
        self.path = spool_file(run_folder)
        self.flush_seconds = flush_seconds
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._drop_torn_line()
        self._records: list[Mapping[str, Any]] = []
        self._lines: list[bytes] = []
        self._written_at = -math.inf

    def _drop_torn_line(self) -> None:
        # A process that was killed while it wrote leaves half a line; appending to it would spoil the next.
        self.size = end_of_last_line(self.path)
        os.ftruncate(self._file, self.size)

    def append(self, record: Mapping[str, Any]) -> None:
        """Keep one record, which must not change from now on.

        Raises OSError when it is time to write and the disk does not take it.
        """
        self._records.append(record)
        if time.monotonic() - self._written_at >= self.flush_seconds:
            self.flush()

    def flush(self) -> None:
        """Write what is collected. On OSError (disk full) nothing is lost: it stays collected."""
        self._written_at = time.monotonic()
        self._lines += [_as_json(record).encode() + b"\n" for record in self._records]
        self._records.clear()
        if not self._lines:
            return
        data = memoryview(b"".join(self._lines))
        total = len(data)
        try:
            while data:
                data = data[os.write(self._file, data) :]
        except OSError:
            os.ftruncate(self._file, self.size)
            raise
        self._lines.clear()
        self.size += total

    def close(self) -> None:
        """Write the rest and close; the spool cannot be appended to afterwards."""
        try:
            self.flush()
        finally:
            os.close(self._file)


def end_of_last_line(path: Path) -> int:
    """The size of the file up to and with its last newline."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - 4096)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            end = start
    return 0


def read_records(path: Path, offset: int = 0) -> Iterator[tuple[Record | None, int]]:
    """Each whole line from byte ``offset`` on: its record (None where it is not JSON) and where it ends."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            try:
                record = json.loads(line)
            except ValueError:
                record = None
            yield record if isinstance(record, dict) else None, offset


def has_ended(path: Path) -> bool:
    """Whether the last whole record says that the run ended."""
    if not path.is_file():
        return False
    end = end_of_last_line(path)
    with path.open("rb") as file:
        start = max(0, end - 1024)  # an end record is far shorter
        file.seek(start)
        line = file.read(end - start).rstrip(b"\n").rpartition(b"\n")[2]
    try:
        return bool(json.loads(line)["op"] == "end")
    except (ValueError, TypeError, KeyError):
        return False


@dataclass
class Delivered:
    """How far a sender has come, and under which names the run is known in the store.

    offset: bytes of the spool that are delivered. records: how many lines that is. steps: the last step
    delivered by kind of metric. refused: records that the store would not take. problem: why nothing can
    be delivered until a person acts, else empty. trouble: why the last attempt failed, where the next may succeed.
    """

    offset: int = 0
    records: int = 0
    tracking_uri: str = ""
    experiment_id: str = ""
    run_id: str = ""
    model_id: str = ""
    steps: dict[str, int] = field(default_factory=dict)
    system_samples: int = 0
    refused: int = 0
    problem: str = ""
    trouble: str = ""

    @staticmethod
    def file(run_folder: Path) -> Path:
        return run_folder / FOLDER / "delivered.json"

    @classmethod
    def load(cls, run_folder: Path) -> Delivered:
        """What the folder says, or a fresh start."""
        path = cls.file(run_folder)
        if not path.is_file():
            return cls()
        known = cls.__dataclass_fields__
        return cls(**{k: v for k, v in json.loads(path.read_text("utf-8")).items() if k in known})

    def save(self, run_folder: Path) -> None:
        write_json(self.file(run_folder), asdict(self))


def begun_for(run_folder: Path) -> str:
    """The store that the run was begun for, '' where it has not begun."""
    first = next((record for record, _ in read_records(spool_file(run_folder))), None) or {}
    return str(first.get("uri", ""))


def undelivered(run_folder: Path) -> int:
    """How many whole records are in the spool but not delivered."""
    delivered = Delivered.load(run_folder)
    return sum(1 for _ in read_records(spool_file(run_folder), delivered.offset))


@contextmanager
def sender_lock(run_folder: Path, waits: Callable[[], bool] = lambda: False) -> Iterator[bool]:
    """Whether this process may send for the run; another one that does is waited for as long as ``waits``."""
    with (run_folder / FOLDER / "sender.lock").open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                held = True
            except BlockingIOError:
                held = False
            if held or not waits():
                break
            time.sleep(0.1)
        yield held
