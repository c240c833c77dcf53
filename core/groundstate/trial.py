"""A model tried on made-up inputs of the described shapes: what would fail in a run fails here, in seconds."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from groundstate.components import Backend, Code, Solver, Transform, needs
from groundstate.config import LayerParts, LoadedLayer, PhaseConfig, PluginTable
from groundstate.data import Batch, DataInfo
from groundstate.energy import PROVIDED, Point
from groundstate.errors import Fault, InputError, PluginError, relative
from groundstate.inference import kernel_name, kernel_of
from groundstate.problem import Problem
from groundstate.stack import Layer

SAMPLES = 2
"""Made-up samples: more than one, so that a term that forgets the batch axis is found."""


class Trial:
    """The layer of a config, built on the shapes that its data describes. info: of its inputs."""

    def __init__(self, loaded: LoadedLayer, parts: LayerParts, info: DataInfo) -> None:
        self.loaded = loaded
        self._input_shape = info.input_shape
        self.generator = torch.Generator().manual_seed(0)
        # Without the backend: a config may be checked on a machine that lacks its device.
        self.layer = Layer.of(parts, None)
        self.model = self.layer.model
        self._build(info)
        self.info = replace(info, input_shape=self.model.shapes.input_shape)

    # -- building -----------------------------------------------------------------------------------

    def _build(self, info: DataInfo) -> None:
        """Build every component; what any of them refuses is located in its own table, all at once."""
        faults: list[Fault] = []
        components = self.layer.components
        for name, part in components.items():
            vars(part)["build"] = self._located(part.build, name, faults)
        try:
            self.layer.build(info.input_shape, classes=info.classes)
        except InputError as error:
            faults += self.loaded.place(error, *self._refusing(info)).faults
        except Exception:
            # what is built upon a part that was refused may fail in any way
            if not faults:
                raise
        finally:
            for part in components.values():
                del vars(part)["build"]
        if faults:
            raise InputError(faults)

    def _refusing(self, info: DataInfo) -> tuple[str, ...]:
        """The table of what refuses a shape before anything is built, asked in the order of building."""
        if hasattr(self.model, "shapes"):
            return ("pool",)
        shape = info.input_shape
        try:
            if isinstance(self.layer.input, Transform):
                shape = self.layer.input.output_shape(shape)
        except InputError:
            return ("input",)
        try:
            if self.model.decoder is not None:
                self.model.decoder.code_shape(shape)
        except InputError:
            return ("model", "decoder")
        return ("model",)

    def features_info(self) -> DataInfo:
        """What the next layer is told of its data."""
        with torch.no_grad():
            features = self.layer(torch.zeros(1, *self._input_shape))
        return replace(self.info, input_shape=tuple(features.shape[1:]))

    def _located(self, build: Callable[..., None], name: str, faults: list[Fault]) -> Callable[..., None]:
        def located(context: Any) -> None:
            try:
                with self.of_plugin(name, "was built"):
                    build(context)
            except InputError as error:
                faults.extend(self.loaded.place(error, *self.path(name)).faults)

        return located

    @staticmethod
    def path(name: str) -> tuple[str, ...]:
        """The config table of a component of this name in the model."""
        owner, _, term = name.partition(".")
        if owner in ("input", "pool"):
            return (owner,)
        return ("energy", term) if owner == "terms" else ("model", owner)

    def table(self, name: str) -> PluginTable:
        """What the config says of a component of this name in the model."""
        return self.loaded.tables[".".join(self.path(name))]

    @contextmanager
    def of_plugin(self, name: str, doing: str) -> Iterator[None]:
        """Say of an unforeseen error whose it is, and where in the plugin's file it came from."""
        try:
            yield
        except (InputError, PluginError):
            raise
        except Exception as error:
            table = self.table(name)
            raise PluginError(
                f"{'.'.join(self.path(name))}: {table.entry} of {table.entry.source} failed while it {doing}"
                f"{_line(error, table)}: {type(error).__name__}: {error}"
            ) from error

    # -- made-up samples ----------------------------------------------------------------------------

    def batch(self, samples: int = SAMPLES) -> Batch:
        """Standard normal inputs, and labels where the data has them."""
        fields = {"x": torch.randn(samples, *self.info.input_shape, generator=self.generator)}
        if "y" in self.info.fields:
            fields["y"] = torch.zeros(samples, dtype=torch.int64 if self.info.classes else torch.float32)
        return Batch(fields)

    def raw_batch(self) -> Batch:
        """Inputs as they come to the layer, before its own transform."""
        return Batch({"x": torch.randn(SAMPLES, *self._input_shape, generator=self.generator)})

    def codes(self, samples: int = SAMPLES) -> Tensor:
        """Non-negative codes: they lie in the domain of every term."""
        return torch.rand(samples, *self.model.shapes.code_shape, generator=self.generator)

    def encoded(self, batch: Batch) -> Code | None:
        """What the encoder gives; InputError where its shape is not that of a code."""
        if self.model.encoder is None:
            return None
        with self.of_plugin("encoder", "was called"):
            code = self.model.run_encoder(batch.x, self.generator)
        assert code is not None
        expected = (len(batch), *self.model.shapes.code_shape)
        if tuple(code.value.shape) != expected:
            message = (
                f"the encoder gives codes of shape {tuple(code.value.shape[1:])}, the decoder takes {expected[1:]}"
            )
            raise InputError(self.loaded.provenance.fault(("model", "encoder"), message))
        return code

    # -- what can fail ------------------------------------------------------------------------------

    def missing_needs(self) -> Iterator[Fault]:
        """Terms that ask for what nothing provides."""
        there = [*self.info.fields, *(name for name in PROVIDED if name not in self.info.fields)]
        for name, term in self.model.energy.terms.items():
            methods = (term.energy, term.gradient, term.metrics)
            wanted = dict.fromkeys(need for method in methods if method is not None for need in needs(method))
            for need in wanted:
                if need in there:
                    continue
                if need == "y":
                    message = f"the term needs labels, and this data has none (it has: {', '.join(self.info.fields)})"
                else:
                    message = f"the term asks for '{need}', which nothing provides; there is: {', '.join(there)}"
                yield self.loaded.provenance.fault(("energy", name), message)

    def energies(self, batch: Batch, codes: Tensor | None = None) -> Tensor:
        """Every term that the data can feed, evaluated once; their sum over the batch, with its graph."""
        encoded = self.encoded(batch)
        code = encoded
        if codes is not None:
            code = Code(codes) if encoded is None else encoded.at(codes)
        assert code is not None
        prediction = None if encoded is None else encoded.value
        point = Point(batch, code, self.model.decoder, prediction, self.generator)
        total = torch.zeros(())
        for name, term in self.model.energy.terms.items():
            if set(needs(term.energy)) <= {*batch.fields, *PROVIDED}:
                try:
                    with self.of_plugin(f"terms.{name}", "computed its energy"):
                        total = total + self.model.energy.values(point, {name: 1.0})[name].sum()
                except InputError as error:
                    raise self.loaded.place(error, "energy", name) from error
        return total

    def refusal(self, solver: Solver[Any], weights: Mapping[str, float]) -> str | None:
        """Why a solver cannot take the problem of these terms, or None."""
        return solver.refuses(self._problem(weights))

    def kernel(self, backend: Backend, weights: Mapping[str, float]) -> str | None:
        """The backend's kernel that takes the solver's place for these terms, or None."""
        found = kernel_of(backend, self.model.solver, self._problem(weights))
        return None if found is None else kernel_name(found)

    def _problem(self, weights: Mapping[str, float]) -> Problem:
        batch = self.batch()
        shape, encoded = self.model.shapes.code_shape, self.encoded(batch)
        return Problem(self.model.energy, batch, shape, weights=weights, encoded=encoded)

    def saved_bytes(self, samples: int) -> int:
        """Bytes that autograd keeps for the backward pass of one learning step, parameters not counted."""
        kept: dict[int, int] = {}
        parameters = {parameter.untyped_storage().data_ptr() for parameter in self.model.parameters()}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in parameters:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        config = self.model.solver.config
        batch = self.batch(samples)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            codes = None if config.start == "encoder" and config.max_iterations == 0 else self.codes(samples)
            total = self.energies(batch, codes)
        del total
        return sum(kept.values())


def declared_faults(trial: Trial) -> Iterator[Fault]:
    """Parameters that would diverge: they ascend, and nothing bounds them."""
    for owner, part in trial.model.components.items():
        for name, _, spec in part.declared():
            if spec.direction == "ascend" and not (spec.constraint is not None and spec.constraint.bounded):
                message = f"its parameter '{name}' ascends the energy without a bounded constraint and would diverge"
                yield trial.loaded.provenance.fault(trial.path(owner), message)


def frozen_faults(trial: Trial, key: str, phase: PhaseConfig) -> Iterator[Fault]:
    """Beginnings of names that no parameter has."""
    names = [f"{owner}.{name}" for owner, part in trial.model.components.items() for name, _, _ in part.declared()]
    for number, prefix in enumerate(phase.freeze):
        if not any(name.startswith(prefix) for name in names):
            message = f"no parameter begins with '{prefix}'; there are: {', '.join(names) or 'none'}"
            yield trial.loaded.provenance.fault(("phases", key, "freeze", number), message)


def _line(error: Exception, table: PluginTable) -> str:
    """`` (file:line)`` of the deepest frame in the plugin's own file."""
    file = inspect.getsourcefile(table.plugin)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f" ({relative(Path(file))}:{lines[-1]})" if file is not None and lines else ""
