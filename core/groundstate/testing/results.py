"""What a check is, and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

Status = Literal["passed", "failed", "skipped"]


class Broken(Exception):
    """A check failed. message: what is wrong; shown: the input that shows it; advice: what to change."""

    def __init__(self, message: str, *, shown: str = "", advice: str = "") -> None:
        super().__init__(message)
        self.message, self.shown, self.advice = message, shown, advice


class NotApplicable(Exception):
    """A check has nothing to look at here; the text says why."""


@dataclass(frozen=True)
class Check:
    """One named check. says: what it makes sure of, in one line. run: takes one case of the plugin."""

    name: str
    kinds: tuple[str, ...]
    says: str
    run: Callable[[Any], None]

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Result:
    """What one check found on one plugin.

    message: what is wrong, or why it was skipped. shown: the input that shows it. advice: what to change.
    """

    check: Check
    status: Status
    message: str = ""
    shown: str = ""
    advice: str = ""

    def __str__(self) -> str:
        parts = [f"{self.check.name}: {self.message or self.status}"]
        parts += [f"shown by {self.shown}"] if self.shown else []
        parts += [f"to mend it: {self.advice}"] if self.advice else []
        return "\n".join(parts)


CHECKS: dict[str, Check] = {}
"""Every check by its name, in the order in which they run."""

F = TypeVar("F", bound=Callable[[Any], None])


def check(*kinds: str, says: str) -> Callable[[F], F]:
    """Make a function a check of these kinds; its name, with hyphens, is the check's."""

    def made(function: F) -> F:
        name = function.__name__.replace("_", "-")
        assert name not in CHECKS, f"two checks are named {name}"
        CHECKS[name] = Check(name, kinds, says, function)
        return function

    return made


def checks_of(kind: str) -> Sequence[Check]:
    """The checks of one kind of plugin, those of most kinds first."""
    return sorted((one for one in CHECKS.values() if kind in one.kinds), key=lambda one: -len(one.kinds))
