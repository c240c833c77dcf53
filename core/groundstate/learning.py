"""The learning step: infer z*, descend in the weights, ascend in the inhibition, project onto constraints."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from groundstate.adam import FusedAdam
from groundstate.components import Learner, Optimiser
from groundstate.data import Batch
from groundstate.energy import Point
from groundstate.errors import InputError, RunError
from groundstate.inference import Solution
from groundstate.memory import keep_freed_memory
from groundstate.model import Model
from groundstate.parameters import Direction, ParameterSpec, select_units
from groundstate.processes import Processes

if TYPE_CHECKING:
    from groundstate.stack import Stack

LAYERS = "layers"
"""Begins the names of parameters of the layers below, where a phase opens them: layers.<name>.encoder.…"""


class PhaseConfig(BaseModel):
    """A stretch of training: how long, which terms act, how fast."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(ge=1, description="passes over the training data")
    terms: list[str] | None = Field(None, description="the energy terms that act; all by default")
    weights: dict[str, float] = Field(default_factory=dict, description="weights that replace the terms' own")
    rate: float | None = Field(None, gt=0, description="replaces learning.rate")
    schedule: Literal["constant", "cosine"] = Field("constant", description="the rate over the phase")
    warmup: float = Field(0, ge=0, description="epochs over which the rate rises from 0")
    freeze: list[str] = Field(default_factory=list, description="beginnings of names of parameters that stay")
    open: bool = Field(
        False, description="the layers below learn too, from what this layer's energy says of their features"
    )


@dataclass(frozen=True)
class StepResult:
    """One step: each learning term's mean weighted energy (scalar tensors), and the codes."""

    energies: dict[str, Tensor]
    solution: Solution


@dataclass
class _Learned:
    """A parameter with where it stands and how it learns."""

    name: str
    parameter: nn.Parameter
    spec: ParameterSpec


class Learning:
    """Owns the optimisers: one descends, one ascends; one backward pass serves both.

    learner: moves the parameters that it takes, and says how all others learn. stack: the layers that end with the
    model's, where a phase may open those below it; batches of such a phase hold the inputs of the whole stack.
    """

    def __init__(self, model: Model, learner: Learner, stack: Stack | None = None) -> None:
        keep_freed_memory()
        self.model = model
        self.stack = stack
        self.learner = learner
        self.config = learner.config
        self.taken = frozenset(learner.build(model))
        self.processes = Processes(model.backend)
        self.steps = 0
        self.unsettled = False  # from the first parameter that a step moves until its run has noted the step
        self.phase = PhaseConfig(epochs=1)
        self.average: dict[str, Tensor] = {}
        self._collect()

    def _collect(self) -> None:
        self.learned = list(learned_parameters(self.model))
        if self.stack is not None:
            for layer in self.stack.below:
                self.learned += learned_parameters(layer.model, f"{LAYERS}.{layer.name}.")
        for item in self.learned:
            if item.name in self.taken:
                item.parameter.requires_grad_(False)
        self._refuse_unbounded_ascent()
        self.optimisers: dict[Direction, FusedAdam | torch.optim.SGD] = {}
        directions: dict[Direction, Optimiser] = {
            "descend": self.config.optimiser,
            "ascend": self.config.ascent_optimiser,
        }
        for direction, kind in directions.items():
            groups: dict[float, list[nn.Parameter]] = {}
            for item in self.learned:
                if item.spec.direction == direction and item.name not in self.taken:
                    groups.setdefault(item.spec.rate, []).append(item.parameter)
            if groups:
                upwards = direction == "ascend"
                self.optimisers[direction] = _optimiser(kind, groups, self.config.epsilon, maximize=upwards)

    def _refuse_unbounded_ascent(self) -> None:
        for item in self.learned:
            bounded = item.spec.constraint is not None and item.spec.constraint.bounded
            if item.spec.direction == "ascend" and not bounded:
                raise InputError(
                    f"the parameter {item.name} ascends the energy without a bound and would diverge; "
                    "give it a bounded constraint",
                )

    def start_phase(self, phase: PhaseConfig) -> None:
        """Let a phase's terms act and freeze what it names; optimiser states go on."""
        self.phase = phase
        for prefix in phase.freeze:
            if not any(item.name.startswith(prefix) for item in self.learned):
                names = ", ".join(item.name for item in self.learned)
                raise InputError(f"freeze: no parameter begins with '{prefix}'; there are: {names}")
        for item in self.learned:
            item.parameter.requires_grad_(item.name not in self.taken and not self._frozen(item.name))

    def _frozen(self, name: str) -> bool:
        shut = name.startswith(f"{LAYERS}.") and not self.phase.open
        return shut or name.startswith(tuple(self.phase.freeze))

    def start_average(self) -> None:
        """Begin the running average at the parameters as they are (at the start of a phase)."""
        if self.config.average is not None:
            self.average = {item.name: item.parameter.detach().clone() for item in self.learned}

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The model with the running average as its parameters, for as long as it is evaluated or copied."""
        last = {item.name: item.parameter.detach().clone() for item in self.learned} if self.average else {}
        self.adopt_average()
        try:
            yield
        finally:
            with torch.no_grad():
                for item in self.learned:
                    if item.name in last:
                        item.parameter.copy_(last[item.name])

    @torch.no_grad()
    def adopt_average(self) -> None:
        """Make the running average, where there is one, the model's parameters."""
        for item in self.learned:
            if item.name in self.average:
                item.parameter.copy_(self.average[item.name])
                if item.spec.constraint is not None:
                    # the average of points of a sphere lies inside it
                    item.spec.constraint.project_(item.parameter)

    def rate(self, progress: float, epochs_done: float = math.inf) -> float:
        """The descending learning rate at this fraction of the phase, in [0, 1]."""
        rate = self.phase.rate or self.config.rate
        if self.phase.schedule == "cosine":
            rate *= 0.5 * (1 + math.cos(math.pi * progress))
        if epochs_done < self.phase.warmup:
            rate *= (epochs_done + 1e-3) / self.phase.warmup
        return rate

    def step(
        self,
        batch: Batch,
        *,
        rate: float,
        generator: torch.Generator | None = None,
        previous: Tensor | None = None,
        share: float = 1.0,
    ) -> StepResult:
        """Infer, descend, ascend, project. rate: this step's descending rate (see ``rate``).

        share: how much of the whole batch this process has; the energies are those of the whole.
        """
        self._set_rates(rate)
        only, changed = self.phase.terms, self.phase.weights
        inferring = self.model.energy.weights("inference", only, changed)
        learning = self.model.energy.weights("learning", only, changed)
        energies: dict[str, Tensor] = {}
        solution: Solution | None = None
        given = batch
        for repeat in range(self.config.descend_steps):
            if self.stack is not None and self.phase.open:
                # anew for each descent: the graph of the layers below is used up by one
                batch = Batch({**given.fields, "x": self.stack.see(given.x)})
            if solution is None or solution.code.requires_grad:
                solution = self.model.infer_batch(
                    batch, weights=inferring, previous=previous, generator=generator, certify=False
                )
            point = self.model.point(batch, solution, generator)
            energies = self._descend(point, learning, share, ascend=repeat == 0)
        assert solution is not None
        if self.taken and not any(self._frozen(name) for name in self.taken):
            self.unsettled = True
            # a batch that this process only computes along with the others has no share in the statistics
            own = slice(None) if share else slice(0)
            counted = Batch({name: value[own] for name, value in batch.fields.items()})
            with torch.no_grad():
                self.learner.update(counted, solution.code.detach()[own], learning, generator)
        if self.average and self.config.average is not None:
            torch._foreach_lerp_(
                [self.average[item.name] for item in self.learned],
                [item.parameter.detach() for item in self.learned],
                1 - self.config.average,
            )
        self.steps += 1
        return StepResult(energies, solution)

    def _descend(self, point: Point, weights: Mapping[str, float], share: float, *, ascend: bool) -> dict[str, Tensor]:
        values = self.model.energy.values(point, weights)
        # one mean of all terms: at a small batch each operation costs its call
        means = torch.stack(list(values.values())).mean(1)
        loss = means.sum() if share == 1 else means.sum() * share
        for item in self.learned:
            item.parameter.grad = None
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
        found = list((means.detach() * share if share != 1 else means.detach()).unbind(0))
        gradients = (item.parameter.grad for item in self.learned)
        self.processes.reduce([*(gradient for gradient in gradients if gradient is not None), *found])
        if self.config.clip is not None:
            descending = [item.parameter for item in self.learned if item.spec.direction == "descend"]
            nn.utils.clip_grad_norm_(descending, self.config.clip)
        moved: list[Direction] = ["descend"]
        if ascend and (self.steps + 1) % self.config.ascend_every == 0:
            moved.append("ascend")
        self.unsettled = True
        for direction in moved:
            if direction in self.optimisers:
                self.optimisers[direction].step()
        self._project(moved)
        return dict(zip(values, found, strict=True))

    def _project(self, directions: Collection[Direction]) -> None:
        with torch.no_grad():
            for item in self.learned:
                moved = item.spec.direction in directions and item.parameter.grad is not None
                if moved and item.spec.constraint is not None:
                    item.spec.constraint.project_(item.parameter)

    def gradient_norms(self) -> dict[str, float]:
        """By parameter, the L2 norm of the last step's gradient (after ``clip``); frozen parameters have none."""
        moving = [(item.name, item.parameter.grad) for item in self.learned if item.parameter.grad is not None]
        if not moving:
            return {}
        norms = torch._foreach_norm([gradient for _, gradient in moving])
        # one list: a transfer from the device for each would cost more than the norms
        return dict(zip([name for name, _ in moving], torch.stack(norms).tolist(), strict=True))

    def constraint_activity(self) -> dict[str, float]:
        """By parameter, the share of it that its constraint holds back, where the constraint tells."""
        told = {
            item.name: item.spec.constraint.activity(item.parameter.detach())
            for item in self.learned
            if item.spec.constraint is not None
        }
        return {name: share for name, share in told.items() if share is not None}

    def _set_rates(self, rate: float) -> None:
        base: dict[Direction, float] = {"descend": rate, "ascend": self.config.ascent_rate}
        for direction, optimiser in self.optimisers.items():
            for group in optimiser.param_groups:
                group["lr"] = base[direction] * group["multiplier"]

    # -- state --------------------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        """The optimisers' tensors by ``<parameter>/<key>``; with the parameters, all that a resume needs."""
        tensors: dict[str, Tensor] = {"steps": torch.tensor(self.steps)}
        for item in self.learned:
            for key, value in self._state_of(item).items():
                tensors[f"{item.name}/{key}"] = value
        tensors |= {f"learner/{name}": value for name, value in self.learner.state().items()}
        return tensors | {f"average/{name}": value for name, value in self.average.items()}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        self.steps = int(tensors["steps"])
        own = {name.removeprefix("learner/"): value for name, value in tensors.items() if name.startswith("learner/")}
        self.learner.load_state(own)
        self.average = {
            item.name: tensors[f"average/{item.name}"].to(item.parameter.device)
            for item in self.learned
            if f"average/{item.name}" in tensors
        }
        for item in self.learned:
            prefix = f"{item.name}/"
            found = {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
            if found and item.name not in self.taken:
                device = item.parameter.device
                self.optimisers[item.spec.direction].state[item.parameter] = {
                    key: value.clone().to(device) for key, value in found.items()
                }

    def _state_of(self, item: _Learned) -> dict[str, Tensor]:
        if item.name in self.taken:
            return {}
        state = self.optimisers[item.spec.direction].state.get(item.parameter, {})
        return {key: value for key, value in state.items() if isinstance(value, Tensor)}

    def select(self, units: Tensor) -> None:
        """Prune the model to these units of the code; optimiser states are sliced like their parameters."""
        kept: dict[str, Tensor] = {"steps": torch.tensor(self.steps)}
        for item in self.learned:
            dims = () if item.name.startswith(f"{LAYERS}.") else item.spec.unit_dims  # those below keep their units
            for key, value in self._state_of(item).items():
                sliced = value.shape == item.parameter.shape and dims
                kept[f"{item.name}/{key}"] = select_units(value, dims, units) if sliced else value
            if item.name in self.average:
                kept[f"average/{item.name}"] = select_units(self.average[item.name], dims, units)
        self.model.select(units)
        self.learner.select(units)
        kept |= {f"learner/{name}": value for name, value in self.learner.state().items()}
        self._collect()
        self.load_state(kept)
        self.start_phase(self.phase)


def learned_parameters(model: Model, prefix: str = "") -> Iterator[_Learned]:
    """Every parameter of a model's components, by its name in the model's ``state_dict``, after the prefix."""
    for owner, part in model.components.items():
        for name, parameter, spec in part.declared():
            yield _Learned(f"{prefix}{owner}.{name}", parameter, spec)


def _optimiser(
    kind: Optimiser, groups: Mapping[float, list[nn.Parameter]], epsilon: float, *, maximize: bool
) -> FusedAdam | torch.optim.SGD:
    if kind == "sgd":
        params = [{"params": members, "multiplier": rate} for rate, members in groups.items()]
        return torch.optim.SGD(params, lr=1e-3, maximize=maximize)
    return FusedAdam(groups, maximize=maximize, decoupled=kind == "adamw", epsilon=epsilon)


def check_finite(energies: Mapping[str, Tensor], step: int) -> None:
    """Stop a run whose energy is no longer finite, naming the term."""
    for name, value in energies.items():
        if not math.isfinite(float(value)):
            raise RunError(
                f"energy.{name} became {float(value)} at step {step}: lower learning.rate or the term's weight"
            )
