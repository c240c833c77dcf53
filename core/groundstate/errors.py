"""What goes wrong, said so that a person can mend it: one sentence each, all at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong in the input: where it stands, what it is and what would be right.

    where: a file with its line, a config key or a place in the data, e.g. ``faces.toml:12``.
    key: the dotted config key, where there is one.
    """

    message: str
    key: str = ""
    where: str = ""

    def __str__(self) -> str:
        place = " ".join(part for part in (self.where, self.key) if part)
        return f"{place}: {self.message}" if place else self.message


class GroundstateError(Exception):
    """Base of every error that groundstate raises on purpose.

    told: another process tells it to the person, so that this one need not.
    """

    told: bool = False


class InputError(GroundstateError):
    """The input (config, data, command line) is wrong; nothing was written. Exit code 2."""

    def __init__(self, faults: Fault | str | Iterable[Fault]) -> None:
        if isinstance(faults, str):
            faults = Fault(faults)
        self.faults: Sequence[Fault] = (faults,) if isinstance(faults, Fault) else tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))


class RunError(GroundstateError):
    """A run failed while it ran; its state is saved. Exit code 1."""


class Interrupted(RunError):
    """The person or the system asked the run to stop; its state is saved. Exit code 130."""


class OthersStopped(RunError):
    """Another process that works on the same model has stopped, so this one cannot go on.

    reason: what it told; '' where it told nothing. detail: how it was found out.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason = reason
        super().__init__(reason or f"another process that works on this model stopped ({detail})")


class PluginError(GroundstateError):
    """A plugin failed or does not keep its contract; names the plugin and, where known, its file and line."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint that ends an error message: the nearest valid name, or all of them when none is near."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"did you mean '{close[0]}'?"
    return "known: " + ", ".join(known) if known else "there is none"


def relative(path: Path) -> str:
    """The path as a person would write it from the working directory."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
