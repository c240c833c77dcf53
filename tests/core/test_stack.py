"""Stacks: the next layer's data is a stream through the earlier layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from groundstate.components import Solver
from groundstate.data import Batch, Source, TensorSource
from groundstate.errors import InputError
from groundstate.learning import Learning
from groundstate.model import Model
from groundstate.stack import Layer, Stack
from groundstate_plugins.decoders.linear import LinearDecoder
from groundstate_plugins.encoders.linear import LinearEncoder
from groundstate_plugins.learners.gradient import Gradient
from groundstate_plugins.reconstructions.squared_error import SquaredError
from groundstate_plugins.regularisers.l1 import L1
from groundstate_plugins.solvers.amortised import Amortised
from groundstate_plugins.solvers.fista import Fista

INPUTS = 8


def model(inputs: int, units: int, solver: Solver[Any] | None = None, seed: int = 0) -> Model:
    made = Model(
        encoder=LinearEncoder(),
        decoder=LinearDecoder(units=units),
        terms={"data": SquaredError(), "sparsity": L1(weight=0.05, non_negative=True)},
        solver=solver or Amortised(),
    )
    return made.build((inputs,), seed=seed)


def l2_pool() -> nn.Module:
    return nn.LPPool1d(2, 2)


def inputs(samples: int = 12, seed: int = 0) -> Tensor:
    return torch.rand(samples, INPUTS, generator=torch.Generator().manual_seed(seed))


def data(samples: int = 12) -> TensorSource:
    return TensorSource(x=inputs(samples), y=torch.arange(samples))


def test_features_are_the_pooled_codes_of_layer_upon_layer() -> None:
    first, second = model(INPUTS, 6), model(3, 4, seed=1)
    stack = Stack([Layer(first, l2_pool()), Layer(second)])
    x = inputs()
    codes = first.encode(x)
    pooled = codes.view(12, 3, 2).square().sum(2).sqrt()
    torch.testing.assert_close(stack(x), second.encode(pooled))


def test_a_source_is_seen_through_the_stack_with_its_other_fields() -> None:
    stack = Stack([Layer(model(INPUTS, 6), l2_pool())])
    seen = stack.source(data())
    rows = torch.tensor([7, 2, 2])
    batch = seen.read(rows)
    torch.testing.assert_close(batch.x, stack(inputs()[rows]).detach())
    assert batch.fields["y"].tolist() == [7, 2, 2]
    assert not batch.x.requires_grad
    assert (len(seen), seen.names, seen.input_shape) == (12, ("x", "y"), (3,))
    batches = list(seen.batches(5, order=torch.arange(12).flip(0)))
    assert [len(each) for each in batches] == [5, 5, 2]
    torch.testing.assert_close(batches[2].x, stack(inputs()[[1, 0]]).detach())


def test_a_source_follows_the_stack_as_it_trains() -> None:
    """Nothing is stored: the same rows give other features once a layer has changed."""
    stack = Stack([Layer(model(INPUTS, 6))])
    seen, rows = stack.source(data()), torch.tensor([0])
    before = seen.read(rows).x
    with torch.no_grad():
        next(stack.parameters()).mul_(2)
    assert not torch.equal(seen.read(rows).x, before)


def test_only_the_rows_that_are_asked_for_are_read() -> None:
    class Counted(TensorSource):
        read_rows = 0

        def read(self, rows: Tensor) -> Batch:
            self.read_rows += len(rows)
            return super().read(rows)

    source = Counted(x=inputs())
    seen: Source = Stack([Layer(model(INPUTS, 6))]).source(source)
    seen.read(torch.tensor([3, 4]))
    assert source.read_rows == 2


def test_features_take_the_layers_precision() -> None:
    stack = Stack([Layer(model(INPUTS, 6))]).double()
    assert stack.source(data()).read(torch.tensor([0])).x.dtype == torch.float64


def test_an_empty_stack_passes_its_inputs_on() -> None:
    stack = Stack()
    assert torch.equal(stack(inputs()), inputs())
    assert torch.equal(stack.source(data()).read(torch.tensor([1])).x, inputs()[1:2])


def test_a_layer_is_trained_on_the_stack_and_put_on_top() -> None:
    first = model(INPUTS, 6)
    stack = Stack([Layer(first, l2_pool())])
    before = {name: value.clone() for name, value in first.state_dict().items()}
    source = stack.source(data(40))
    second = model(*source.input_shape, 5)
    learner = Learning(second, Gradient())
    energies = []
    for _ in range(15):
        for batch in source.batches(20):
            energies.append(sum(float(value) for value in learner.step(batch, rate=0.02).energies.values()))
    assert energies[-1] < 0.8 * energies[0]
    assert all(torch.equal(value, before[name]) for name, value in first.state_dict().items())
    stack.append(Layer(second))
    assert stack(inputs()).shape == (12, 5)


def test_a_layer_of_another_shape_is_refused_with_both() -> None:
    stack = Stack()
    stack.append(Layer(model(INPUTS, 6), l2_pool()))
    with pytest.raises(InputError, match=r"takes inputs of shape \(6,\), the stack gives \(3,\)"):
        stack.append(Layer(model(6, 4)))
    assert len(stack.layers) == 1


def test_fine_tuning_reaches_every_encoder() -> None:
    stack = Stack([Layer(model(INPUTS, 6), l2_pool()), Layer(model(3, 4, seed=1))]).double()
    # pooling is not differentiable where all of a pool is 0
    x = inputs().double() + 0.1
    weight = stack.layers[0].model.encoder.feedforward
    with torch.no_grad():
        weight.abs_()
    loss = stack(x).square().sum()
    loss.backward()
    for layer in stack.layers:
        gradient = layer.model.encoder.feedforward.grad
        assert bool(torch.isfinite(gradient).all())
        assert float(gradient.abs().max()) > 0
    with torch.no_grad():
        weight[2, 3] += 1e-6
        slope = (stack(x).square().sum() - loss) / 1e-6
    assert float(weight.grad[2, 3]) == pytest.approx(float(slope), rel=1e-4)


def test_codes_of_a_solver_are_features_too() -> None:
    """Optimised codes carry no graph, unless the solver is unrolled."""
    x = inputs()
    solved = Stack([Layer(model(INPUTS, 6, Fista(tolerance=1e-6)))])
    assert not solved(x).requires_grad
    torch.testing.assert_close(solved(x), solved.layers[0].model.encode(x))
    unrolled = Stack([Layer(model(INPUTS, 6, Fista(max_iterations=5, differentiate="unroll")))])
    assert unrolled(x).requires_grad
