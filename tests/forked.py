"""``groundstate …`` in a process forked from one that has PyTorch imported, which takes longer than most commands.

Run by its path, with ``GIVEN``: words, folder, environment, and the files stdout and stderr; see test_docs.py.
"""

from __future__ import annotations

import os
import sys
from typing import Any


def main(words: list[str], folder: str, environment: dict[str, str], stdout: str, stderr: str) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for stream, path in ((sys.stdout, stdout), (sys.stderr, stderr)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), stream.fileno())
        stream.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    sys.argv = ["groundstate", *words]
    sys.path.insert(0, "")

    from groundstate.cli import main

    sys.exit(main())


given: dict[str, Any] = globals()["GIVEN"]
main(**given)
