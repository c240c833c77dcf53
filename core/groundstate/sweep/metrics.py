"""Which metrics a run of a config will have, found out before a sweep spends hours on a name that none has."""

from __future__ import annotations

from groundstate.check import check
from groundstate.errors import InputError, nearest
from groundstate.evaluate import evaluate
from groundstate.run import Run
from groundstate.sweep.plan import Plan


def require_metrics(plan: Plan) -> None:
    """Refuse a metric that runs do not measure. Reads the data and builds one model, trains nothing."""
    check(plan.base)
    run = Run(plan.base, plan.base.config.output.folder / plan.name)
    if len(run.loaded.layers) > 1:
        return  # the metrics of layers that are not built yet are known when they are measured
    training = {"energy", "code/density", "rate", "iterations", "samples_per_second"}
    training |= {f"energy/{name}" for name in run.model.energy.terms}
    epoch, final = set(training), {*training, "seconds", "best_step"}
    for split, source in run.splits.parts().items():
        if split != "train" and source is not None:
            measured = {f"{split}/{name}" for name in evaluate(run.model, source, limit=2)}
            final |= measured
            epoch |= measured if split == "validation" else set()
    # What a callback or a reference solver adds is known when it is measured, not before.
    open_ended = bool(run.hook.final_metrics.get_hookimpls()) or run.reference is not None
    if plan.metric not in final and not open_ended:
        raise InputError(f"sweep.metric: no metric '{plan.metric}'; {nearest(plan.metric, final)}")
    extra = bool(run.hook.extra_metrics.get_hookimpls())
    if plan.settings.pruner != "none" and plan.prune_by not in epoch and not extra:
        raise InputError(
            f"sweep.prune_by: '{plan.prune_by}' is not measured each epoch; {nearest(plan.prune_by, epoch)}"
        )
