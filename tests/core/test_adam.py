"""The direct call of the fused kernel against torch's own optimisers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from groundstate.adam import FusedAdam


@pytest.mark.parametrize("epsilon", [1e-8, 1e-2])
@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize(("decoupled", "reference"), [(False, torch.optim.Adam), (True, torch.optim.AdamW)])
def test_steps_are_those_of_torch_to_the_last_bit(
    reference: type[torch.optim.Optimizer], decoupled: bool, maximize: bool, epsilon: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, generator=generator) for shape in ((7, 30), (30,), (5, 7))]
    start.append(torch.randn(4, generator=generator, dtype=torch.float64))  # another kernel's call
    ours, theirs = ([nn.Parameter(value.clone()) for value in start] for _ in range(2))
    rates = [1.0, 0.25, 1.0, 0.25]
    own = FusedAdam(
        {rate: [p for p, r in zip(ours, rates, strict=True) if r == rate] for rate in (1.0, 0.25)},
        maximize=maximize,
        decoupled=decoupled,
        epsilon=epsilon,
    )
    groups: list[dict[str, Any]] = [{"params": [p], "lr": r} for p, r in zip(theirs, rates, strict=True)]
    known = reference(groups, maximize=maximize, fused=True, eps=epsilon)  # type: ignore[call-arg]
    for step in range(12):
        for mine, other in zip(ours, theirs, strict=True):
            gradient = torch.randn(mine.shape, generator=generator, dtype=mine.dtype)
            # the second is frozen for a while
            mine.grad, other.grad = (None, None) if mine is ours[1] and 3 < step < 7 else (gradient, gradient.clone())
        for group in own.param_groups:
            group["lr"] = 0.01 * (step + 1) * group["multiplier"]
        for group, rate in zip(known.param_groups, rates, strict=True):
            group["lr"] = 0.01 * (step + 1) * rate
        own.step()
        known.step()
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.equal(mine, other)
        for key, value in known.state[other].items():
            assert torch.equal(own.state[mine][key], value)
