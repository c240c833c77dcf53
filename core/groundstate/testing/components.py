"""Checks of every component: it is made from the context alone, keeps its state, precision and device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from groundstate.components import Component
from groundstate.errors import InputError
from groundstate.testing.general import COMPONENTS, MODULES
from groundstate.testing.results import Broken, NotApplicable, check
from groundstate.testing.subject import Setting, Subject, build, close, generator, some

SAMPLES = 5
DEVICE_WORDS = ("expected device", "same device", "different devices", "two devices")
"""What torch says of tensors on different devices."""


@dataclass(frozen=True)
class Inputs:
    """Everything that is handed to a component, by name; all tensors have the samples as first axis."""

    values: dict[str, Any]

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Inputs:
        return Inputs(
            {key: change(value) if isinstance(value, Tensor) else value for key, value in self.values.items()}
        )

    def rows(self, rows: Tensor) -> Inputs:
        return self.mapped(lambda value: value[rows])

    def to(self, device: str | torch.device, dtype: torch.dtype) -> Inputs:
        return self.mapped(lambda value: value.to(device, dtype if value.is_floating_point() else None))

    def __getitem__(self, name: str) -> Any:
        return self.values[name]


class ComponentCase:
    """A component built for one setting. ``call`` gives the tensor that the checks look at."""

    def __init__(self, subject: Subject, setting: Setting) -> None:
        self.subject, self.setting = subject, setting

    def __str__(self) -> str:
        return f"{self.subject}, {self.setting}"

    def built(self, seed: int = 0, dtype: torch.dtype = torch.float64) -> Any:
        return build(self.subject, self.setting, seed=seed, dtype=dtype)

    def inputs(self, samples: int = SAMPLES, seed: int = 0) -> Inputs:
        """Made-up float64 inputs."""
        raise NotApplicable("nothing to call it with")

    def call(self, part: Any, inputs: Inputs) -> Tensor:
        """Its output, with the samples as first axis."""
        raise NotApplicable("nothing to call")

    @property
    def noisy(self) -> bool:
        """Whether it draws random numbers when it is called."""
        return False

    def units_of(self, inputs: Inputs, units: Tensor, *, zero: bool) -> Inputs:
        """The inputs with the code's units reduced to these: sliced, or the others set to zero."""
        return inputs

    def result_units(self, result: Tensor, units: Tensor) -> Tensor:
        """What the output of the whole component should be once only these units are left."""
        return result

    masks = True
    """Whether units that are left do as before once the others are gone; not so where units drive each other."""


def select_first(value: Tensor, units: Tensor, *, zero: bool) -> Tensor:
    """Codes (batch, units, …) with only these units, or with all others zero."""
    if not zero:
        return value.index_select(1, units)
    mask = torch.zeros(value.shape[1], dtype=torch.bool)
    mask[units] = True
    return value * mask.view(-1, *[1] * (value.dim() - 2)).to(value)


@check(*MODULES, says="what a sample gives does not depend on its batch mates")
def batch_invariance(case: ComponentCase) -> None:
    if case.noisy:
        raise NotApplicable("it draws noise for the whole batch at once")
    part = case.built()
    inputs = case.inputs()
    with torch.no_grad():
        together = case.call(part, inputs)
        for rows in (torch.tensor([0]), torch.tensor([3]), torch.tensor([4, 1, 2])):
            alone = case.call(part, inputs.rows(rows))
            if together.dim() == 0 or len(together) != SAMPLES or not close(alone, together[rows], 1e-9):
                before = together[rows[:1]] if together.dim() else together
                raise Broken(
                    "a sample's value changes with the batch it is in",
                    shown=f"sample {int(rows[0])} of {SAMPLES} gives {some(before)}, "
                    f"in a batch of {len(rows)} it gives {some(alone[:1] if alone.dim() else alone)}",
                    advice="reduce over the axes behind the first only, e.g. z.flatten(1).sum(1); no mean over axis 0",
                )


@check(*MODULES, says="the same call gives the same values, and the same seed the same start")
def determinism(case: ComponentCase) -> None:
    first, second = case.built(seed=3), _built_again(case)
    for (name, one), other in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        if not torch.equal(one, other):
            raise Broken(
                f"two builds from the same seed differ in '{name}'",
                shown=f"{some(one)} and {some(other)}",
                advice="draw first values from context.randn or context.generator, never from the global generator",
            )
    inputs = case.inputs()
    with torch.no_grad():
        values = []
        for global_seed in (1, 2):
            torch.manual_seed(global_seed)
            values.append(case.call(first, inputs))
    if not torch.equal(*values):
        raise Broken(
            "the same call gives two different values",
            shown=f"{some(values[0])}, then {some(values[1])}",
            advice="ask for 'generator' by name and draw from it; keep no state between calls",
        )


def _built_again(case: ComponentCase) -> Any:
    torch.manual_seed(99)
    part: Component = case.subject.make()
    part.build(case.setting.context(3))
    return part.to(torch.float64)


@check(*MODULES, says="state_dict holds all that a saved component needs")
def state_saved(case: ComponentCase) -> None:
    inputs = case.inputs()
    part = case.built(seed=0)
    with torch.no_grad():
        for value in part.parameters():
            value.add_(0.01)
        case.call(part.train(), case.inputs(seed=5))  # what it gathers while it learns must be saved too
        expected = case.call(part.eval(), inputs)
        other = case.built(seed=1)
        try:
            other.load_state_dict(part.state_dict())
        except RuntimeError as error:
            raise Broken(
                f"a fresh build does not take the saved state: {error}",
                advice="make the same parameters and buffers in build, whatever the seed",
            ) from error
        found = case.call(other.eval(), inputs)
    if not torch.equal(found, expected):
        raise Broken(
            "a component that is saved and loaded gives other values",
            shown=f"{some(expected)} before, {some(found)} after",
            advice="keep tensors as parameters (self.declare) or buffers (self.register_buffer), not as attributes",
        )


@check(*MODULES, says="float32 in, float32 out; float64 in, float64 out")
def precision_kept(case: ComponentCase) -> None:
    for dtype in (torch.float32, torch.float64):
        result = case.call(case.built(dtype=dtype), case.inputs().to("cpu", dtype))
        if result.dtype != dtype:
            raise Broken(
                f"from {dtype} it makes {result.dtype}",
                shown=f"inputs and parameters of {dtype}",
                advice="make tensors like the input (z.new_zeros, torch.zeros_like, .to(z)), not of a fixed dtype",
            )


@check(*MODULES, says="what it gives is on the device of what it gets")
def device_kept(case: ComponentCase) -> None:
    reached = [_on_device(case, device) for device in ("meta", *(("cuda",) if torch.cuda.is_available() else ()))]
    if not any(reached):
        raise NotApplicable("it looks at values, so it cannot be tried without a second device, and there is none")


def _on_device(case: ComponentCase, device: str) -> bool:
    advice = "make tensors like the input (z.new_zeros, torch.zeros_like, .to(z)), never on a fixed device"
    part = case.built(dtype=torch.float32).to(device)
    inputs = case.inputs().to(device, torch.float32)
    try:
        result = case.call(part, inputs)
    except (RuntimeError, NotImplementedError, TypeError) as error:
        if any(word in str(error) for word in DEVICE_WORDS):
            raise Broken(
                f"it mixes devices: {str(error).splitlines()[0]}",
                shown=f"inputs and parameters on {device}",
                advice=advice,
            ) from error
        if device == "meta":
            return False  # it asks for a value, which the meta device does not have
        raise
    if result.device.type != device:
        raise Broken(f"the result is on {result.device}", shown=f"inputs and parameters on {device}", advice=advice)
    return True


@check(*COMPONENTS, says="after select(units) it works on those units as if the others were zero")
def selection(case: ComponentCase) -> None:
    if case.noisy:
        raise NotApplicable("it draws noise of the code's shape")
    count = case.setting.code_shape[0]
    units = torch.arange(0, count, 2 if count < 9 else 3)
    whole, part = case.built(), case.built()
    try:
        part.select(units)
    except InputError as error:
        raise NotApplicable(f"it refuses to be pruned: {error}") from error
    inputs = case.inputs()
    nothing = inputs.mapped(torch.zeros_like)
    with torch.no_grad():
        masked = case.call(whole, case.units_of(inputs, units, zero=True))
        expected = case.result_units(masked, units)
        try:
            found = case.call(part, case.units_of(inputs, units, zero=False))
            if expected.dim() == 1:  # energies: units that are zero may cost a constant
                kept = case.units_of(nothing, units, zero=False)
                found = found - _energy_at_zero(case, part, inputs, kept)
                expected = expected - _energy_at_zero(case, whole, inputs, nothing)
        except (RuntimeError, IndexError) as error:
            raise Broken(
                f"after select it fails: {str(error).splitlines()[0]}",
                shown=f"select({units.tolist()}) of {count} units",
                advice="give declare the unit_dims, and let select slice buffers and config fields that count units",
            ) from error
    if found.shape != expected.shape or (case.masks and not close(found, expected, 1e-9)):
        raise Broken(
            "what is left after select is not what the kept units gave before",
            shown=f"select({units.tolist()}): {some(found)} instead of {some(expected)}",
            advice="unit_dims must name every axis that runs over units, and select slice everything that has one",
        )


def _energy_at_zero(case: ComponentCase, part: Any, inputs: Inputs, zeros: Inputs) -> Tensor:
    """The energy of the code 0 with the same data."""
    of_the_code = ("z", "mean", "log_variance", "pre_activation", "prediction", "kept")
    return case.call(part, Inputs({**inputs.values, **{key: zeros[key] for key in of_the_code if key in zeros.values}}))


def leaves_of(part: Component, inputs: Inputs, names: tuple[str, ...]) -> tuple[Inputs, dict[str, Tensor]]:
    """The inputs with these ones as leaves of a graph, and all leaves by name, the parameters among them."""
    made = {name: inputs[name].detach().clone().requires_grad_() for name in names}
    return Inputs({**inputs.values, **made}), made | dict(part.named_parameters())


def slope_faults(value: Callable[[], Tensor], leaves: dict[str, Tensor], shown: str) -> None:
    """Compare autograd with central differences along random directions, for each leaf; float64.

    value: recomputes a scalar from the leaves.
    """
    result = value()
    if not torch.isfinite(result):
        raise Broken(f"the value is {float(result)}", shown=shown, advice="keep it finite: clamp what is divided by")
    gradients: list[Tensor | None] = [None] * len(leaves)
    if result.requires_grad:
        gradients = list(torch.autograd.grad(result, list(leaves.values()), allow_unused=True))
    for (name, leaf), gradient in zip(leaves.items(), gradients, strict=True):
        for seed in (0, 1, 2):
            direction = torch.randn(leaf.shape, generator=generator(seed), dtype=leaf.dtype)
            exact = 0.0 if gradient is None else float((gradient * direction).sum())
            measured = [_difference(value, leaf, direction, size) for size in (1e-5, 1e-6, 1e-7)]
            wrong = [abs(one - exact) > 1e-5 * (1 + abs(one)) * max(1.0, leaf.numel() ** 0.5) for one in measured]
            # a kink between two points is seen with one size of difference, not with every one
            if all(wrong):
                detached = "; the gradient is detached" if exact == 0 else ""
                raise Broken(
                    f"the gradient in '{name}' is not the slope of the value{detached}",
                    shown=f"{shown}, {name} = {some(leaf)}: slope {measured[1]:.6g} along a random direction, "
                    f"by autograd {exact:.6g}",
                    advice="compute with torch from start to end: no .detach(), .data, .item(), numpy or no_grad",
                )


def _difference(value: Callable[[], Tensor], leaf: Tensor, direction: Tensor, size: float) -> float:
    with torch.no_grad():
        before = leaf.clone()
        leaf.copy_(before + size * direction)
        above = float(value())
        leaf.copy_(before - size * direction)
        below = float(value())
        leaf.copy_(before)
    return (above - below) / (2 * size)
