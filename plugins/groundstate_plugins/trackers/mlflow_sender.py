"""The process that delivers one run's records to MLflow, beside the training and out of its way.

``python -m groundstate_plugins.trackers.mlflow_sender RUN_FOLDER`` sends what is not delivered yet. The tracker
starts it with ``--parent``: it then follows the growing spool until the run ends. Sending twice is harmless:
MLflow keeps one row of equal key, step, time and value, and all else is looked up before it is made.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import deque
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from groundstate.errors import InputError
from groundstate_plugins.trackers.machine import Machine
from groundstate_plugins.trackers.mlflow_delivery import Away, Blocked, Delivery, Refused
from groundstate_plugins.trackers.mlflow_process import BLOCKED, DONE, GAVE_UP
from groundstate_plugins.trackers.mlflow_records import now
from groundstate_plugins.trackers.mlflow_store import public, store_uri
from groundstate_plugins.trackers.spool import (
    FOLDER,
    Record,
    has_ended,
    read_records,
    sender_lock,
    spool_file,
    undelivered,
)

PERIOD = 4.0  # seconds between two deliveries while the run goes on: few and large ones disturb training least
POLL = 0.2
FIRST_WAIT, LONGEST_WAIT = 0.5, 5.0
NICENESS = 5
USAGE = 2

# MLflow's own client waits minutes on a server that is away, deaf to all else; the sender has its own pauses.
# Nothing of a run is told to anybody but its store.
SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_UV_AUTO_DETECT": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "OMP_NUM_THREADS": "1",
}


class Needed:
    """Whether a sender is still needed: while its run goes on, and ``patience`` seconds after."""

    def __init__(self, spool: Path, parent: int | None, patience: float) -> None:
        self.spool, self.parent, self.patience = spool, parent, patience
        self._over_since: float | None = None

    @property
    def alive(self) -> bool:
        return self.parent is not None and os.getppid() == self.parent

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return not self.alive or has_ended(self.spool)

    def __call__(self) -> bool:
        now = time.monotonic()
        self._over_since = (self._over_since or now) if self.over else None
        return self._over_since is None or now - self._over_since < self.patience


class Sender:
    """Follows one spool. parent: the process that writes it, or None to send what there is and stop.

    patience: seconds to go on trying after the run has ended or its process is gone. head_start: seconds to leave
    the run alone at first; importing MLflow and opening a store keep a processor busy for seconds.
    """

    def __init__(
        self,
        run_folder: Path,
        *,
        parent: int | None,
        patience: float,
        head_start: float = 0.0,
        system_metrics: bool = False,
    ) -> None:
        self.run_folder = run_folder
        self.spool = spool_file(run_folder)
        self.parent = parent
        self.patience = patience
        self.delivery = Delivery(run_folder)
        self.machine = Machine(parent) if system_metrics and parent is not None else None
        self.samples: deque[Record] = deque(maxlen=10_000)
        self._opened = False
        self._due_at = time.monotonic() + head_start
        self._trouble = ""
        self.problem = ""  # why the last attempt failed

    def run(self) -> int:
        """Deliver until the run is over and everything is in the store, or patience ends."""
        wait, needed = 0.0, Needed(self.spool, self.parent, self.patience)
        while True:
            goes_on, closing = needed(), needed.over
            try:
                if needed.alive:
                    self._sample_machine()
                if closing or time.monotonic() >= self._due_at:
                    if needed.alive:
                        self._open()
                    self._send_pending()
                    if closing:
                        self._close()
                        return DONE
                    wait = 0.0
                    self._note("")
                    self._due_at = time.monotonic() + PERIOD
            except (Away, OSError) as error:  # OSError: how far it has come cannot be written
                self.problem = str(error)
                self._note(f"MLflow is away: {error}")
                self._keep_trouble(self.problem)
                wait = min(max(FIRST_WAIT, 2 * wait), LONGEST_WAIT)
            except (Blocked, Refused) as error:
                self.delivery.delivered.problem = str(error)
                self.delivery.save()
                self._note(str(error))
                return BLOCKED
            if not goes_on:
                self._note(f"gave up; {undelivered(self.run_folder)} records are not delivered")
                return GAVE_UP
            time.sleep(wait or POLL)

    def _keep_trouble(self, trouble: str) -> None:
        """For the run's last words; where the disk is full they must do without."""
        if trouble != self.delivery.delivered.trouble:
            self.delivery.delivered.trouble = trouble
            with suppress(OSError):
                self.delivery.save()

    def _send_pending(self) -> None:
        """Deliver all whole records from where the last delivery ended."""
        metrics: list[Record] = []
        count, end, lines = 0, self.delivery.delivered.offset, 0
        for record, after in read_records(self.spool, end):
            if record is not None and record.get("op") == "metrics":
                metrics.append(record)
                count += len(record["values"])
                end, lines = after, lines + 1
                if count >= self.delivery.most_metrics:
                    self._send_metrics(metrics, end, lines)
                    metrics, count, lines = [], 0, 0
                continue
            self._send_metrics(metrics, end, lines)
            metrics, count, lines = [], 0, 0
            self._send_other(record, after)
            end = after
        self._send_metrics(metrics, end, lines)
        if self.samples and self.delivery.delivered.run_id:
            self.delivery.send_metrics(list(self.samples))
            self.samples.clear()
            self.delivery.save()

    def _send_metrics(self, records: list[Record], end: int, lines: int) -> None:
        if not records:
            return
        try:
            self.delivery.send_metrics(records)
        except Refused:
            self._require_open()
            self._send_one_by_one(records)
        for record in records:
            self.delivery.delivered.steps[record["kind"]] = record["step"]
        self._advance(end, lines)

    def _send_one_by_one(self, records: list[Record]) -> None:
        # One bad value makes MLflow refuse the whole batch; the others of it must arrive.
        for record in records:
            try:
                self.delivery.send_metrics([record])
            except Refused as error:
                self._refuse(record, error)

    def _send_other(self, record: Record | None, end: int) -> None:
        if record is None or "op" not in record:
            self._refuse({"op": "unknown", "end": end}, Refused("the line is not a record"))
        else:
            try:
                self.delivery.send(record)
            except Refused as error:
                if record["op"] == "start":
                    raise Blocked(f"MLflow refuses to begin the run: {error}") from error
                self._require_open()
                self._refuse(record, error)
        self._advance(end, 1)

    def _require_open(self) -> None:
        reason = self.delivery.blocked()
        if reason is not None:
            raise Blocked(reason)

    def _refuse(self, record: Record, error: Refused) -> None:
        self.delivery.delivered.refused += 1
        with (self.run_folder / FOLDER / "refused.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"reason": str(error), "record": record}, ensure_ascii=False) + "\n")
        self._note(f"MLflow refused a {record['op']} record: {error}")

    def _advance(self, end: int, lines: int) -> None:
        delivered = self.delivery.delivered
        delivered.offset, delivered.records = end, delivered.records + lines
        delivered.problem = delivered.trouble = ""
        self.delivery.save()

    def _sample_machine(self) -> None:
        values = self.machine.sample() if self.machine is not None else None
        if values is not None:
            delivered = self.delivery.delivered
            self.samples.append({"time": now(), "step": delivered.system_samples, "values": values})
            delivered.system_samples += 1

    def _open(self) -> None:
        # A sender that outlived an earlier, killed process of this run may have called it killed meanwhile.
        if self.delivery.delivered.run_id and not self._opened and not has_ended(self.spool):
            self.delivery.send({"op": "resume", "values": {"groundstate.status": "running"}})
            self._opened = True

    def _close(self) -> None:
        # A killed process could not say that it ended; without this MLflow would show it running for ever.
        known = self.delivery.delivered
        if self.parent is not None and known.run_id and not has_ended(self.spool):
            self.delivery.send({"op": "tags", "values": {"groundstate.status": "killed"}})
            self.delivery.send({"op": "end", "time": now(), "status": "KILLED"})

    def _note(self, trouble: str) -> None:
        """Into the sender's log, when something changed."""
        if trouble != self._trouble:
            text = trouble or "MLflow is back"
            print(f"{datetime.now().isoformat(timespec='seconds')} {text}", file=sys.stderr, flush=True)
        self._trouble = trouble


def redirect(delivery: Delivery, uri: str) -> str | None:
    """Send the run to another store than the one that it was begun for; why not, or None."""
    try:
        uri = public(store_uri(uri))
    except InputError as error:
        return str(error)
    known = delivery.delivered
    if known.run_id and uri != known.tracking_uri:
        return f"the run is in {known.tracking_uri} already and goes on there"
    known.tracking_uri = uri
    return None


def main(arguments: list[str] | None = None) -> int:
    """Send one run's records. Exit code 0: all delivered, 1: not all, 3: a person must act first."""
    parser = argparse.ArgumentParser(prog="mlflow_sender", description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument("--parent", type=int, help="follow the spool while this process, the caller, lives")
    parser.add_argument("--patience", type=float, default=60.0, help="seconds to try after the run's end (60)")
    parser.add_argument("--head-start", type=float, default=0.0, help="seconds to leave the run alone at first (0)")
    parser.add_argument("--uri", help="send to this store; only while nothing of the run is delivered")
    parser.add_argument("--system-metrics", action="store_true", help="sample processor and memory")
    given = parser.parse_args(arguments)
    if not spool_file(given.run).is_file():
        print(f"{given.run} holds no tracking records; give the folder of a run", file=sys.stderr)
        return USAGE
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    if given.parent is not None:
        os.nice(NICENESS)
    # The sender of an earlier, killed process of this run may still be at work; it is waited for while needed.
    waits = Needed(spool_file(given.run), given.parent, given.patience if given.parent is not None else 0.0)
    with sender_lock(given.run, waits) as held:
        if not held:
            print(f"another process is sending the records of {given.run}", file=sys.stderr)
            return GAVE_UP
        sender = Sender(
            given.run,
            parent=given.parent,
            patience=given.patience,
            head_start=given.head_start,
            system_metrics=given.system_metrics,
        )
        if given.uri is not None and (refusal := redirect(sender.delivery, given.uri)) is not None:
            print(refusal, file=sys.stderr)
            return USAGE
        code = sender.run()
    if given.parent is None:
        known = sender.delivery.delivered
        rest = undelivered(given.run)
        print(f"{known.records} records are in MLflow (run {known.run_id or 'not begun'}), {rest} are not")
    return code


if __name__ == "__main__":
    sys.exit(main())
