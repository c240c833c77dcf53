"""DrSAE's recurrence (Rolfe & LeCun 2013): 200 units, T = 11 against T = 2.

All models have 4 epochs without labels and 24 with them, half as many as the protocol ``drsae-mnist``, so that errors
are somewhat above what the paper's models reach. A third arm has all terms from the start.
"""

from __future__ import annotations

import statistics

from lab import Lab

SHORT = {"phases.unsupervised.epochs": 4, "phases.joint.epochs": 24}
VARIANTS = {
    "T = 11": ({}, "1.21 (Rolfe & LeCun 2013)"),
    "T = 2": ({"model.encoder.steps": 2}, "1.49 (Rolfe & LeCun 2013)"),
    "T = 11, all terms from the start": ({"phases.unsupervised.terms": False}, ""),
}


def measure(lab: Lab) -> None:
    shared = {"data.path": str(lab.data("mnist")), "model.decoder.units": 200, **SHORT}
    errors: dict[str, list[float]] = {}
    for name, (own, reference) in VARIANTS.items():
        runs = lab.train("drsae-mnist", {**shared, **own}, label=f"200 units, {name}")
        errors[name] = [100 * run.metrics["test/classification/error"] for run in runs]
        lab.row(f"test error, %: {name}", errors[name], reference=reference, note="4 + 24 epochs, at the best of them")
    deep, shallow = errors["T = 11"], errors["T = 2"]
    spread = max(statistics.stdev(deep), statistics.stdev(shallow)) if len(deep) > 1 else 0.0
    lab.row(
        "what T = 2 loses to T = 11, over the larger spread",
        [(statistics.fmean(shallow) - statistics.fmean(deep)) / max(spread, 1e-9)],
        must="≥ 1",
        note="the difference of the means, over the larger standard deviation over seeds",
    )
