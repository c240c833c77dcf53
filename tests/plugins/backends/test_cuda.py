"""The cuda backend: what it says without a GPU, and that it computes the same with one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from groundstate.data import Batch
from groundstate.errors import InputError
from groundstate.learning import Learning
from groundstate.model import Model
from groundstate_plugins.backends.cpu import Cpu
from groundstate_plugins.backends.cuda import Cuda
from groundstate_plugins.decoders.linear import LinearDecoder
from groundstate_plugins.learners.gradient import Gradient
from groundstate_plugins.reconstructions.squared_error import SquaredError
from groundstate_plugins.regularisers.l1 import L1
from groundstate_plugins.solvers.fista import Fista

here = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_availability_agrees_with_torch_and_gives_a_reason() -> None:
    found = Cuda.available()
    assert found.available == torch.cuda.is_available()
    assert found.reason


@pytest.mark.parametrize(
    ("version", "says"), [(None, "built without CUDA"), ("13.0", r"CUDA 13\.0.*no usable GPU or driver")]
)
def test_why_it_is_not_available(monkeypatch: pytest.MonkeyPatch, version: str | None, says: str) -> None:
    monkeypatch.setattr(torch.version, "cuda", version)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert not Cuda.available().available
    with pytest.raises(InputError, match=f"{says}.*or use backend 'cpu'"):
        Cuda().prepare(nn.Linear(2, 2))


def test_what_it_runs_on_and_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    class Properties:
        name = "A GPU"
        total_memory = 8 * 2**30

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: Properties)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert Cuda.available().reason == "A GPU, 8 GiB, CUDA 13.0"
    assert Cuda(index=1).device == torch.device("cuda", 1)
    with pytest.raises(InputError, match=r"backend\.index: GPU 2 does not exist; this machine has 2, numbered from 0"):
        Cuda(index=2).prepare(nn.Linear(2, 2))


@here
@pytest.mark.gpu
def test_tf32_is_set_as_asked() -> None:
    before = torch.get_float32_matmul_precision()
    try:
        for products, expected in (("tf32", "high"), ("float32", "highest")):
            Cuda(products=products).prepare(nn.Linear(2, 2))
            assert torch.get_float32_matmul_precision() == expected
    finally:
        torch.set_float32_matmul_precision(before)


@here
@pytest.mark.gpu
def test_codes_and_a_learning_step_are_those_of_the_cpu() -> None:
    def trained(backend: Any) -> tuple[torch.Tensor, torch.Tensor]:
        model = Model(
            decoder=LinearDecoder(units=20),
            terms={"data": SquaredError(), "sparsity": L1(weight=0.1)},
            solver=Fista(tolerance=1e-10, max_iterations=2000),
            backend=backend,
        ).build((12,))
        x = torch.randn(8, 12, generator=torch.Generator().manual_seed(0))
        code = model.infer(x).code.cpu()
        learner = Learning(model, Gradient())
        learner.step(Batch({"x": x}).to(model.device, model.dtype), rate=0.01)
        learner.load_state(learner.state())
        learner.step(Batch({"x": x}).to(model.device, model.dtype), rate=0.01)
        assert isinstance(model.decoder, LinearDecoder)
        return code, model.decoder.dictionary.detach().cpu()

    for one, other in zip(trained(Cpu(dtype="float64")), trained(Cuda(dtype="float64")), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)
