"""The kinds of plugin: one base class each, with its pydantic ``Config``.

A plugin subclasses one of these, adds fields to the inner ``Config`` and the methods its kind asks for.
Plain constructors are the API, ``L1(weight=0.1)``; the config layer only calls them. Components (encoder,
decoder, terms) are ``nn.Module``s that work in anyone's torch loop.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, Literal, Self, TypeVar

import numpy as np
import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo
from torch import Tensor, nn

from groundstate.errors import InputError
from groundstate.parameters import Constraint, Direction, ParameterSpec, select_units
from groundstate.precision import MATMUL
from groundstate.structure import LinearMap, ProblemStructure, Structure

if TYPE_CHECKING:
    from groundstate.data import Batch, DataInfo, Splits
    from groundstate.formats import Reader, Writer
    from groundstate.inference import Kernel
    from groundstate.model import Model
    from groundstate.problem import Problem

Stage = Literal["inference", "learning"]
Role = Literal["reconstruction", "regulariser", "task"]


def _beside_config(path: Path, info: ValidationInfo) -> Path:
    folder = (info.context or {}).get("folder")
    path = path.expanduser()
    return (Path(folder) / path if folder is not None else path).absolute()


ConfigPath = Annotated[Path, AfterValidator(_beside_config)]
"""A path in a ``Config``: one in a file is relative to that file, one given in code to the working directory."""


class Plugin:
    """Base of every plugin: its kind, its ``Config`` and a constructor that takes the config's fields."""

    kind: ClassVar[str]
    examples: ClassVar[Sequence[Mapping[str, Any]]] = ()  # constructor fields to test it with; () for its defaults

    class Config(BaseModel):
        """Fields that a config file may set; unknown ones are refused."""

        model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    config: Any

    def __init__(self, **fields: Any) -> None:
        super().__init__()
        self.config = self.Config(**fields)


@dataclass(frozen=True)
class Context:
    """What a component may look at while it makes its parameters.

    input_shape, code_shape: without the batch axis. classes: number of labels, None without labels.
    generator: the source of every random initial value. sample: (m, *input_shape) training inputs, for
    data-driven starts, or None. decoder, penalties: the decoder's and the weighted terms' structures, atoms: what
    the decoder's units look like; for what starts from them (None and empty where unknown or not built yet).
    """

    input_shape: tuple[int, ...]
    code_shape: tuple[int, ...]
    generator: torch.Generator
    classes: int | None = None
    sample: Tensor | None = None
    decoder: LinearMap | None = None
    penalties: tuple[Structure, ...] = ()
    atoms: Tensor | None = None

    @property
    def units(self) -> int:
        """The number of entries of one code."""
        return int(torch.Size(self.code_shape).numel())

    @property
    def inputs(self) -> int:
        """The number of entries of one input."""
        return int(torch.Size(self.input_shape).numel())

    def flat_units(self, units: int | None = None) -> int:
        """The number of units of a flat code; InputError where it is not flat or not the number asked for."""
        if len(self.code_shape) != 1:
            raise InputError(f"this encoder makes flat codes, but the decoder's have shape {self.code_shape}")
        if units is not None and units != self.units:
            raise InputError(f"the encoder has {units} units, but the decoder {self.units}; leave the former out")
        return self.units

    def randn(self, *shape: int) -> Tensor:
        """Standard normal values from the context's generator."""
        return torch.randn(*shape, generator=self.generator)


class Component(Plugin, nn.Module):
    """A plugin with parameters: an ``nn.Module`` whose parameters say how they learn."""

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        self.specs: dict[str, ParameterSpec] = {}

    def build(self, context: Context) -> None:
        """Make the parameters, once shapes are known. The default has none to make."""

    def declare(
        self,
        name: str,
        value: Tensor,
        *,
        direction: Direction = "descend",
        rate: float = 1.0,
        constraint: Constraint | None = None,
        unit_dims: tuple[int, ...] = (),
    ) -> None:
        """Make ``self.<name>`` a parameter that starts at value and learns as said (see ParameterSpec)."""
        self.specs[name] = ParameterSpec(direction, rate, constraint, unit_dims)
        self.register_parameter(name, nn.Parameter(value.contiguous()))
        if constraint is not None:
            with torch.no_grad():
                constraint.project_(self.get_parameter(name))

    def select(self, units: Tensor) -> None:
        """Keep only these units of the code (pruning): slices what ``unit_dims`` names.

        A component with buffers or config fields that count units extends this.
        """
        for name, spec in self.specs.items():
            if spec.unit_dims:
                old = self.get_parameter(name)
                new = nn.Parameter(select_units(old.detach(), spec.unit_dims, units), old.requires_grad)
                self.register_parameter(name, new)
                self.specs[name] = spec.select(units)

    def declared(self) -> Iterator[tuple[str, nn.Parameter, ParameterSpec]]:
        """Each own parameter with its name and spec; an undeclared ``nn.Parameter`` descends, unbounded.

        Parameters of plain sub-modules (``nn.Linear``, …) are found too.
        """
        for name, parameter in self.named_parameters():
            yield name, parameter, self.specs.get(name, ParameterSpec())


@dataclass
class Code:
    """What an encoder gives: the code, and what it wants to share with terms that ask for ``code``.

    value: (batch, *code_shape). Others are None where the encoder has none. An encoder that shares more extends
    this class with further fields.
    kept: (batch, k) int64, distinct units of a flat code outside of which it is 0. entries: (batch, k), its values
    there. They tell ``value`` a second time, for a decoder that gathers k atoms in place of a product with all.
    """

    value: Tensor
    mean: Tensor | None = None
    log_variance: Tensor | None = None
    pre_activation: Tensor | None = None
    kept: Tensor | None = None
    entries: Tensor | None = None

    def at(self, value: Tensor) -> Self:
        """The same for another value, which ``kept`` and ``entries`` do not tell."""
        return self if value is self.value else replace(self, value=value, kept=None, entries=None)

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The same with each tensor changed."""
        made = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: change(part) for name, part in made.items() if isinstance(part, Tensor)})


class Encoder(Component):
    """Predicts a code from an input in one pass.

    ``forward`` takes x (batch, *input_shape) and returns a Code or the code's tensor; it may also ask for
    ``generator`` by name, which is seeded per step so that a resumed run draws the same noise.
    """

    kind = "encoder"
    forward: Callable[..., Any]

    def code_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """The shape of one code, for models without a decoder to tell it; None where the encoder cannot tell."""
        return None

    def iterates(self, x: Tensor) -> Iterator[Tensor] | None:
        """The codes after each step of an encoder that iterates, the last as ``forward`` gives; else None."""
        return None


class Decoder(Component, ABC):
    """Maps a code (batch, *code_shape) back to the input's space, (batch, *input_shape).

    linear: forward(z) is linear in z (the solver may then bound its curvature by power iteration).
    """

    kind = "decoder"
    linear: ClassVar[bool] = False

    @abstractmethod
    def code_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of one code for inputs of this shape, without the batch axis."""

    def decode(self, code: Code) -> Tensor:
        """forward(code.value), in whatever way is fastest for what else the code tells."""
        decoded: Tensor = self(code.value)
        return decoded

    def structure(self) -> LinearMap | None:
        """The matrix of a linear decoder on flat codes, else None."""
        return None

    def atoms(self) -> Tensor | None:
        """What each unit adds to the input, as a person looks at it; by default the matrix's columns, or None.

        (units, *input_shape); of filters smaller than the input, (maps, channels, height, width) where all places
        share them, (maps, rows, columns, channels, height, width) where each place has its own.
        """
        linear = self.structure()
        return None if linear is None else linear.matrix.T


class Transform(Component, ABC):
    """What is done to a layer's inputs before its energy sees them, or to its codes before the next layer does.

    ``forward`` takes x (batch, *shape) and returns (batch, *output_shape(shape)); a sample's output depends on
    that sample alone. It stands outside of the energy.
    """

    kind = "transform"

    @abstractmethod
    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of one output for inputs of this shape, without the batch axis; InputError where none fits."""


class Term(Component):
    """One summand of the energy.

    ``energy`` returns one value per sample, (batch,), and asks for what it needs by the names of its
    parameters: any of x, z, code, prediction, decoded, decode, y, generator, or a further field of the
    data's batch (mask, …). The energy multiplies it by ``config.weight``.

    ``prox(v, step, z, …)``, optional: argmin_u step·energy(u) + ½‖u − v‖², with step a float or a tensor
    that broadcasts against v; z is the current point, for maps that depend on it. It may also ask for
    ``memory`` (a Memory that lives as long as the problem, for warm starts) and ``tolerance``.

    ``contains(z)``, optional: which codes lie in the set to which the term restricts them, (batch,) bool. The
    energy stays finite outside, where the prox, which then projects too, never leads.

    ``dual_norm(c, …)``, optional, where the energy is a norm: sup ⟨c, u⟩ over energy(u) ≤ 1, (batch,); an
    upper bound is enough and costs only a looser certificate. It may also ask for ``z`` (the code that is
    certified, which attains the supremum at the optimum), the prox's ``memory`` and ``tolerance``.

    ``gradient``, optional: ∂energy/∂z by the same names as ``energy``, shape of z; else by autograd.

    ``metrics``, optional: by the same names, a dict of per-sample figures to average over a data set.
    """

    role: ClassVar[Role]
    quadratic: ClassVar[bool] = False  # the energy is quadratic in z for a linear decoder
    norm: ClassVar[bool] = False  # the energy is a norm of z (or one restricted to z ≥ 0)
    non_negative: bool = False  # the term restricts codes to z ≥ 0

    class Config(Plugin.Config):
        weight: float = Field(1.0, ge=0, allow_inf_nan=False, description="multiplies the term; ≥ 0")
        acts: Literal["inference", "learning", "both"] | None = Field(
            None,
            description="where the term acts: in choosing the code, in learning, or both; "
            "by default both, but learning only for a task",
        )

    energy: Callable[..., Tensor]
    prox: Callable[..., Tensor] | None = None
    contains: Callable[[Tensor], Tensor] | None = None
    dual_norm: Callable[..., Tensor] | None = None
    gradient: Callable[..., Tensor] | None = None
    metrics: Callable[..., Mapping[str, Tensor]] | None = None

    def acts_in(self, stage: Stage) -> bool:
        acts = self.config.acts or ("learning" if self.role == "task" else "both")
        return acts in (stage, "both")

    def curvature(self) -> float:
        """What a prox that majorises adds to the Lipschitz constant; 0 for an exact prox."""
        return 0.0

    def structure(self) -> Structure | None:
        """The term's form before its weight, or None; lets a backend pick a kernel."""
        return None

    def prox_after(self, earlier: Sequence[Structure | None]) -> bool:
        """True where applying this prox after those of ``earlier`` terms gives the prox of the sum."""
        return False

    def formula(self) -> str:
        """The term as a person would write it, without its weight."""
        return f"{type(self).__name__}({', '.join(needs(self.energy))})"


class Reconstruction(Term):
    """A term that compares the input with what the decoder makes of the code."""

    kind = "reconstruction"
    role = "reconstruction"


class Regulariser(Term):
    """A term on the code: sparsity, groups, inhibition, KL, …"""

    kind = "regulariser"
    role = "regulariser"


class Task(Term):
    """A term that asks for the label y; acts in learning only unless its config says otherwise."""

    kind = "task"
    role = "task"

    predict: Callable[..., Tensor] | None = None  # (z) → labels or scores, (batch,) or (batch, classes)
    probabilities: Callable[..., Tensor] | None = (
        None  # (z) → (batch, classes), where the loss is that of a probability
    )


@dataclass
class Memory:
    """What a prox keeps between calls on one problem, with the batch as first axis; None at first."""

    value: Tensor | None = None


@dataclass
class State:
    """A solver's state; tensor fields have the batch as their first axis, so that samples can leave it.

    code: (batch, *code_shape), the current iterate.
    """

    code: Tensor


S = TypeVar("S", bound=State)
T = TypeVar("T")


class Solver(Plugin, ABC, Generic[S]):
    """Finds the code of lowest energy: ``init`` makes a state, ``step`` improves it; the loop is outside.

    A solver sees a Problem, never a term.
    """

    kind = "solver"
    any_minimiser: ClassVar[bool] = False
    """True where only the code counts, not the way to it: a backend's kernel may then find it instead."""

    class Config(Plugin.Config):
        tolerance: float = Field(
            1e-4,
            ge=0,
            description="stop a sample at this certificate, relative to ½‖x‖² (a gap) or to the start",
        )
        max_iterations: int = Field(200, ge=0, description="stop here at the latest")
        check_every: int = Field(10, ge=1, description="iterations between two certificates")
        start: Literal["zeros", "encoder", "previous"] = Field(
            "zeros", description="initial code: zeros, the encoder's prediction, or the sample's last code"
        )
        differentiate: Literal["none", "unroll", "implicit"] = Field(
            "none",
            description="path of the task's gradient through the code: none, unroll the solver, or implicit",
        )

    @abstractmethod
    def init(self, problem: Problem, start: Tensor) -> S:
        """The state before the first iteration; start is (batch, *code_shape)."""

    @abstractmethod
    def step(self, problem: Problem, state: S) -> S:
        """One iteration."""

    def refuses(self, problem: Problem) -> str | None:
        """Why this solver cannot take the problem and which could, or None. Asked by ``check``."""
        return None


@dataclass(frozen=True)
class Availability:
    """Whether a backend can be used here; reason says why not, or on what it runs."""

    available: bool
    reason: str


class Backend(Plugin, ABC):
    """Where a model runs: device, precision, threads, and kernels for problems of known structure."""

    kind = "backend"

    class Config(Plugin.Config):
        dtype: Literal["float32", "float64"] = Field("float32", description="precision of parameters and codes")
        products: Literal["float32", "tf32", "bfloat16"] = Field(
            "float32",
            description="to what products of float32 may round their factors where the hardware is faster so: TF32 "
            "(10 bits, error ~1e-3) or bfloat16 (7 bits, ~1e-2); certificates are computed in float32 all the same",
        )

    @classmethod
    @abstractmethod
    def available(cls) -> Availability:
        """Asked before use and by ``doctor``; imports what it needs inside."""

    @property
    @abstractmethod
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype:
        return torch.float64 if self.config.dtype == "float64" else torch.float32

    def prepare(self, module: nn.Module) -> nn.Module:
        """Set the precision of products, of the whole process, and move a module to where it runs."""
        torch.set_float32_matmul_precision(MATMUL[self.config.products])
        return module.to(device=self.device, dtype=self.dtype)

    def kernel(self, structure: ProblemStructure) -> Kernel | None:
        """A solver for problems of this structure, or None for the generic one.

        Asked only where the solver's ``any_minimiser`` is true.
        """
        return None

    # -- several processes --------------------------------------------------------------------------
    # A backend that lets several processes work on one model overrides these; alone, a process is the first of one.

    @property
    def rank(self) -> int:
        """This process's number, from 0. The first one alone writes, tracks and reports."""
        return 0

    @property
    def world(self) -> int:
        """How many processes work together."""
        return 1

    @property
    def launch(self) -> str | None:
        """The name of what started the processes, the same when it starts them again; None where nothing does.

        A run of this config that bears it is gone on with; a finished one ends once more.
        """
        return None

    def shard(self, rows: Tensor) -> Tensor:
        """This process's part of a batch's row numbers, (m,) → (about m/world,); together they are all of them."""
        return torch.tensor_split(rows, self.world)[self.rank]

    def reduce(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor, in place, by its sum over the processes, bit for bit the same in all of them.

        Every process calls it with tensors of the same shapes and dtypes, in the same order.
        """

    def share(self, value: T) -> T:
        """The first process's value, in every process; called by all of them."""
        return value

    def stop(self, reason: str) -> None:
        """Let the others stop too: what they wait for in ``reduce`` or ``share`` raises OthersStopped(reason).

        reason: one sentence; '' where there is none to tell.
        """


class Data(Plugin, ABC):
    """A data set: ``load`` reads it once and gives its splits."""

    kind = "data"

    @abstractmethod
    def load(self, seed: int) -> Splits:
        """Read the data; split it the same way for the same seed. Bad input raises InputError."""

    @abstractmethod
    def describe(self) -> DataInfo:
        """Shapes and sizes without reading it all, for ``check``. Missing files raise InputError here too."""


class Format(Plugin):
    """A format of files that ``encode`` reads inputs from or writes codes to, or both.

    suffixes: of its files' names, lower-case with the dot; the first is that of files it creates. streams: what
    ``create`` gives holds no more than some blocks in memory, however many codes it is given.

    ``open(path)``, optional: a Reader of the file's inputs; InputError where it is not of this format.
    ``create(path, shape, dtype)``, optional: a Writer of codes of this shape, (samples, *code_shape), to a new file
    at path, whose name may end otherwise.
    """

    kind = "format"
    suffixes: ClassVar[tuple[str, ...]] = ()
    streams: ClassVar[bool] = True

    open: Callable[[Path], Reader] | None = None
    create: Callable[[Path, tuple[int, ...], np.dtype[Any]], Writer] | None = None


Optimiser = Literal["adam", "adamw", "sgd"]


class Learner(Plugin):
    """How parameters move, a batch at a time: those that it takes by a rule of its own, all others by gradient.

    The step infers codes, moves what is not taken down or up the gradient of the learning terms, then calls
    ``update``. A learner that takes none is plain gradient descent.
    """

    kind = "learner"

    class Config(Plugin.Config):
        optimiser: Optimiser = Field("adam", description="of the descending parameters")
        rate: float = Field(1e-3, gt=0, description="learning rate of the descending parameters; > 0")
        epsilon: float = Field(
            1e-8,
            gt=0,
            description="of adam and adamw, added to the root of the mean squared gradient: entries with gradients "
            "well below it move in proportion to them, as under sgd",
        )
        ascent_optimiser: Optimiser = Field("sgd", description="of the ascending parameters")
        ascent_rate: float = Field(0.01, gt=0, description="learning rate of the ascending parameters; > 0")
        batch_size: int = Field(100, ge=1, description="samples per step")
        descend_steps: int = Field(1, ge=1, description="descent steps per batch")
        ascend_every: int = Field(1, ge=1, description="batches between two ascent steps")
        clip: float | None = Field(None, gt=0, description="largest norm of the descending gradient; none by default")
        average: float | None = Field(
            None,
            gt=0,
            lt=1,
            description="decay per step of a running average of the parameters, which is what is evaluated and "
            "kept; e.g. 0.999; none by default",
        )
        monitor: str | None = Field(
            None, description="a validation metric, e.g. 'validation/energy'; the best epoch's weights are kept"
        )
        monitor_mode: Literal["min", "max"] = Field("min", description="whether lower or higher is better")
        log_every: int = Field(10, ge=1, description="steps between two records of the metrics")
        checkpoint_seconds: float = Field(60, ge=0, description="seconds between two checkpoints inside an epoch")
        sample: int = Field(4096, ge=0, description="training inputs that a component may look at for its start")

    def build(self, model: Model) -> Collection[str]:
        """Get ready for a built model; the names (in its ``state_dict``) of the parameters that it takes.

        InputError where it cannot learn this model. Called once.
        """
        return ()

    def update(
        self, batch: Batch, code: Tensor, weights: Mapping[str, float], generator: torch.Generator | None
    ) -> None:
        """Move the parameters that were taken, in place and within their constraints.

        batch: on the model's device. code: (batch, *code_shape), inferred, without a graph. weights: of the terms
        that act in learning in this phase. generator: of random numbers that a resume repeats, or None. Not called
        in a phase that freezes any of them. Sums over the batch go through the backend's ``reduce``.
        """
        raise NotImplementedError(f"{type(self).__name__} takes parameters and must implement update")

    def state(self) -> dict[str, Tensor]:
        """All that ``update`` keeps between batches; a resume needs it."""
        return {}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what ``state`` gave."""

    def select(self, units: Tensor) -> None:
        """The model keeps only these units of the code: slice what counts them. The model is sliced already."""


class Callback(Plugin):
    """Follows a run through the hooks of ``groundstate.hooks`` (each method marked with ``hookimpl``)."""

    kind = "callback"


class Tracker(Callback):
    """A callback that keeps a record of the run elsewhere (MLflow, a file, …)."""

    kind = "tracker"


KINDS: Mapping[str, type[Plugin]] = {
    base.kind: base
    for base in (
        Encoder,
        Decoder,
        Transform,
        Reconstruction,
        Regulariser,
        Task,
        Solver,
        Backend,
        Data,
        Format,
        Learner,
        Tracker,
        Callback,
    )
}
TERM_KINDS = ("reconstruction", "regulariser", "task")


@cache
def _needs(function: Callable[..., Any]) -> tuple[str, ...]:
    names = list(inspect.signature(function).parameters)
    return tuple(names[1:] if names and names[0] == "self" else names)


def needs(method: Callable[..., Any]) -> tuple[str, ...]:
    """The names that a method asks for, read off its parameters."""
    return _needs(getattr(method, "__func__", method))
