"""A model: encoder, decoder, energy and solver, and how it is kept on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from groundstate.components import (
    Backend,
    Code,
    Component,
    Context,
    Decoder,
    Encoder,
    Solver,
    Term,
    needs,
)
from groundstate.data import Batch, Source
from groundstate.energy import OF_THE_ENCODER, Energy, Point
from groundstate.errors import InputError
from groundstate.files import read_safetensors, write_safetensors, write_text
from groundstate.inference import Callback, Solution, solve, sparse_codes
from groundstate.problem import Problem

WEIGHTS = "model.safetensors"
CONFIG = "config.toml"


@dataclass(frozen=True)
class Shapes:
    """Shapes of one sample, and the number of labels (None without)."""

    input_shape: tuple[int, ...]
    code_shape: tuple[int, ...]
    classes: int | None = None


class Model(nn.Module):
    """Composes an energy and infers its codes.

    ``build`` makes the parameters once the input's shape is known. A module like any other: its parameters
    can be trained in anyone's loop, but see ``learning.Learning`` for directions and constraints.
    """

    shapes: Shapes

    def __init__(
        self,
        *,
        terms: Mapping[str, Term],
        solver: Solver[Any],
        encoder: Encoder | None = None,
        decoder: Decoder | None = None,
        backend: Backend | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.terms = nn.ModuleDict(terms)
        self.solver = solver
        self.backend = backend
        self.energy = Energy(terms, decoder)

    def build(
        self,
        input_shape: Sequence[int],
        *,
        classes: int | None = None,
        sample: Tensor | None = None,
        seed: int = 0,
    ) -> Self:
        """Make all parameters: decoder first, then the terms, then the encoder, which may start from both.

        sample: (m, *input_shape) training inputs for data-driven starts.
        """
        input_shape = tuple(input_shape)
        code_shape = self._code_shape(input_shape)
        self.shapes = Shapes(input_shape, code_shape, classes)
        context = Context(input_shape, code_shape, torch.Generator().manual_seed(seed), classes, sample)
        if self.decoder is not None:
            self.decoder.build(context)
            context = replace(context, decoder=self.decoder.structure(), atoms=self.decoder.atoms())
        for term in self.energy.terms.values():
            term.build(context)
        if self.encoder is not None:
            forms = ((term.structure(), term.config.weight) for term in self.energy.terms.values())
            penalties = tuple(form.scaled(weight) for form, weight in forms if form is not None)
            self.encoder.build(replace(context, penalties=penalties))
        if self.backend is not None:
            self.backend.prepare(self)
        return self

    def _code_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        shape = None
        if self.decoder is not None:
            shape = self.decoder.code_shape(input_shape)
        elif self.encoder is not None:
            shape = self.encoder.code_shape(input_shape)
        if shape is None:
            raise InputError(
                "nothing tells the shape of a code: add [model.decoder]",
            )
        return tuple(shape)

    @property
    def components(self) -> dict[str, Component]:
        """Every component by the name its parameters have in ``state_dict``: encoder, decoder, terms.<name>."""
        parts: dict[str, Component | None] = {"encoder": self.encoder, "decoder": self.decoder}
        parts |= {f"terms.{name}": term for name, term in self.energy.terms.items()}
        return {name: part for name, part in parts.items() if part is not None}

    @property
    def device(self) -> torch.device:
        return self.backend.device if self.backend is not None else torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        if self.backend is not None:
            return self.backend.dtype
        first = next((p for p in self.parameters() if p.is_floating_point()), None)
        return first.dtype if first is not None else torch.get_default_dtype()

    @property
    def dictionary(self) -> str | None:
        """The name, in ``state_dict``, of the parameter that is the matrix of a linear decoder; None without one."""
        map_ = self.decoder.structure() if self.decoder is not None else None
        if self.decoder is None or map_ is None:
            return None
        names = (name for name, value, _ in self.decoder.declared() if value is map_.matrix)
        return next((f"decoder.{name}" for name in names), None)

    # -- codes --------------------------------------------------------------------------------------

    def run_encoder(self, x: Tensor, generator: torch.Generator | None = None) -> Code | None:
        """What the encoder gives for x, or None without an encoder."""
        if self.encoder is None:
            return None
        given = {"generator": generator} if "generator" in needs(self.encoder.forward) else {}
        encoded = self.encoder(x, **given)
        return encoded if isinstance(encoded, Code) else Code(encoded)

    def infer_batch(
        self,
        batch: Batch,
        *,
        weights: Mapping[str, float] | None = None,
        previous: Tensor | None = None,
        generator: torch.Generator | None = None,
        certify: bool = True,
        callback: Callback | None = None,
    ) -> Solution:
        """The code of lowest energy for a batch, from the start that the solver's config names.

        weights: the acting terms (default: all that act in inference). previous: (batch, *code_shape) codes
        for ``start = "previous"``. The graph is kept where the code comes from the encoder alone.
        """
        config = self.solver.config
        weights = self.energy.weights("inference") if weights is None else weights
        encoded = self.run_encoder(batch.x, generator) if self._wants_encoder(weights) else None
        if config.max_iterations == 0 and not certify:
            code = self._start(batch, encoded, previous)
            iterations = torch.zeros(len(batch), dtype=torch.int64, device=code.device)
            return Solution(code, None, None, iterations, encoded)
        problem = Problem(
            self.energy,
            batch,
            self.shapes.code_shape,
            weights=weights,
            encoded=encoded,
            generator=generator,
        )
        start = self._start(batch, encoded, previous)
        solution = solve(problem, self.solver, start, certify=certify, callback=callback, backend=self.backend)
        return replace(solution, encoded=encoded)

    def _wants_encoder(self, weights: Mapping[str, float]) -> bool:
        asked = {name for term in self.energy.terms.values() for name in needs(term.energy)}
        return self.solver.config.start == "encoder" or not asked.isdisjoint(OF_THE_ENCODER)

    @property
    def random(self) -> bool:
        """Whether the encoder or a term draws noise."""
        drawing = [term.energy for term in self.energy.terms.values()]
        if self.encoder is not None:
            drawing.append(self.encoder.forward)
        return any("generator" in needs(method) for method in drawing)

    def _start(self, batch: Batch, encoded: Code | None, previous: Tensor | None) -> Tensor:
        match self.solver.config.start:
            case "encoder":
                if encoded is None:
                    raise InputError(
                        "the solver starts from the encoder's code, but the model has no encoder; add [model.encoder]",
                    )
                return encoded.value
            case "previous" if previous is not None:
                return previous
        return batch.x.new_zeros(len(batch), *self.shapes.code_shape)

    def point(self, batch: Batch, solution: Solution, generator: torch.Generator | None = None) -> Point:
        """Where the learning terms are evaluated: at the solution, with what the encoder shares."""
        encoded = solution.encoded
        if encoded is None:
            return Point(batch, Code(solution.code), self.decoder, None, generator)
        return Point(batch, encoded.at(solution.code), self.decoder, encoded.value, generator)

    def infer(self, x: Tensor, *, certify: bool = True, callback: Callback | None = None, **fields: Tensor) -> Solution:
        """Codes of lowest energy for inputs x (batch, *input_shape), with energy and certificate per sample.

        fields: what the terms ask for beside x (mask, y, …), each (batch, …).
        """
        with torch.no_grad():
            return self.infer_batch(self._batch(x, fields), certify=certify, callback=callback)

    def encode(self, x: Tensor, *, sparse: bool = False, **fields: Tensor) -> Tensor:
        """The codes alone, (batch, *code_shape), without a certificate; sparse: as (batch, units) in CSR."""
        with torch.no_grad():
            code = self.infer_batch(self._batch(x, fields), certify=False).code
        return sparse_codes(code) if sparse else code

    def decode(self, z: Tensor) -> Tensor:
        """What the decoder makes of codes (batch, *code_shape)."""
        if self.decoder is None:
            raise InputError("the model has no decoder")
        decoded: Tensor = self.decoder(z)
        return decoded

    def predict(self, x: Tensor, **fields: Tensor) -> Tensor | None:
        """What the first task says of x, e.g. scores (batch, classes); None where no task predicts."""
        for term in self.energy.terms.values():
            predict = getattr(term, "predict", None)
            if predict is not None:
                with torch.no_grad():
                    scores: Tensor = predict(self.encode(x, sparse=False, **fields))
                    return scores
        return None

    def _batch(self, x: Tensor, fields: Mapping[str, Tensor]) -> Batch:
        if tuple(x.shape[1:]) != self.shapes.input_shape:
            raise InputError(
                f"inputs have shape {tuple(x.shape[1:])} after the batch axis; "
                f"this model takes {self.shapes.input_shape}",
            )
        return Batch({"x": x, **fields}).to(self.device, self.dtype)

    # -- pruning ------------------------------------------------------------------------------------

    def select(self, units: Tensor) -> None:
        """Keep only these units of the code: parameters, constraints and shapes shrink.

        units: (m,) int64, indices along the code's first axis. An optimiser's state is sliced by
        ``Learning.select``, which calls this.
        """
        if units.numel() == 0:
            raise InputError("pruning would remove every unit; keep at least one")
        for part in self.components.values():
            part.select(units.to(self.device))
        self.shapes = replace(self.shapes, code_shape=(len(units), *self.shapes.code_shape[1:]))

    # -- disk ---------------------------------------------------------------------------------------

    def save(self, folder: Path | str) -> Path:
        """Write ``model.safetensors`` and ``config.toml``; ``load`` reads them back. No pickle."""
        from groundstate.config import model_tables

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / CONFIG, model_tables(self))
        write_safetensors(folder / WEIGHTS, self.state_dict(), {"shapes": json.dumps(asdict(self.shapes))})
        return folder

    @classmethod
    def load(cls, folder: Path | str) -> Model:
        """The model that ``save`` wrote into this folder."""
        from groundstate.config import load_model_tables

        folder = Path(folder)
        shapes, tensors = read_weights(folder)
        (parts, *above), backend = load_model_tables(folder / CONFIG)
        if above or parts.name or parts.input is not None or parts.pool is not None:
            raise InputError(f"{folder} holds a stack of layers; load it with groundstate.load")
        model = cls(
            encoder=parts.encoder, decoder=parts.decoder, terms=parts.terms, solver=parts.solver, backend=backend
        )
        model.build(shapes["input_shape"], classes=shapes["classes"])
        model.load_state_dict(tensors)
        return model


def read_weights(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The shapes and the parameters in a folder that ``save`` wrote; InputError where it holds none."""
    path = folder / WEIGHTS
    if not path.is_file():
        raise InputError(f"{folder} holds no model ({WEIGHTS} is missing); give a run's folder or its model folder")
    metadata, tensors = read_safetensors(path)
    return json.loads(metadata["shapes"]), tensors


def encode_source(model: Model, source: Source, batch_size: int = 1000) -> Tensor:
    """All codes of a source in memory, (samples, *code_shape); for what fits there."""
    codes = [
        model.infer_batch(batch.to(model.device, model.dtype), certify=False).code.detach().cpu()
        for batch in source.batches(batch_size)
    ]
    return torch.cat(codes)
