"""Stacks: a layer's data is the code of the layers below it, pooled."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from groundstate.data import Batch, Source
from groundstate.errors import InputError
from groundstate.model import Model


class Layer(nn.Module):
    """A trained model and what is done to its codes before the next layer sees them.

    pool: a module from codes (batch, *code_shape) to features (batch, …), e.g. an L2 pooling; None passes
    them on.
    """

    def __init__(self, model: Model, pool: nn.Module | None = None) -> None:
        super().__init__()
        self.model = model
        self.pool = pool if pool is not None else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Features of inputs x (batch, *input_shape). Keeps the graph where the codes come from an encoder."""
        model = self.model
        solution = model.infer_batch(Batch({"x": x}), certify=False)
        features: Tensor = self.pool(solution.code)
        return features


class Stack(nn.Module):
    """Layers on top of each other; a feature extractor from the first input to the last features.

    Train greedily: layer n+1 on ``stack.source(data)``, then ``append`` it; open all layers to fine-tune.
    """

    def __init__(self, layers: Sequence[Layer] = ()) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def append(self, layer: Layer) -> None:
        """Put a trained layer on top; its input shape must be what the stack gives."""
        if len(self.layers):
            given = self._output_shape()
            if given != layer.model.shapes.input_shape:
                raise InputError(
                    f"the new layer takes inputs of shape {layer.model.shapes.input_shape}, the stack gives {given}"
                )
        self.layers.append(layer)

    def _output_shape(self) -> tuple[int, ...]:
        first = self.layers[0]
        assert isinstance(first, Layer)
        with torch.no_grad():
            probe = torch.zeros(1, *first.model.shapes.input_shape, dtype=first.model.dtype, device=first.model.device)
            return tuple(self(probe).shape[1:])

    def forward(self, x: Tensor) -> Tensor:
        """Features of inputs x (batch, *input_shape) after the last layer."""
        for layer in self.layers:
            x = layer(x)
        return x

    def source(self, data: Source) -> Source:
        """The same samples with the stack's features as x, computed as they are read."""
        return StackedSource(data, self)


class StackedSource(Source):
    """A source seen through a stack; holds no features, so it is as large as its data."""

    def __init__(self, data: Source, stack: Stack) -> None:
        self.data = data
        self.stack = stack

    def __len__(self) -> int:
        return len(self.data)

    @property
    def names(self) -> tuple[str, ...]:
        return self.data.names

    def read(self, rows: Tensor) -> Batch:
        batch = self.data.read(rows)
        first = next(iter(self.stack.parameters()), batch.x)
        with torch.no_grad():
            features = self.stack(batch.x.to(device=first.device, dtype=first.dtype))
        return Batch({**batch.fields, "x": features.cpu()})
