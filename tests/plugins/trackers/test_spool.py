from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from groundstate_plugins.trackers.spool import (
    FOLDER,
    Delivered,
    Spool,
    has_ended,
    read_records,
    sender_lock,
    spool_file,
    undelivered,
)


def steps(folder: Path, offset: int = 0) -> list[int]:
    return [record["step"] for record, _ in read_records(spool_file(folder), offset) if record]


def test_records_come_back_in_order_from_any_offset(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    for step in range(5):
        spool.append({"op": "metrics", "step": step, "values": {"é": 0.5}})
    spool.close()
    ends = [end for _, end in read_records(spool_file(tmp_path))]
    assert steps(tmp_path) == [0, 1, 2, 3, 4]
    assert steps(tmp_path, ends[2]) == [3, 4]
    assert ends[-1] == spool_file(tmp_path).stat().st_size


def test_lines_are_collected_between_two_writes(tmp_path: Path) -> None:
    spool = Spool(tmp_path, flush_seconds=1000)
    spool.append({"step": 0})
    spool.append({"step": 1})
    assert steps(tmp_path) == [0]
    spool.flush()
    assert steps(tmp_path) == [0, 1]
    spool.close()


def test_a_torn_last_line_is_not_read_and_is_dropped_on_reopening(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append({"step": 0})
    spool.close()
    with spool_file(tmp_path).open("ab") as file:
        file.write(b'{"step":1,"val')
    assert steps(tmp_path) == [0]
    spool = Spool(tmp_path)
    spool.append({"step": 2})
    spool.close()
    assert spool_file(tmp_path).read_text() == '{"step":0}\n{"step":2}\n'


def test_a_spool_that_is_one_torn_line_starts_empty(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    spool_file(tmp_path).write_bytes(b"x" * 10_000)
    Spool(tmp_path).close()
    assert spool_file(tmp_path).stat().st_size == 0


def test_a_full_disk_loses_and_repeats_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path, flush_seconds=1000)
    spool.append({"step": 0})
    spool.append({"step": 1})
    spool.append({"step": 2})
    write, room = os.write, [10]

    def full(file: int, data: memoryview) -> int:
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data[: room.pop()])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        spool.flush()
    assert steps(tmp_path) == [0]
    monkeypatch.undo()
    spool.close()
    assert steps(tmp_path) == [0, 1, 2]


def test_a_line_that_is_no_record_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    spool_file(tmp_path).write_text('not json\n[1]\n{"step": 1}\n')
    assert [record for record, _ in read_records(spool_file(tmp_path))] == [None, None, {"step": 1}]


def test_the_end_of_a_run_is_seen_only_as_the_last_record(tmp_path: Path) -> None:
    assert not has_ended(spool_file(tmp_path))
    spool = Spool(tmp_path, flush_seconds=0)
    spool.append({"op": "metrics", "values": {"x" * 5000: 1.0}})
    assert not has_ended(spool.path)
    spool.append({"op": "end", "status": "FAILED"})
    assert has_ended(spool.path)
    spool.append({"op": "resume"})
    assert not has_ended(spool.path)
    spool.close()


def test_what_is_delivered_is_kept_and_the_rest_counted(tmp_path: Path) -> None:
    spool = Spool(tmp_path, flush_seconds=0)
    for step in range(3):
        spool.append({"step": step})
    spool.close()
    first = next(end for _, end in read_records(spool.path))
    assert undelivered(tmp_path) == 3
    known = Delivered(offset=first, records=1, run_id="abc", steps={"step": 7})
    known.save(tmp_path)
    assert Delivered.load(tmp_path) == known
    assert undelivered(tmp_path) == 2
    written = json.loads(Delivered.file(tmp_path).read_text())
    Delivered.file(tmp_path).write_text(json.dumps(written | {"of a later version": 1}))
    assert Delivered.load(tmp_path) == known


def test_one_sender_at_a_time(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    with sender_lock(tmp_path) as first, sender_lock(tmp_path) as second:
        assert (first, second) == (True, False)
    with sender_lock(tmp_path) as third:
        assert third
