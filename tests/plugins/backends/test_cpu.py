"""The cpu backend: threads, precision."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from groundstate.errors import InputError
from groundstate_plugins.backends.cpu import Cpu, cores


@pytest.fixture(autouse=True)
def same_threads_after() -> Iterator[None]:
    """The number of threads is the process's: leave it as it was."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_it_is_always_there_and_says_on_what_it_runs() -> None:
    found = Cpu.available()
    assert found.available
    assert f"{cores()} cores" in found.reason


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_it_moves_a_module_to_its_precision(dtype: str) -> None:
    backend = Cpu(dtype=dtype)
    module = backend.prepare(nn.Linear(2, 2))
    assert module.weight.dtype is backend.dtype is getattr(torch, dtype)
    assert module.weight.device == backend.device == torch.device("cpu")


def test_it_sets_the_threads_that_were_asked_for() -> None:
    Cpu(threads=1).prepare(nn.Linear(2, 2))
    assert torch.get_num_threads() == 1
    torch.set_num_threads(min(2, cores()))
    Cpu().prepare(nn.Linear(2, 2))
    assert torch.get_num_threads() == min(2, cores())


def test_more_threads_than_cores_are_an_input_error() -> None:
    with pytest.raises(InputError, match=rf"backend\.threads.*at most {cores()}"):
        Cpu(threads=cores() + 1).prepare(nn.Linear(2, 2))


def test_it_brings_no_kernel_of_its_own() -> None:
    assert Cpu().kernel(None) is None  # type: ignore[arg-type]
