"""The command line: arguments in, core calls, words out.

Heavy modules are imported inside the commands that need them, so that ``--help`` and ``plugins list`` answer at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

DONE, FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and give its exit code: 0 done, 1 failed while running, 2 wrong input, 130 interrupted."""
    from groundstate.cli.app import app
    from groundstate.errors import GroundstateError, InputError, Interrupted

    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        app(_with_resume(words), prog_name="groundstate")
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else FAILED
    except GroundstateError as error:
        if not (error.told or (isinstance(error, InputError | Interrupted) and _said_beside())):
            _tell(str(error))
        if isinstance(error, InputError):
            return WRONG_INPUT
        return INTERRUPTED if isinstance(error, Interrupted) else FAILED
    return DONE


def _said_beside() -> bool:
    """Whether another process on this machine says the same: it was given the same input, or interrupted too."""
    from groundstate.processes import first_here

    return not first_here()


def _tell(text: str) -> None:
    print(text, file=sys.stderr)


def _with_resume(words: list[str]) -> list[str]:
    """``--resume`` alone means the last run: an option's value may not be left out otherwise."""
    filled = []
    for number, word in enumerate(words, 1):
        following = words[number] if number < len(words) else "-"
        alone = following.startswith("-") or "=" in following or following.endswith(".toml")
        filled.append("--resume=last" if word == "--resume" and alone else word)
    return filled
