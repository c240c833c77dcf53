"""Inference where memory is short, where products are rounded, and with sparse codes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from groundstate import infer
from groundstate.errors import InputError
from groundstate.memory import out_of_memory
from groundstate.problem import Problem
from groundstate_plugins.regularisers.l1 import L1
from groundstate_plugins.solvers.fista import Fista

generator = torch.Generator().manual_seed(0)
DICTIONARY = torch.nn.functional.normalize(torch.randn(20, 40, generator=generator), dim=0)
X = torch.randn(33, 20, generator=generator)
TERMS = [L1(weight=0.3)]


def test_codes_come_in_sparse_rows_where_asked() -> None:
    dense = infer(X, dictionary=DICTIONARY, terms=TERMS)
    sparse = infer(X, dictionary=DICTIONARY, terms=TERMS, sparse=True)
    assert sparse.code.layout == torch.sparse_csr
    assert torch.equal(sparse.code.to_dense(), dense.code)
    assert sparse.code.values().numel() == torch.count_nonzero(dense.code)


def test_what_does_not_fit_at_once_is_solved_in_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = infer(X, dictionary=DICTIONARY, terms=TERMS)
    sizes: list[int] = []
    init = Fista.init

    def cramped(self: Fista, problem: Problem, start: Tensor) -> Any:
        sizes.append(len(start))
        if len(start) > 10:
            torch.empty(2**50)  # PyTorch's own complaint
        return init(self, problem, start)

    monkeypatch.setattr(Fista, "init", cramped)
    found = infer(X, dictionary=DICTIONARY, terms=TERMS)
    assert max(size for size in sizes if size <= 10) == 9
    # sums over another number of rows are rounded otherwise, and a gap of 1e-6 leaves a code more room than that
    torch.testing.assert_close(found.code, whole.code, rtol=0, atol=1e-3)
    torch.testing.assert_close(found.energy, whole.energy)
    assert found.certificate is not None
    assert bool((found.certificate.relative <= 1e-6).all())
    assert found.iterations.shape == whole.iterations.shape


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_one_sample_that_does_not_fit_is_one_sentence(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def full(self: Fista, problem: Problem, start: Tensor) -> Any:
        raise error

    monkeypatch.setattr(Fista, "init", full)
    with pytest.raises(InputError, match="memory does not suffice for one sample of 40 units on cpu"):
        infer(X[:3], dictionary=DICTIONARY, terms=TERMS)


def test_other_errors_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(self: Fista, problem: Problem, start: Tensor) -> Any:
        raise RuntimeError("a fault of its own")

    monkeypatch.setattr(Fista, "init", wrong)
    assert not out_of_memory(RuntimeError("a fault of its own"))
    with pytest.raises(RuntimeError, match="a fault of its own"):
        infer(X, dictionary=DICTIONARY, terms=TERMS)


@pytest.mark.parametrize(("word", "bits"), [("high", 10), ("medium", 7)])
def test_rounded_products_end_with_a_certificate_in_full(monkeypatch: pytest.MonkeyPatch, word: str, bits: int) -> None:
    """Rounding is emulated: this machine's processor may have no such products. The gap is checked in float64."""
    residual, rounded_calls = Problem.residual, []

    def rounded(value: Tensor) -> Tensor:
        mantissa, exponent = torch.frexp(value)
        return torch.ldexp(torch.round(mantissa * 2 ** (bits + 1)) / 2 ** (bits + 1), exponent)

    def coarse(self: Problem, z: Tensor) -> Tensor:
        if torch.get_float32_matmul_precision() == word:
            rounded_calls.append(len(z))
            return self.batch.x - rounded(z) @ rounded(DICTIONARY).to(z).T
        return residual(self, z)

    monkeypatch.setattr(Problem, "residual", coarse)
    torch.set_float32_matmul_precision(word)
    try:
        found = infer(X, dictionary=DICTIONARY, terms=TERMS)
        assert torch.get_float32_matmul_precision() == word
    finally:
        torch.set_float32_matmul_precision("highest")
    assert rounded_calls
    exact = infer(X.double(), dictionary=DICTIONARY.double(), terms=[L1(weight=0.3)], tolerance=1e-10)
    assert found.energy is not None
    assert exact.energy is not None
    gap = found.energy.double() - exact.energy
    assert float((gap / (0.5 * X.double().square().sum(1))).max()) < 2e-6
