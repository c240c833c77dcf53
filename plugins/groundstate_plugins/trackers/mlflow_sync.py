"""Delivers by hand what is kept of several runs: what a run could not, because its store was away or it was killed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from groundstate_plugins.trackers.mlflow_process import BLOCKED, DONE
from groundstate_plugins.trackers.mlflow_sender import SETTINGS, Sender, redirect
from groundstate_plugins.trackers.mlflow_store import brief
from groundstate_plugins.trackers.spool import Delivered, begun_for, read_records, sender_lock, spool_file, undelivered

PATIENCE = 5.0
"""Seconds to try a store that is away."""


def sync(folders: Sequence[Path], to: str | None = None) -> Iterator[tuple[Path, bool, str]]:
    """For each folder with something to deliver: the folder, whether all of it is in the store now, and a sentence.

    to: another store than the one that a run was begun for; only while nothing of it is delivered. A run's parent
    goes first. After a store that is away, what else would go there is not tried.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    away: set[str] = set()
    waiting = [folder for folder in folders if spool_file(folder).is_file() and undelivered(folder)]
    for folder in sorted(waiting, key=lambda folder: (_has_parent(folder), folder)):
        store = Delivered.load(folder).tracking_uri or begun_for(folder)
        if to is None and store in away:
            yield folder, False, f"{undelivered(folder)} records wait: {store} is away"
            continue
        done, text = _deliver(folder, to)
        if not done and not Delivered.load(folder).problem:
            away.add(store)
        yield folder, done, text


def _deliver(folder: Path, to: str | None) -> tuple[bool, str]:
    with sender_lock(folder) as held:
        if not held:
            return True, "is being delivered by another process"
        sender = Sender(folder, parent=None, patience=PATIENCE)
        if to is not None and (refusal := redirect(sender.delivery, to)) is not None:
            return False, refusal
        code = sender.run()
    known = Delivered.load(folder)
    if code == DONE:
        return True, f"all {known.records} records are in {known.tracking_uri}, run {known.run_id}"
    reason = known.problem if code == BLOCKED else brief(sender.problem)
    return False, f"{undelivered(folder)} records are not delivered: {reason}"


def _has_parent(folder: Path) -> bool:
    return any((record or {}).get("op") == "parent" for record, _ in read_records(spool_file(folder)))
