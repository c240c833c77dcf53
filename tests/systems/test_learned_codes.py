"""Small versions of the variational and the learned-thresholding systems: what each is for can be seen in seconds."""

from __future__ import annotations

import math
from typing import Any


def test_a_variational_code_tells_less_where_noise_costs_more(small: Any) -> None:
    short = {"phases.learn.epochs": 8, "learning.rate": 1e-2}
    low, high = (small("vae-digits", **short, **{"energy.divergence.weight": w}).metrics for w in (0.03, 0.0003))
    assert low["test/divergence/bits"] < 0.5 * high["test/divergence/bits"]
    assert low["test/energy/reconstruction"] > high["test/energy/reconstruction"]
    assert high["test/classification/error"] < 0.3


def test_few_layers_of_lista_are_nearer_the_optimum_after_training(small: Any) -> None:
    few = {"data.train": 5000, "data.validation": 200, "data.test": 200, "data.size": 8, "model.decoder.units": 64}
    few |= {"energy.sparsity.weight": 0.3}
    gaps = [
        small("lista-patches", **few, **{"phases.learn.epochs": epochs}).metrics["test/amortisation_gap/mean"]
        for epochs in (1, 10)
    ]
    assert gaps[1] < 0.7 * gaps[0]


def test_unrolled_fista_ends_lower_than_fista(small: Any) -> None:
    few = {"data.train": 5000, "data.validation": 200, "data.test": 200, "data.size": 8, "model.decoder.units": 64}
    few |= {"energy.sparsity.weight": 0.3, "phases.learn.freeze": ["decoder"], "phases.learn.epochs": 3}
    few |= {"model.encoder": {"type": "unrolled-fista", "steps": 3}, "learning.batch_size": 50}
    # at a rate of nothing it stays the three iterations of FISTA that it begins as
    fista, learned = (
        small("lista-patches", **few, **{"learning.rate": rate}).metrics["test/amortisation_gap/mean"]
        for rate in (1e-12, 1e-3)
    )
    assert learned < 0.7 * fista


def test_alista_recovers_codes_that_ista_would_not(small: Any) -> None:
    few = {"data.inputs": 100, "data.units": 200, "model.decoder.units": 200, "data.density": 0.05, "data.train": 2000}
    found = small("alista-gaussian", **few, **{"phases.learn.epochs": 2, "learning.batch_size": 100}).metrics
    nmse = 10 * math.log10(found["test/target/error"] / found["test/target/signal"])
    assert nmse < -25
