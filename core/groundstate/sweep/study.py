"""The one file that knows Optuna: which values a trial gets, what it reported, how it ended."""

from __future__ import annotations

import itertools
import json
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from groundstate.errors import Fault, InputError
from groundstate.sweep.plan import Plan
from groundstate.sweep.space import Over

if TYPE_CHECKING:
    import optuna

State = Literal["running", "finished", "pruned", "failed"]
_STATES: Mapping[str, State] = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed"}
PLAN, ID, OWNER, RUN, ERROR, SURPLUS = "plan", "id", "owner", "run", "error", "surplus"
"""Names of what is kept with the study and its trials."""


@dataclass(frozen=True)
class Trial:
    """One trial as the study has it. values: by searched key. reported: the pruner's metric by epoch."""

    number: int
    state: State
    value: float | None
    values: Mapping[str, Any]
    owner: str | None = None
    run: str | None = None
    error: str | None = None
    reported: Mapping[int, float] | None = None

    def better(self, other: Trial | None, mode: str) -> bool:
        """Whether its value is better than another's; one without a value never is."""
        if self.state != "finished" or self.value is None:
            return False
        if other is None or other.value is None:
            return True
        return self.value < other.value if mode == "min" else self.value > other.value


def require_optuna() -> None:
    """Refuse a sweep where the library that chooses values is not installed."""
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise InputError("a sweep needs Optuna, which is not installed: pip install 'groundstate[sweep]'") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)


class Study:
    """The trials of a sweep in a database that any number of processes may use at once.

    total: trials of a higher number do not count. InputError where the database cannot be used.
    """

    def __init__(self, url: str, name: str, total: int, *, plan: Plan | None = None) -> None:
        require_optuna()
        import optuna

        self.total = total
        self._plan = plan
        with _reachable(url), _quiet():
            waits = {"connect_args": {"timeout": 60}} if url.startswith("sqlite:") else {}
            storage = optuna.storages.RDBStorage(url, engine_kwargs={**waits, "pool_pre_ping": True})
            if plan is None:
                self._study = optuna.load_study(study_name=name, storage=storage)
            else:
                self._study = optuna.create_study(
                    study_name=name,
                    storage=storage,
                    direction="minimize" if plan.mode == "min" else "maximize",
                    sampler=_sampler(plan),
                    load_if_exists=True,
                )

    def note(self, name: str, value: Any) -> None:
        self._study.set_user_attr(name, value)

    def noted(self, name: str) -> Any:
        return self._study.user_attrs.get(name)

    def trials(self) -> list[Trial]:
        """All that count, by number."""
        found = (_trial(one) for one in self._study.get_trials(deepcopy=False) if one.number < self.total)
        return sorted(found, key=lambda trial: trial.number)

    def ask(self, owner: str) -> Trial | None:
        """A new trial for this owner, or None when there are as many as there should be."""
        if len(self._study.get_trials(deepcopy=False)) >= self.total:
            return None
        with _quiet():
            asked = self._study.ask()
        if asked.number >= self.total:
            # Another machine took the last one in the meantime.
            asked.set_user_attr(SURPLUS, True)
            self._study.tell(asked.number, state=_optuna_state("failed"))
            return None
        asked.set_user_attr(OWNER, owner)
        return self.settle(asked.number)

    def settle(self, number: int) -> Trial:
        """The trial with all its values: one that was cut short while it got them gets the rest."""
        assert self._plan is not None
        trial = self._open(number)
        with _quiet():
            for key, one in self._plan.space.over.items():
                _suggest(trial, key, one)
        return self.trial(number)

    def trial(self, number: int) -> Trial:
        return _trial(self._frozen(number))

    def take(self, number: int, owner: str) -> None:
        """Make this owner the one who runs the trial."""
        self._open(number).set_user_attr(OWNER, owner)

    def note_trial(self, number: int, name: str, value: Any) -> None:
        self._open(number).set_user_attr(name, value)

    def finish(self, number: int, state: State, value: float | None = None, error: str | None = None) -> None:
        """Say how a trial ended; a second time changes nothing."""
        if error is not None and self.trial(number).state == "running":
            self.note_trial(number, ERROR, error)
        self._study.tell(number, value, state=_optuna_state(state), skip_if_finished=True)

    def report(self, number: int, epoch: int, value: float) -> None:
        self._open(number).report(value, epoch)

    def falls_behind(self, number: int) -> bool:
        """Whether the pruner would end the trial now."""
        return self._open(number).should_prune()

    def prune_with(self, pruner: str, epochs: int) -> None:
        """Choose who ends trials early. epochs: of the longest trial."""
        import optuna

        pruners = optuna.pruners
        chosen: optuna.pruners.BasePruner = pruners.NopPruner()
        if pruner == "median":
            chosen = pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1)
        elif pruner == "hyperband":
            chosen = pruners.HyperbandPruner(min_resource=1, max_resource=epochs)
        self._study.pruner = chosen

    def importances(self) -> dict[str, float]:
        """How much of the figure's variation each key explains (fANOVA), most first; empty where it cannot be told."""
        import optuna

        values = [trial.value for trial in self.trials() if trial.state == "finished"]
        if len(values) < 4 or len(set(values)) < 2:
            return {}
        with _quiet():
            evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
            found = optuna.importance.get_param_importances(self._study, evaluator=evaluator)
        return {key: float(value) for key, value in found.items()}

    def _frozen(self, number: int) -> optuna.trial.FrozenTrial:
        trials = self._study.get_trials(deepcopy=False)
        if number < len(trials) and trials[number].number == number:
            return trials[number]
        return next(trial for trial in trials if trial.number == number)

    def _open(self, number: int) -> optuna.trial.Trial:
        import optuna

        return optuna.trial.Trial(self._study, self._frozen(number)._trial_id)


def _trial(found: optuna.trial.FrozenTrial) -> Trial:
    told = found.user_attrs
    return Trial(
        number=found.number,
        state=_STATES.get(found.state.name, "running"),
        value=found.value if found.state.name == "COMPLETE" else None,
        values={key: _decoded(value) for key, value in found.params.items()},
        owner=told.get(OWNER),
        run=told.get(RUN),
        error=told.get(ERROR),
        reported=dict(found.intermediate_values),
    )


def _optuna_state(state: State) -> Any:
    from optuna.trial import TrialState

    return {"finished": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}[state]


# -- values -----------------------------------------------------------------------------------------


def _suggest(trial: optuna.trial.Trial, key: str, one: Over) -> None:
    if isinstance(one, list):
        # As text: a choice may be a list or a table, and 1 and true must not be the same.
        trial.suggest_categorical(key, [json.dumps(value) for value in one])
    elif one.int:
        trial.suggest_int(key, round(one.low), round(one.high), step=round(one.step or 1), log=one.log)
    else:
        trial.suggest_float(key, one.low, one.high, step=one.step, log=one.log)


def _decoded(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


def _sampler(plan: Plan) -> optuna.samplers.BaseSampler:
    """Chooses by the sweep's seed and the trial's number: going on, or a second machine, repeats no draw."""
    import optuna

    seed = plan.settings.seed

    def of(number: int) -> optuna.samplers.BaseSampler:
        own = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
        if plan.settings.sampler == "random":
            return optuna.samplers.RandomSampler(seed=own)
        return optuna.samplers.TPESampler(seed=own, constant_liar=True)

    class ByNumber(optuna.samplers.BaseSampler):
        """Another sampler for each trial; of a grid, the point of that number."""

        def __init__(self) -> None:
            self.number = -1
            self.inner = of(0)
            self.grid = plan.space.grid() if plan.settings.sampler == "grid" else None

        def _at(self, trial: optuna.trial.FrozenTrial) -> optuna.samplers.BaseSampler:
            if trial.number != self.number:
                self.number, self.inner = trial.number, of(trial.number)
            return self.inner

        def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
            return self._at(trial).infer_relative_search_space(study, trial)

        def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
            return self._at(trial).sample_relative(study, trial, search_space)

        def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
            if self.grid is None:
                return self._at(trial).sample_independent(study, trial, param_name, param_distribution)
            value = self.grid[trial.number][param_name]
            return json.dumps(value) if isinstance(plan.space.over[param_name], list) else value

    return ByNumber()


# -- the database -----------------------------------------------------------------------------------


@contextmanager
def _reachable(url: str) -> Iterator[None]:
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import ArgumentError, SQLAlchemyError

    shown = re.sub(r"^([^/]+://)[^/]*@", r"\1", url)
    try:
        yield
    except (ArgumentError, ModuleNotFoundError, ImportError) as error:
        message = (
            f"'{shown}' is no database's URL that can be used here ({error}); e.g. postgresql+psycopg2://HOST/NAME"
        )
        raise InputError(Fault(message, "sweep.storage")) from error
    except (SQLAlchemyError, StorageInternalError, OSError) as error:
        reason = str(getattr(error, "orig", None) or error.__cause__ or error).strip().partition("\n")[0]
        raise InputError(Fault(f"the database {shown} cannot be used: {reason}", "sweep.storage")) from error


@contextmanager
def _quiet() -> Iterator[None]:
    # Optuna warns of options that it calls experimental; the sweep's results do not depend on their form.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def ranks(trials: Sequence[Trial], mode: str) -> list[Trial]:
    """Finished trials, the best first; then pruned ones, then the rest, by number."""
    order = {"finished": 0, "pruned": 1, "running": 2, "failed": 3}

    def key(trial: Trial) -> tuple[int, float, int]:
        value = trial.value if trial.value is not None and math.isfinite(trial.value) else math.inf
        return order[trial.state], value if mode == "min" else -value, trial.number

    return sorted(itertools.chain(trials), key=key)
