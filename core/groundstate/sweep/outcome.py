"""What a sweep leaves behind: a table of its trials, two pictures, and the best config."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from groundstate.config import dump_toml
from groundstate.files import write_json, write_text
from groundstate.sweep.plan import Plan
from groundstate.sweep.study import Study, Trial, ranks

TABLE, BEST = "trials.json", "best.toml"
PARALLEL, IMPORTANCE = "parallel.png", "importance.png"


def write_outcome(folder: Path, plan: Plan, study: Study) -> dict[str, Any] | None:
    """Write the files into the sweep's folder; the best trial as plain values, None while none has finished."""
    trials = ranks(study.trials(), plan.mode)
    importances = study.importances()
    write_json(folder / TABLE, {"importances": importances, "trials": [row(trial) for trial in trials]})
    best = trials[0] if trials and trials[0].state == "finished" else None
    if best is None:
        return None
    write_text(folder / BEST, dump_toml(plan.space.config(best.values).config))
    draw(folder, plan, trials, importances)
    return row(best)


def row(trial: Trial) -> dict[str, Any]:
    """A trial as plain values."""
    return {
        "trial": trial.number,
        "state": trial.state,
        "value": trial.value,
        "values": dict(trial.values),
        "run": trial.run,
        "error": trial.error,
    }


def draw(folder: Path, plan: Plan, trials: Sequence[Trial], importances: dict[str, float]) -> None:
    """The pictures that there is enough to draw for."""
    from groundstate.sweep.pictures import draw_importances, draw_parallel

    draw_parallel(folder / PARALLEL, plan, trials)
    if importances:
        draw_importances(folder / IMPORTANCE, importances, plan.metric)
