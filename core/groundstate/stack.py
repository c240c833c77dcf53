"""Stacks: a layer's data is the code of the layers below it, pooled."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from groundstate.components import Backend, Component, Context, Transform
from groundstate.config import LayerParts, load_model_tables, stack_tables
from groundstate.data import Batch, Source, Splits
from groundstate.errors import InputError
from groundstate.files import write_safetensors, write_text
from groundstate.model import CONFIG, WEIGHTS, Model, Shapes, read_weights


class Layer(nn.Module):
    """A model, what is done to its inputs first, and what is done to its codes before the next layer sees them.

    input, pool: transforms (any module of the same form will do), or None.
    features: what goes on from here, the ``code`` that inference finds or the ``encoder``'s prediction of it.
    """

    def __init__(
        self,
        model: Model,
        pool: nn.Module | None = None,
        *,
        input: nn.Module | None = None,
        features: str = "code",
        name: str = "",
    ) -> None:
        super().__init__()
        self.input = input
        self.model = model
        self.pool = pool
        self.features = features
        self.name = name

    @classmethod
    def of(cls, parts: LayerParts, backend: Backend | None) -> Layer:
        """The layer of a config, not built."""
        model = Model(
            encoder=parts.encoder, decoder=parts.decoder, terms=parts.terms, solver=parts.solver, backend=backend
        )
        return cls(model, parts.pool, input=parts.input, features=parts.features, name=parts.name)

    def build(
        self, shape: tuple[int, ...], *, classes: int | None = None, sample: Tensor | None = None, seed: int = 0
    ) -> Layer:
        """Make all parameters for inputs of this shape; sample: (m, *shape), for data-driven starts."""
        shape = self._build_transform(self.input, tuple(shape), seed)
        if self.input is not None and sample is not None:
            sample = self.input(sample.to(self.model.device, self.model.dtype))
        self.model.build(shape, classes=classes, sample=sample, seed=seed)
        self._build_transform(self.pool, self.model.shapes.code_shape, seed)
        return self

    def _build_transform(self, part: nn.Module | None, shape: tuple[int, ...], seed: int) -> tuple[int, ...]:
        """Build an input or a pool; the shape that it gives."""
        if not isinstance(part, Transform):
            return shape
        given = part.output_shape(shape)
        part.build(Context(shape, given, torch.Generator().manual_seed(seed)))
        if self.model.backend is not None:
            self.model.backend.prepare(part)
        return given

    @property
    def components(self) -> dict[str, Component]:
        """Those of the model, by its names, and the transforms: input, pool."""
        around = {"input": self.input, "pool": self.pool}
        return {
            **self.model.components,
            **{name: part for name, part in around.items() if isinstance(part, Component)},
        }

    def see(self, x: Tensor) -> Tensor:
        """What the model sees of inputs x."""
        if self.input is None:
            return x
        seen: Tensor = self.input(x)
        return seen

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Features of inputs x (batch, *input_shape). Keeps the graph where the codes come from an encoder.

        generator: of the noise that an encoder draws.
        """
        x = self.see(x)
        encoded = self.model.run_encoder(x, generator) if self.features == "encoder" else None
        if encoded is None:
            code = self.model.infer_batch(Batch({"x": x}), certify=False, generator=generator).code
        else:
            code = encoded.value
        if self.pool is None:
            return code
        features: Tensor = self.pool(code)
        return features


class Stack(nn.Module):
    """Layers on top of each other; a feature extractor from the first input to the last features.

    Train greedily: layer n+1 on ``stack.source(data)``, then ``append`` it; open all layers to fine-tune.
    """

    def __init__(self, layers: Iterable[Layer] = (), input_shape: tuple[int, ...] | None = None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self._input_shape = input_shape

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one input: as it was given, else as the first layer's model takes it."""
        if self._input_shape is not None:
            return self._input_shape
        first = next(iter(self))
        if first.input is not None:
            raise InputError("the first layer transforms its inputs, so the stack must be told their shape")
        return first.model.shapes.input_shape

    def __iter__(self) -> Iterator[Layer]:
        for layer in self.layers:
            assert isinstance(layer, Layer)
            yield layer

    def __len__(self) -> int:
        return len(self.layers)

    def append(self, layer: Layer) -> None:
        """Put a trained layer on top; its input shape must be what the stack gives."""
        if len(self.layers) and layer.input is None:
            given = self.features_shape(self.input_shape)
            if given != layer.model.shapes.input_shape:
                raise InputError(
                    f"the new layer takes inputs of shape {layer.model.shapes.input_shape}, the stack gives {given}"
                )
        self.layers.append(layer)

    @property
    def top(self) -> Layer:
        """The last layer."""
        *_, last = self
        return last

    @property
    def below(self) -> Stack:
        """The layers under the last one; they are the same objects."""
        return self.first(len(self) - 1)

    def first(self, count: int) -> Stack:
        """So many layers from the inputs up; they are the same objects."""
        return Stack(tuple(self)[:count], self._input_shape)

    def features_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of one sample's features for inputs of this shape."""
        if not len(self):
            return shape
        model = self.top.model
        with torch.no_grad():
            return tuple(self(torch.zeros(1, *shape, dtype=model.dtype, device=model.device)).shape[1:])

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Features of inputs x (batch, *input_shape) after the last layer."""
        for layer in self.layers:
            x = layer(x, generator)
        return x

    def see(self, x: Tensor) -> Tensor:
        """What the last layer's model sees of inputs x. Keeps the graph where all codes come from encoders."""
        for layer in tuple(self)[:-1]:
            x = layer(x)
        return self.top.see(x)

    def source(self, data: Source) -> Source:
        """The same samples with the stack's features as x, computed as they are read."""
        return StackedSource(data, self, self.forward)

    def seen(self, data: Source) -> Source:
        """The same samples as the last layer's model sees them; ``data`` itself where that is no change."""
        if len(self) == 1 and self.top.input is None:
            return data
        return StackedSource(data, self, self.see)

    def seen_splits(self, splits: Splits) -> Splits:
        """All parts as the last layer's model sees them; features of other layers are no pictures."""
        parts = {name: self.seen(source) for name, source in splits.parts().items()}
        picture = splits.picture_shape if len(self) == 1 else None
        return replace(
            splits,
            train=parts["train"],
            validation=parts.get("validation"),
            test=parts.get("test"),
            picture_shape=picture,
        )

    # -- as a feature extractor ---------------------------------------------------------------------

    @property
    def shapes(self) -> Shapes:
        """Of one input and of its features; the number of labels that a task on top knows."""
        return Shapes(self.input_shape, self.features_shape(self.input_shape), self.top.model.shapes.classes)

    @property
    def device(self) -> torch.device:
        return self.top.model.device

    @property
    def dtype(self) -> torch.dtype:
        return self.top.model.dtype

    def encode(self, x: Tensor) -> Tensor:
        """Features (batch, …) of inputs x (batch, *input_shape), without a graph."""
        with torch.no_grad():
            features: Tensor = self(self._checked(x))
            return features

    def predict(self, x: Tensor) -> Tensor | None:
        """What the first task of the last layer says of x; None where no task predicts."""
        with torch.no_grad():
            return self.top.model.predict(self.see(self._checked(x)))

    def _checked(self, x: Tensor) -> Tensor:
        if tuple(x.shape[1:]) != self.input_shape:
            raise InputError(
                f"inputs have shape {tuple(x.shape[1:])} after the batch axis; this stack takes {self.input_shape}"
            )
        return x.to(self.device, self.dtype)

    # -- disk ---------------------------------------------------------------------------------------

    def save(self, folder: Path | str) -> Path:
        """Write ``model.safetensors`` and ``config.toml``; ``load`` reads them back. No pickle."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        shapes = {"input_shape": self.input_shape, "layers": [asdict(layer.model.shapes) for layer in self]}
        write_text(folder / CONFIG, stack_tables(self))
        write_safetensors(folder / WEIGHTS, self.state_dict(), {"shapes": json.dumps(shapes)})
        return folder

    @classmethod
    def load(cls, folder: Path | str) -> Stack:
        """The stack that ``save`` wrote into this folder; a model alone is a stack of one layer."""
        folder = Path(folder)
        shapes, tensors = read_weights(folder)
        if "layers" not in shapes:
            return cls([Layer(Model.load(folder))])
        parts, backend = load_model_tables(folder / CONFIG)
        stack = cls((), tuple(shapes["input_shape"]))
        for one, kept in zip(parts, shapes["layers"], strict=True):
            shape = stack.features_shape(stack.input_shape)
            stack.append(Layer.of(one, backend).build(shape, classes=kept["classes"]))
        stack.load_state_dict(tensors)
        return stack

    @property
    def plain(self) -> bool:
        """Whether it is one model with nothing around it."""
        bare = self.top.input is None and self.top.pool is None and self.top.features == "code"
        return len(self) == 1 and not self.top.name and bare


class StackedSource(Source):
    """A source seen through a stack; holds no features, so it is as large as its data."""

    def __init__(self, data: Source, stack: Stack, through: Callable[[Tensor], Tensor]) -> None:
        self.data = data
        self.stack = stack
        self.through = through

    def __len__(self) -> int:
        return len(self.data)

    @property
    def names(self) -> tuple[str, ...]:
        return self.data.names

    def order(self, generator: torch.Generator) -> Tensor:
        return self.data.order(generator)

    def read(self, rows: Tensor) -> Batch:
        batch = self.data.read(rows)
        first = next(iter(self.stack.parameters()), batch.x)
        with torch.no_grad():
            features = self.through(batch.x.to(device=first.device, dtype=first.dtype))
        return Batch({**batch.fields, "x": features.cpu()})
