"""CpuGram keeps the contract of its kind: one test for each check of groundstate's conformance kit."""

from collections.abc import Callable

import pytest
import torch
from groundstate_cpu_gram.cpu_gram import CpuGram

from groundstate.structure import L1, LeastSquares, LinearMap, ProblemStructure, Ridge


@pytest.mark.groundstate(plugin=CpuGram)
def test_it_keeps_the_contract(conformance: Callable[[], None]) -> None:
    conformance()


@pytest.mark.parametrize("non_negative", [False, True])
def test_it_owns_a_kernel_for_the_lasso(non_negative: bool) -> None:
    matrix = torch.randn(30, 20, generator=torch.Generator().manual_seed(0))
    penalties = (L1(weight=0.1, non_negative=non_negative),)
    form = ProblemStructure(dictionary=LinearMap(matrix=matrix), data=LeastSquares(), penalties=penalties)
    assert CpuGram().kernel(form) is not None
    more = ProblemStructure(dictionary=form.dictionary, data=form.data, penalties=(*penalties, Ridge()))
    assert CpuGram().kernel(more) is None
