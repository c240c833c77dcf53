"""What encoders with filters share: the nonlinearity, and where their filters start."""

from __future__ import annotations

from math import prod
from typing import Literal

import torch
from torch import Tensor

from groundstate.components import Context

Activation = Literal["relu", "absolute", "tanh", "identity"]


def activate(before: Tensor, activation: Activation) -> Tensor:
    """The nonlinearity of this name."""
    match activation:
        case "relu":
            return torch.relu(before)
        case "absolute":
            return before.abs()
        case "tanh":
            return torch.tanh(before)
        case _:
            return before


def first_filters(context: Context, shape: tuple[int, ...]) -> Tensor:
    """The decoder's filters where they have this shape, else random ones; (…, channels, size, size), of norm 1."""
    if context.atoms is not None and context.atoms.shape == shape:
        return context.atoms.detach().clone()
    filters = context.randn(*shape)
    return filters / prod(shape[-3:]) ** 0.5
