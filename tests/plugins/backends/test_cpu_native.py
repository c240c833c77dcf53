"""The cpu-native backend: which problems its kernels take, and what it does without numba."""

from __future__ import annotations

import subprocess
import sys
import warnings
from typing import Any

import pytest
import torch
from torch import nn

from groundstate import infer
from groundstate.inference import kernel_name
from groundstate.registry import Registry
from groundstate.structure import (
    L1,
    Cardinality,
    Groups,
    Inhibition,
    LeastSquares,
    LinearMap,
    ProblemStructure,
    Ridge,
    Structure,
    Tree,
)
from groundstate_plugins.backends import cpu_native
from groundstate_plugins.backends.cpu_native import CpuNative
from groundstate_plugins.regularisers import l1


def form(*penalties: Structure, weight: float = 1.0) -> ProblemStructure:
    matrix = torch.ones(3, 2, dtype=torch.float64)
    return ProblemStructure(dictionary=LinearMap(matrix=matrix), data=LeastSquares(weight=weight), penalties=penalties)


def without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_native, "find_spec", lambda name: None)


def test_without_numba_it_says_so_once_and_the_generic_solver_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    without_numba(monkeypatch)
    assert CpuNative.available().available
    assert "pip install 'groundstate[native]'" in CpuNative.available().reason
    with pytest.warns(UserWarning, match="numba is not installed, so the generic solver runs"):
        CpuNative().prepare(nn.Linear(2, 2))
    assert CpuNative().kernel(form(L1())) is None


def test_with_numba_it_names_the_forms_that_it_has_kernels_for() -> None:
    assert "kernels for l1" in CpuNative.available().reason
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CpuNative().prepare(nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("penalties", "name"),
    [
        ((L1(),), "native lasso"),
        ((L1(non_negative=True), Ridge(weight=0.1)), "native lasso"),
        ((Tree(parent=torch.tensor([-1, 0])), Ridge()), "native tree"),
        ((Tree(parent=torch.tensor([-1, 0])), L1()), None),
        ((Inhibition(matrix=torch.zeros(2, 2), sparsity=1.0),), "native inhibition"),
        ((Cardinality(count=1), Ridge()), "native cardinality"),
        ((Cardinality(count=1), L1()), None),
        ((Groups(index=torch.tensor([[0], [1]]), disjoint=True),), "native groups"),
        ((Groups(index=torch.tensor([[0, 1], [1, -1]]), disjoint=False), Ridge()), "native overlapping"),
        ((Groups(index=torch.tensor([[0, 1]]), weight=torch.zeros(1), disjoint=False),), None),
        ((Groups(index=torch.tensor([[0], [0]]), disjoint=False),), None),  # the other unit is in no pool
        ((Ridge(),), None),
        ((), None),
    ],
)
def test_which_kernel_takes_which_penalties(penalties: tuple[Structure, ...], name: str | None) -> None:
    found = CpuNative().kernel(form(*penalties))
    assert (None if found is None else kernel_name(found)) == name
    assert CpuNative().kernel(form(*penalties, weight=0.0)) is None


def test_infer_uses_a_backend_by_name() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5, 6, dtype=torch.float64, generator=generator)
    dictionary = torch.randn(6, 9, dtype=torch.float64, generator=generator)
    fast, slow = (
        infer(x, dictionary=dictionary, terms=[l1.L1(weight=0.5)], tolerance=1e-9, backend=backend)
        for backend in ("cpu-native", None)
    )
    torch.testing.assert_close(fast.code, slow.code, rtol=1e-3, atol=1e-4)
    assert fast.certificate is not None
    assert float(fast.certificate.relative.max()) <= 1e-9


CODES = """
import torch
from groundstate import infer
from groundstate_plugins.backends.native import lasso
from groundstate_plugins.regularisers.l1 import L1
infer(torch.ones(2, 3), dictionary=torch.eye(3), terms=[L1(weight=0.5)], backend="cpu-native")
stats = lasso._block.stats
print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""


def test_another_process_loads_what_one_has_compiled() -> None:
    infer(torch.ones(2, 3), dictionary=torch.eye(3), terms=[l1.L1(weight=0.5)], backend="cpu-native")
    done = subprocess.run([sys.executable, "-c", CODES], check=True, capture_output=True, text=True)
    loaded, compiled = map(int, done.stdout.split())
    assert (loaded, compiled) == (1, 0)


def test_infer_looks_for_a_name_once(monkeypatch: pytest.MonkeyPatch) -> None:
    x, dictionary = torch.ones(2, 3, dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    given: dict[str, Any] = {"dictionary": dictionary, "terms": [l1.L1(weight=0.5)], "backend": "cpu-native"}
    first = infer(x, **given).code
    monkeypatch.setattr(Registry, "discover", lambda folder=None: pytest.fail("it looked again"))
    assert torch.equal(infer(x, **given).code, first)


def test_numpy_is_whole_after_the_kernels_were_loaded() -> None:
    script = (
        "import numpy, torch, groundstate\n"
        "from groundstate_plugins.backends.cpu_native import _import_blas\n"
        "_import_blas()\n"
        "numpy.testing.assert_equal(1, 1)\n"
        "assert callable(numpy.f2py.run_main)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
