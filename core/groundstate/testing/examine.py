"""Running checks on a plugin: every check of its kind on every case of every example."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from groundstate.components import TERM_KINDS, Plugin
from groundstate.errors import InputError, relative
from groundstate.testing import callbacks, general, maps, prox, terms
from groundstate.testing.backends import BackendCase
from groundstate.testing.data import DataCase
from groundstate.testing.formats import FormatCase
from groundstate.testing.learners import LearnerCase
from groundstate.testing.results import Broken, Check, NotApplicable, Result, checks_of
from groundstate.testing.solvers import SolverCase
from groundstate.testing.subject import MakeBatch, Subject, subjects

CASES: Mapping[str, Callable[[Subject], Iterator[Any]]] = {
    **dict.fromkeys(TERM_KINDS, terms.cases),
    "encoder": maps.encoder_cases,
    "decoder": maps.decoder_cases,
    "transform": maps.transform_cases,
    "solver": lambda subject: iter((SolverCase(subject),)),
    "backend": lambda subject: iter((BackendCase(subject),)),
    "data": lambda subject: iter((DataCase(subject),)),
    "format": lambda subject: iter((FormatCase(subject),)),
    "learner": lambda subject: iter((LearnerCase(subject),)),
    "tracker": lambda subject: iter((callbacks.CallbackCase(subject),)),
    "callback": lambda subject: iter((callbacks.CallbackCase(subject),)),
}
__all__ = ["Examination", "examine", "general", "prox"]


@dataclass
class Examination:
    """A plugin about to be examined. fields: constructor fields (default: the class's ``examples``)."""

    cls: type[Plugin]
    kind: str
    name: str
    fields: Mapping[str, Any] | None = None
    batch: MakeBatch | None = None

    def __post_init__(self) -> None:
        self._subjects: list[Subject] = []
        self._cases: list[Any] | Broken | None = None

    @property
    def checks(self) -> Sequence[Check]:
        """The checks of its kind."""
        return checks_of(self.kind)

    def run(self, check: Check) -> Result:
        """One check, on every case; the first that fails is told."""
        reasons: list[str] = []
        passed = False
        with torch.random.fork_rng(devices=[]):
            try:
                for case in self._cases_for(check):
                    try:
                        check.run(case)
                        passed = True
                    except NotApplicable as reason:
                        reasons.append(str(reason))
                    except Broken as broken:
                        shown = f"{case}: {broken.shown}" if broken.shown else str(case)
                        return Result(check, "failed", broken.message, shown, broken.advice)
                    except Exception as error:
                        return Result(check, "failed", self._raised(error), str(case), self._advice(error))
            except Broken as broken:  # while cases were made
                return Result(check, "failed", broken.message, broken.shown, broken.advice)
            except Exception as error:
                return Result(check, "failed", self._raised(error), f"{self.cls.__name__} while it is made")
        if passed:
            return Result(check, "passed")
        return Result(check, "skipped", "; ".join(dict.fromkeys(reasons)))

    def _cases_for(self, check: Check) -> Sequence[Any]:
        if not self._subjects:
            self._subjects = subjects(self.cls, self.kind, self.name, self.fields, self.batch)
        if check.kinds == general.EVERY:
            return self._subjects
        if self._cases is None:
            try:
                self._cases = [case for subject in self._subjects for case in CASES[self.kind](subject)]
            except Broken as broken:
                self._cases = broken
        if isinstance(self._cases, Broken):
            raise self._cases
        return self._cases

    def _raised(self, error: Exception) -> str:
        return f"it raised {type(error).__name__}: {error}{self._line(error)}"

    def _line(self, error: Exception) -> str:
        """`` (file:line)`` of the deepest frame outside of torch, the kit and the core."""
        own = Path(__file__).parents[1]
        frames = traceback.extract_tb(error.__traceback__)
        mine = [frame for frame in frames if own not in Path(frame.filename).parents]
        outside = [frame for frame in mine if "site-packages" not in frame.filename] or mine
        return f" ({relative(Path(outside[-1].filename))}:{outside[-1].lineno})" if outside else ""

    def _advice(self, error: Exception) -> str:
        if isinstance(error, InputError):
            return "it must take these inputs; or refuse the shape in build or code_shape with InputError"
        return "see the line; what a plugin cannot take it refuses in build or code_shape with InputError"


def examine(
    cls: type[Plugin],
    kind: str | None = None,
    *,
    name: str | None = None,
    fields: Mapping[str, Any] | None = None,
    batch: MakeBatch | None = None,
) -> list[Result]:
    """Every check of the plugin's kind, in order. See ``Examination`` for the arguments."""
    examination = Examination(cls, kind or cls.kind, name or cls.__name__.lower(), fields, batch)
    return [examination.run(check) for check in examination.checks]
