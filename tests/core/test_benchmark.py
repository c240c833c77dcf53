"""The comparison of solvers and backends on a config's own problem."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from groundstate.benchmark import Comparison, compare_solvers
from groundstate.config import load_config
from groundstate.errors import InputError
from groundstate.model import Model
from groundstate_plugins.decoders.linear import LinearDecoder
from groundstate_plugins.reconstructions.squared_error import SquaredError
from groundstate_plugins.regularisers.l1 import L1
from groundstate_plugins.solvers.fista import Fista


def lasso(**changes: Any) -> dict[str, Any]:
    return {
        "data": {"type": "digits"},
        "model": {"decoder": {"type": "linear", "units": 20}},
        "energy": {"reconstruction": {"type": "squared-error"}, "sparsity": {"type": "l1", "weight": 0.1}},
        "inference": {"type": "fista", "tolerance": 1e-5, "max_iterations": 2000},
        "phases": {"learn": {"epochs": 1}},
        "tracking": False,
        **changes,
    }


def compared(config: dict[str, Any], **options: Any) -> Comparison:
    return compare_solvers(load_config(config), samples=20, repeats=1, **options)


def test_solvers_that_reach_the_tolerance_agree_on_the_energy() -> None:
    found = compared(lasso())
    done = [one for one in found.timings if one.reached == 1]
    assert {"fista", "ista", "coordinate-descent", "auto"} <= {one.solver for one in done}
    lowest = min(one.energy for one in found.timings)
    # the gap is relative to ½‖x‖², which is ½ for rows of unit norm
    assert all(one.certificate_kind == "gap" and one.energy - lowest <= 0.5e-5 for one in done)


def test_it_names_the_kernel_that_takes_a_solvers_place() -> None:
    pytest.importorskip("numba")
    kernels = {(one.solver, one.backend): one.kernel for one in compared(lasso()).timings}
    assert kernels["auto", "cpu-native"] == "native lasso"
    assert kernels["fista", "cpu-native"] is kernels["auto", "cpu"] is None


def test_the_first_is_the_fastest_of_those_that_reach_it_on_most_samples() -> None:
    timings = compared(lasso(), max_iterations=30).timings
    assert [(-one.reached, one.seconds) for one in timings] == sorted((-one.reached, one.seconds) for one in timings)
    assert {one.reached == 1 for one in timings} == {True, False}


def test_an_encoder_is_timed_as_it_is_beside_solvers_that_go_to_the_end() -> None:
    found = compared(
        lasso(
            model={"encoder": {"type": "linear"}, "decoder": {"type": "linear", "units": 20}},
            inference={"type": "amortised"},
        )
    )
    by_solver = {one.solver: one for one in found.timings if one.backend == "cpu"}
    assert by_solver["amortised"].iterations == 0
    assert by_solver["amortised"].energy > by_solver["coordinate-descent"].energy


def test_trained_parameters_are_those_that_are_timed() -> None:
    config = load_config(lasso())

    trained = Model(
        terms={"reconstruction": SquaredError(), "sparsity": L1(weight=0.1)},
        solver=Fista(),
        decoder=LinearDecoder(units=20),
    ).build((64,))
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.zero_()
    found = compare_solvers(config, samples=20, repeats=1, trained=trained)
    assert all(one.energy == pytest.approx(0.5) for one in found.timings)  # no code rebuilds anything


def test_who_is_left_out_is_named_with_the_reason() -> None:
    found = compared(lasso())
    assert "encoder" in found.left_out["solver hybrid"]
    if not torch.cuda.is_available():
        assert "CUDA" in found.left_out["backend cuda"]


def test_the_number_of_threads_is_as_before() -> None:
    before = torch.get_num_threads()
    compared(lasso(backend={"type": "cpu", "threads": 1}))
    assert torch.get_num_threads() == before


def test_a_tolerance_that_no_solver_takes_is_refused() -> None:
    with pytest.raises(InputError, match="no solver and backend here can take this config's inference problem"):
        compared(lasso(), tolerance=-1.0)
