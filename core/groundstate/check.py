"""What a config says, before an hour is spent on it: the energy as a formula, parameters, memory, phases.

Everything that a run would refuse is refused here, with file and line; no data is read, nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from groundstate.components import Backend, Learner, Solver, Stage, Term
from groundstate.config import LayerParts, LoadedConfig, LoadedLayer, Parts, PhaseConfig, Provenance, assemble
from groundstate.config.locate import KeyPath
from groundstate.data import DataInfo
from groundstate.errors import Fault, InputError
from groundstate.formula import written
from groundstate.parameters import Constraint, NormBound, ParameterSpec
from groundstate.trial import Trial, declared_faults, frozen_faults

STATES = {"adam": 2, "adamw": 2, "sgd": 0}
"""Tensors that an optimiser keeps per parameter."""


@dataclass(frozen=True)
class TermReport:
    """One summand. acts: inference, learning or both. phases: its weight in each phase where it acts."""

    name: str
    kind: str
    type: str
    formula: str
    weight: float
    acts: str
    phases: Mapping[str, float]


@dataclass(frozen=True)
class ParameterReport:
    """One parameter: its shape, and how it learns. constraint: in words, or None."""

    name: str
    shape: tuple[int, ...]
    direction: str
    rate: float
    constraint: str | None

    @property
    def count(self) -> int:
        return torch.Size(self.shape).numel()


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes of one training step; an estimate: the allocator and the libraries come on top."""

    parameters: int
    gradients: int
    optimiser: int
    activations: int

    @property
    def total(self) -> int:
        return self.parameters + self.gradients + self.optimiser + self.activations


@dataclass(frozen=True)
class PhaseReport:
    """One phase. steps: batches in all of it. terms: those that act, with their weights there."""

    name: str
    epochs: int
    steps: int
    terms: Mapping[str, float]
    rate: float
    schedule: str
    frozen: tuple[str, ...]


@dataclass(frozen=True)
class CheckReport:
    """What ``check`` found of a layer; ``record`` is the same as plain values, for machines.

    layer: its name, empty where the run is one layer. below: the same of the layers under it, from the inputs up.
    info: of what its model sees. features_shape: what it gives to a next layer, or to who encodes with it.
    """

    name: str
    layer: str
    data: str
    info: DataInfo
    code_shape: tuple[int, ...]
    encoder: str | None
    decoder: str | None
    solver: str
    solver_settings: Mapping[str, Any]
    learner: str
    learner_settings: Mapping[str, Any]
    terms: tuple[TermReport, ...]
    parameters: tuple[ParameterReport, ...]
    memory: MemoryEstimate
    phases: tuple[PhaseReport, ...]
    backend: str
    kernel: str | None
    warnings: tuple[str, ...]
    input: str | None = None
    pool: str | None = None
    features_shape: tuple[int, ...] = ()
    below: tuple[CheckReport, ...] = ()

    @property
    def formula(self) -> str:
        """The energy as a person would write it."""
        return f"E = {written((term.weight, term.formula) for term in self.terms)}"

    @property
    def count(self) -> int:
        """The number of values that are learned."""
        return sum(parameter.count for parameter in self.parameters)

    def record(self) -> dict[str, Any]:
        """Plain values, in the order of the fields."""
        return {"formula": self.formula, "parameter_count": self.count, **asdict(self)}


def check(loaded: LoadedConfig) -> CheckReport:
    """Everything that can be known of a run without reading its data; InputError with all that cannot work.

    Of a stack, the report of its last layer, with those of the others in ``below``.
    """
    parts = assemble(loaded)
    try:
        info = parts.data.describe()
    except InputError as error:
        raise loaded.place(error, "data") from error
    early = [
        fault
        for layer, made in zip(loaded.layers, parts.layers, strict=True)
        for fault in _early_faults(layer, made, info)
    ]
    if early:
        raise InputError(early)
    threads = torch.get_num_threads()
    # A few made-up samples: more threads cost more than they bring, most of all on a busy machine.
    torch.set_num_threads(1)
    try:
        return _tried(loaded, parts, info)
    finally:
        torch.set_num_threads(threads)


def _tried(loaded: LoadedConfig, parts: Parts, info: DataInfo) -> CheckReport:
    reports: list[CheckReport] = []
    trials: list[Trial] = []
    for layer, made in zip(loaded.layers, parts.layers, strict=True):
        trial = Trial(layer, made, info)
        last = made is parts.layers[-1]
        faults = [*trial.missing_needs(), *declared_faults(trial), *_phase_faults(layer, trial, trials)]
        if not faults:
            trial.energies(trial.batch(), trial.codes())
            faults += [*_solver_faults(layer, made.solver, trial), *_learner_faults(layer, made, trial)]
            if last and parts.reference is not None:
                everything = [trial.model.energy.weights("inference")]
                place = ("evaluation", "reference", "type")
                faults += _refusals(loaded.provenance, place, parts.reference, everything, trial)
        if faults:
            raise InputError(faults)
        trials.append(trial)
        report = _report(loaded, layer, made, parts.backend, trial)
        info = trial.features_info()
        reports.append(replace(report, features_shape=info.input_shape))
    return replace(reports[-1], below=tuple(reports[:-1]))


# -- refusals ---------------------------------------------------------------------------------------


def _early_faults(layer: LoadedLayer, parts: LayerParts, info: DataInfo) -> Iterator[Fault]:
    """What can be seen before the model is built."""
    fault = layer.provenance.fault
    if parts.encoder is None and parts.features == "encoder":
        yield fault(("features",), "the features are to be the encoder's, but there is none; add model.encoder")
    if parts.encoder is None and parts.solver.config.start == "encoder":
        message = (
            f"solver '{layer.config.inference.type}' starts from the encoder's code, but there is no encoder; "
            "add [model.encoder]"
        )
        yield fault(("inference", "start"), message)
    learning = layer.config.learning
    if learning.monitor is not None:
        if "validation" not in info.samples:
            yield fault(("learning", "monitor"), "this data has no validation split; hold some samples out")
        elif not learning.monitor.startswith("validation/"):
            yield fault(
                ("learning", "monitor"),
                f'is "{learning.monitor}"; only a metric of the validation split can choose the best epoch, '
                "e.g. 'validation/energy'",
            )


def _weights(trial: Trial, stage: Stage, phase: PhaseConfig) -> dict[str, float]:
    return trial.model.energy.weights(stage, phase.terms, phase.weights)


def _phase_faults(layer: LoadedLayer, trial: Trial, below: Sequence[Trial]) -> Iterator[Fault]:
    """Phases in which nothing would be learned or inferred, frozen names that are none, and what cannot be opened."""
    for name, phase in layer.config.phases.items():
        yield from frozen_faults(trial, name, phase)
        acting = phase.terms if phase.terms is not None else list(layer.config.energy)
        if not _weights(trial, "learning", phase):
            message = f"no term acts in learning here, only in inference: {', '.join(acting)}"
            yield layer.provenance.fault(("phases", name), message)
        if trial.model.solver.config.max_iterations > 0 and not _weights(trial, "inference", phase):
            message = (
                f"no term acts in inference here (a task acts in learning only, unless acts says otherwise), "
                f"so the solver has nothing to minimise: {', '.join(acting)}"
            )
            yield layer.provenance.fault(("phases", name), message)
        if phase.open:
            yield from _open_faults(layer, name, below)


def _open_faults(layer: LoadedLayer, phase: str, below: Sequence[Trial]) -> Iterator[Fault]:
    """Why nothing would reach the layers below."""
    if not below:
        yield layer.provenance.fault(("phases", phase, "open"), "there is no layer below this one to open")
    for one in below:
        with torch.enable_grad():
            reached = one.layer(one.raw_batch().x).requires_grad
        if not reached:
            message = (
                f"layer '{one.loaded.name}' infers its codes by '{one.loaded.config.inference.type}', through which no "
                'gradient passes; give that layer features = "encoder", or unroll its solver'
            )
            yield layer.provenance.fault(("phases", phase, "open"), message)


def _solver_faults(layer: LoadedLayer, solver: Solver[Any], trial: Trial) -> Iterator[Fault]:
    """What a solver says of the problems it would be given: one per phase, and one of all terms."""
    problems = [_weights(trial, "inference", phase) for phase in layer.config.phases.values()]
    everything = trial.model.energy.weights("inference")
    return _refusals(layer.provenance, ("inference", "type"), solver, [*problems, everything], trial)


def _refusals(
    provenance: Provenance, path: KeyPath, solver: Solver[Any], weights: Sequence[dict[str, float]], trial: Trial
) -> Iterator[Fault]:
    for reason in dict.fromkeys(reason for each in weights if each and (reason := trial.refusal(solver, each))):
        yield provenance.fault(path, reason)


def _learner_faults(loaded: LoadedLayer, parts: LayerParts, trial: Trial) -> Iterator[Fault]:
    """What the learner says of the model."""
    try:
        parts.learner.build(trial.model)
    except InputError as error:
        yield from loaded.place(error, "learning").faults


# -- the report -------------------------------------------------------------------------------------


def _report(loaded: LoadedConfig, layer: LoadedLayer, parts: LayerParts, backend: Backend, trial: Trial) -> CheckReport:
    config, info = layer.config, trial.info
    parameters = tuple(_parameters(trial))
    config_of_solver = config.inference.arguments()
    steps = ["optimiser", "batch_size", "descend_steps"]
    if any(one.direction == "ascend" for one in parameters):
        steps += ["ascent_optimiser", "ascent_rate", "ascend_every"]
    return CheckReport(
        name=loaded.config.name,
        layer=layer.name,
        data=loaded.config.data.type,
        info=info,
        code_shape=trial.model.shapes.code_shape,
        encoder=config.model.encoder.type if config.model.encoder is not None else None,
        decoder=config.model.decoder.type if config.model.decoder is not None else None,
        solver=config.inference.type,
        solver_settings={name: config_of_solver[name] for name in ("start", "max_iterations", "tolerance")},
        learner=config.learning.type,
        learner_settings={name: getattr(parts.learner.config, name) for name in steps},
        terms=tuple(_term(layer, trial, name, term) for name, term in trial.model.energy.terms.items()),
        parameters=parameters,
        memory=_memory(layer, trial, parts.learner, parameters, backend.dtype.itemsize),
        phases=tuple(_phase(layer, trial, name, phase) for name, phase in config.phases.items()),
        backend=loaded.config.backend.type,
        kernel=_kernel(parts, backend, trial),
        warnings=tuple(_warnings(loaded, layer, backend, info)),
        input=config.input.type if config.input is not None else None,
        pool=config.pool.type if config.pool is not None else None,
    )


def _kernel(parts: LayerParts, backend: Backend, trial: Trial) -> str | None:
    """What finds the codes in place of the solver, for all terms that act in inference."""
    weights = trial.model.energy.weights("inference")
    asked = weights and parts.solver.config.max_iterations > 0
    return trial.kernel(backend, weights) if asked else None


def _term(loaded: LoadedLayer, trial: Trial, name: str, term: Term) -> TermReport:
    table = loaded.config.energy[name]
    stages: tuple[Stage, ...] = ("inference", "learning")
    acts = [stage for stage in stages if term.acts_in(stage)]
    phases = {}
    for key, phase in loaded.config.phases.items():
        weights = _weights(trial, "inference", phase) | _weights(trial, "learning", phase)
        if name in weights:
            phases[key] = weights[name]
    with trial.of_plugin(f"terms.{name}", "wrote its formula"):
        formula = term.formula()
    return TermReport(
        name=name,
        kind=table.entry.kind,
        type=table.type,
        formula=formula,
        weight=term.config.weight,
        acts="both" if len(acts) == len(stages) else acts[0],
        phases=phases,
    )


def _parameters(trial: Trial) -> Iterator[ParameterReport]:
    for owner, part in trial.model.components.items():
        for name, value, spec in part.declared():
            yield ParameterReport(f"{owner}.{name}", tuple(value.shape), spec.direction, spec.rate, _bound(spec, value))


def _bound(spec: ParameterSpec, value: Tensor) -> str | None:
    constraint: Constraint | None = spec.constraint
    if constraint is None:
        return None
    if isinstance(constraint, NormBound):
        others = [axis for axis in range(value.dim()) if axis not in constraint.dims]
        each = f"each of {torch.Size(value.shape[axis] for axis in others).numel()}" if others else "all"
        return f"‖·‖ {'=' if constraint.sphere else '≤'} {constraint.radius:.3g}, {each}"
    words = type(constraint).__name__
    return words if constraint.bounded else f"{words} (unbounded)"


def _memory(
    loaded: LoadedLayer, trial: Trial, learner: Learner, parameters: tuple[ParameterReport, ...], itemsize: int
) -> MemoryEstimate:
    """Estimated for one batch: what autograd keeps grows with the samples, so two sizes tell its slope."""
    learning = loaded.config.learning
    states = {"descend": STATES[learning.optimiser], "ascend": STATES[learning.ascent_optimiser]}
    scale = itemsize / torch.get_default_dtype().itemsize
    small, large = trial.saved_bytes(2), trial.saved_bytes(4)
    per_sample = max(0, large - small) / 2
    code = torch.Size(trial.model.shapes.code_shape).numel()
    inputs = torch.Size(trial.info.input_shape).numel()
    solver = loaded.config.inference.arguments()
    # A solver holds the code, its gradient, a step and a residual; unrolled, those of every iteration.
    iterations = solver["max_iterations"] if solver["differentiate"] == "unroll" else min(1, solver["max_iterations"])
    per_sample += iterations * (3 * code + 2 * inputs) * torch.get_default_dtype().itemsize
    count = sum(parameter.count for parameter in parameters)
    fixed = sum(buffer.numel() for buffer in trial.model.buffers())
    return MemoryEstimate(
        parameters=(count + fixed) * itemsize,
        gradients=count * itemsize,
        optimiser=sum(parameter.count * states[parameter.direction] for parameter in parameters) * itemsize
        + sum(value.nbytes for value in learner.state().values()),
        activations=int(per_sample * learning.batch_size * scale),
    )


def _phase(loaded: LoadedLayer, trial: Trial, name: str, phase: PhaseConfig) -> PhaseReport:
    learning = loaded.config.learning
    batches = -(-trial.info.samples.get("train", 0) // learning.batch_size)
    return PhaseReport(
        name=name,
        epochs=phase.epochs,
        steps=phase.epochs * batches,
        terms=_weights(trial, "inference", phase) | _weights(trial, "learning", phase),
        rate=phase.rate or learning.rate,
        schedule=phase.schedule,
        frozen=tuple(phase.freeze),
    )


def _warnings(loaded: LoadedConfig, layer: LoadedLayer, backend: Backend, info: DataInfo) -> Iterator[str]:
    available = type(backend).available()
    if not available.available:
        yield f"backend '{loaded.config.backend.type}' cannot be used on this machine: {available.reason}"
    train = info.samples.get("train", 0)
    if layer.config.learning.batch_size > train:
        key = layer.provenance.key(("learning", "batch_size"))
        yield f"{key} {layer.config.learning.batch_size} is more than the {train} training samples"
    for problem in loaded.registry.problems:
        yield f"plugins not readable: {problem}"
