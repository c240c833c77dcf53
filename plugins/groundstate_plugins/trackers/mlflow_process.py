"""The sender process as the training process sees it: started, looked after, waited for, left behind."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from groundstate_plugins.trackers.spool import FOLDER

MODULE = "groundstate_plugins.trackers.mlflow_sender"
DONE, GAVE_UP, BLOCKED = 0, 1, 3  # the sender's exit codes; after the first and the last there is nothing to try again
RESTARTS = 5
_left_behind: list[subprocess.Popen[bytes]] = []  # a Popen that is forgotten while it runs warns


class SenderProcess:
    """Delivers the records of the run in ``run_folder`` for as long as this process lives, and a while after."""

    def __init__(self, run_folder: Path, options: Sequence[str]) -> None:
        self.run_folder = run_folder
        self.options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._starts = 0

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs or before it was started."""
        return None if self._process is None else self._process.poll()

    def keep_running(self) -> None:
        """Start the sender, or start it again where it died. Raises OSError where no process can be made."""
        if self._process is not None:
            code = self._process.poll()
            if code in (None, DONE, BLOCKED) or self._starts > RESTARTS:
                return
        self._starts += 1
        # -P: the working directory is no place to import from, it may hold anything.
        command = [sys.executable, "-P", "-m", MODULE, str(self.run_folder.absolute())]
        command += ["--parent", str(os.getpid()), *self.options]
        with (self.run_folder / FOLDER / "sender.log").open("ab") as log:
            # Its own session: Ctrl-C in the terminal ends the training, not the delivery.
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def wait(self, seconds: float) -> None:
        """Until everything is delivered, nothing can be, or time is up."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.exit_code not in (DONE, BLOCKED):
            self.keep_running()
            time.sleep(0.05)

    def leave(self) -> None:
        """Let it go on in the background."""
        if self._process is not None and self._process.poll() is None:
            _left_behind.append(self._process)


def by_hand(run_folder: Path) -> str:
    """The command that sends what is not delivered yet."""
    return f"groundstate sync {shlex.quote(str(run_folder))}"
