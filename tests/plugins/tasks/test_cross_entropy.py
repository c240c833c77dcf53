"""Multinomial logistic loss: value, gradients, bounds, and labels that make no sense."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from torch import Tensor

from groundstate.components import Context
from groundstate.errors import InputError
from groundstate.parameters import NormBound
from groundstate_plugins.tasks.cross_entropy import CrossEntropy


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def built(code: tuple[int, ...] = (5,), classes: int = 3, **fields: Any) -> CrossEntropy:
    task = CrossEntropy(**fields)
    task.build(Context((7,), code, torch.Generator().manual_seed(0), classes=classes))
    task.double()
    task.weight.data.copy_(normal(*task.weight.shape, seed=1))
    if task.bias is not None:
        task.bias.data.copy_(normal(classes, seed=2))
    return task


Y = torch.tensor([0, 2, 1, 2])


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("code", [(5,), (2, 3, 2)])
def test_the_loss_is_that_of_scipys_log_softmax(normalise: bool, bias: bool, code: tuple[int, ...]) -> None:
    task, z = built(code, normalise=normalise, bias=bias), normal(4, *code)
    flat, weight = z.numpy().reshape(4, -1), task.weight.detach().numpy().reshape(3, -1)
    if normalise:
        flat = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    scores = flat @ weight.T + (task.bias.detach().numpy() if task.bias is not None else 0)
    np.testing.assert_allclose(task.predict(z).detach(), scores, rtol=1e-12)
    np.testing.assert_allclose(task.probabilities(z).detach(), softmax(scores, axis=1), rtol=1e-12)
    np.testing.assert_allclose(task.energy(z, Y).detach(), -log_softmax(scores, axis=1)[range(4), Y], rtol=1e-12)
    wrong = scores.argmax(1) != Y.numpy()
    assert task.metrics(z, Y)["error"].tolist() == wrong.astype(float).tolist()


@pytest.mark.parametrize("normalise", [False, True])
def test_the_gradients_against_finite_differences(normalise: bool) -> None:
    task, z = built(normalise=normalise), normal(4, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda code: task.energy(code, Y), z)
    # gradcheck changes the parameters in place, where the task sees it
    assert torch.autograd.gradcheck(lambda *_: task.energy(z.detach(), Y), tuple(task.parameters()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_empty_code_is_scored_by_the_constants_and_has_no_gradient(dtype: torch.dtype) -> None:
    task = built(normalise=True).to(dtype)
    z = torch.zeros(4, 5, dtype=dtype, requires_grad=True)
    assert task.bias is not None
    torch.testing.assert_close(task.predict(z), task.bias.expand(4, 3))
    task.energy(z, Y).sum().backward()
    assert z.grad is not None
    assert not bool(z.grad.any())
    assert task.weight.grad is not None
    assert not bool(task.weight.grad.any())


def test_a_scaled_code_scores_the_same_where_it_is_normalised() -> None:
    task, z = built(normalise=True), normal(4, 5)
    torch.testing.assert_close(task.predict(1000 * z), task.predict(z))


def test_all_classes_start_nearly_equally_likely() -> None:
    task = CrossEntropy()
    task.build(Context((7,), (5,), torch.Generator().manual_seed(0), classes=3))
    loss = task.energy(normal(4, 5).float(), Y)
    torch.testing.assert_close(loss, torch.full((4,), np.log(3).item()), rtol=0.1, atol=0)


@pytest.mark.parametrize("code", [(5,), (2, 3, 2)])
def test_rows_are_bounded(code: tuple[int, ...]) -> None:
    task = built(code, bound=2.0)
    constraint = task.specs["weight"].constraint
    assert isinstance(constraint, NormBound)
    value = 10 * task.weight.detach()
    constraint.project_(value)
    torch.testing.assert_close(value.flatten(1).norm(dim=1), torch.full((3,), 2.0, dtype=torch.float64))
    assert built(code, bound=None).specs["weight"].constraint is None


def test_pruning_keeps_the_classes_and_slices_the_units() -> None:
    for code in ((5,), (5, 2, 2)):
        task, z, kept = built(code), normal(4, *code), torch.tensor([4, 1])
        rest = torch.zeros_like(z)
        rest[:, kept] = z[:, kept]
        expected = task.predict(rest)
        task.select(kept)
        torch.testing.assert_close(task.predict(z[:, kept]), expected)


def test_data_without_labels_is_an_input_error() -> None:
    with pytest.raises(InputError, match="the task needs labels"):
        CrossEntropy().build(Context((7,), (5,), torch.Generator()))


@pytest.mark.parametrize(
    ("y", "says"),
    [
        (torch.tensor([0, 1, 3, 2]), "label 3 is out of range.*0 to 2"),
        (torch.tensor([0, 1, -100, 2]), "label -100 is out of range"),
        (torch.tensor([0.0, 1.0, 2.0, 1.0]), "whole numbers.*float32"),
        (torch.zeros(4, 3, dtype=torch.int64), r"one per sample.*\(4, 3\)"),
    ],
)
def test_labels_that_make_no_sense_are_input_errors(y: Tensor, says: str) -> None:
    with pytest.raises(InputError, match=says):
        built().energy(normal(4, 5), y)
    with pytest.raises(InputError, match=says):
        built().metrics(normal(4, 5), y)


def test_it_acts_in_learning_only() -> None:
    assert CrossEntropy().acts_in("learning")
    assert not CrossEntropy().acts_in("inference")
    assert CrossEntropy(acts="both").acts_in("inference")
    assert "z/‖z‖" in CrossEntropy(normalise=True).formula()
