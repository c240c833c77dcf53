"""Checks of encoders and decoders."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from groundstate.components import Code, Decoder, Encoder, Transform, needs
from groundstate.errors import InputError
from groundstate.testing.components import SAMPLES, ComponentCase, Inputs, leaves_of, select_first, slope_faults
from groundstate.testing.results import Broken, NotApplicable, check
from groundstate.testing.subject import (
    CODE_SHAPES,
    INPUT_SHAPES,
    Setting,
    Subject,
    accepted,
    close,
    generator,
    make,
    some,
)


class EncoderCase(ComponentCase):
    """An encoder on inputs of one shape, for codes of one shape."""

    masks = False

    @property
    def noisy(self) -> bool:
        return "generator" in needs(self.subject.cls.forward)  # type: ignore[attr-defined]

    def inputs(self, samples: int = SAMPLES, seed: int = 0) -> Inputs:
        x = torch.randn(samples, *self.setting.input_shape, generator=generator(seed + 30), dtype=torch.float64)
        return Inputs({"x": x})

    def code(self, part: Any, inputs: Inputs) -> Code | Tensor:
        given = {"generator": generator(60)} if self.noisy else {}
        result: Code | Tensor = part(inputs["x"], **given)
        return result

    def call(self, part: Any, inputs: Inputs) -> Tensor:
        result = self.code(part, inputs)
        return result.value if isinstance(result, Code) else result

    def result_units(self, result: Tensor, units: Tensor) -> Tensor:
        return result.index_select(1, units)


class DecoderCase(ComponentCase):
    """A decoder to inputs of one shape, from codes of the shape that it tells."""

    def inputs(self, samples: int = SAMPLES, seed: int = 0) -> Inputs:
        z = torch.randn(samples, *self.setting.code_shape, generator=generator(seed + 30), dtype=torch.float64)
        return Inputs({"z": z})

    def call(self, part: Any, inputs: Inputs) -> Tensor:
        result: Tensor = part(inputs["z"])
        return result

    def units_of(self, inputs: Inputs, units: Tensor, *, zero: bool) -> Inputs:
        return Inputs({"z": select_first(inputs["z"], units, zero=zero)})


class TransformCase(ComponentCase):
    """A transform on inputs of one shape; its output has the setting's code shape."""

    def inputs(self, samples: int = SAMPLES, seed: int = 0) -> Inputs:
        x = torch.randn(samples, *self.setting.input_shape, generator=generator(seed + 30), dtype=torch.float64)
        return Inputs({"x": x})

    def call(self, part: Any, inputs: Inputs) -> Tensor:
        result: Tensor = part(inputs["x"])
        return result


def transform_cases(subject: Subject) -> Iterator[TransformCase]:
    """A transform of flat and of image inputs, where it does not refuse them."""
    transform: Transform = make(subject)
    settings = []
    for shape in INPUT_SHAPES:
        with suppress(InputError):
            settings.append(Setting(shape, tuple(transform.output_shape(shape))))
    if not settings:
        refusals = ", ".join(map(str, INPUT_SHAPES))
        raise Broken(f"{subject} refuses inputs of every shape it is tried with: {refusals}")
    return (TransformCase(subject, setting) for setting in accepted(subject, settings))


def encoder_cases(subject: Subject) -> Iterator[EncoderCase]:
    """An encoder on flat and on image inputs, where it does not refuse them."""
    encoder: Encoder = make(subject)
    settings = []
    for input_shape in INPUT_SHAPES:
        own = _told_shape(encoder, input_shape)
        settings += [Setting(input_shape, shape) for shape in ([own] if own is not None else CODE_SHAPES)]
    return (EncoderCase(subject, setting) for setting in accepted(subject, settings))


def _told_shape(part: Any, input_shape: tuple[int, ...]) -> tuple[int, ...] | None:
    try:
        return part.code_shape(input_shape)  # type: ignore[no-any-return]
    except InputError:
        return None


def decoder_cases(subject: Subject) -> Iterator[DecoderCase]:
    """A decoder to flat and to image inputs, where it does not refuse them."""
    decoder: Decoder = make(subject)
    shapes = {shape: _told_shape(decoder, shape) for shape in INPUT_SHAPES}
    settings = [Setting(shape, tuple(code)) for shape, code in shapes.items() if code is not None]
    if not settings:
        refusals = ", ".join(map(str, INPUT_SHAPES))
        raise Broken(f"{subject} refuses inputs of every shape it is tried with: {refusals}")
    return (DecoderCase(subject, setting) for setting in accepted(subject, settings))


@check("encoder", says="forward gives a code, or a Code, of the right shape and finite")
def codes_have_the_right_shape(case: EncoderCase) -> None:
    part = case.built()
    for samples in (SAMPLES, 1):
        result = case.code(part, case.inputs(samples))
        if not isinstance(result, Code | Tensor):
            raise Broken(f"forward returns a {type(result).__name__}", advice="return the code's tensor, or a Code")
        shared = {"the code": result} if isinstance(result, Tensor) else vars(result)
        for name, value in shared.items():
            if value is not None and not torch.isfinite(value).all():
                raise Broken(f"{name} is not finite: {some(value)}", shown=f"{samples} standard normal inputs")
        value = case.call(part, case.inputs(samples))
        expected = (samples, *case.setting.code_shape)
        if tuple(value.shape) != expected:
            raise Broken(
                f"the code has shape {tuple(value.shape)}",
                shown=f"{samples} inputs; it was built for {expected}",
                advice="give (batch, *code_shape), with context.code_shape; or tell another by code_shape()",
            )


@check("encoder", says="the last of its iterates is the code that forward gives")
def iterates_end_at_the_code(case: EncoderCase) -> None:
    part, inputs = case.built(), case.inputs()
    with torch.no_grad():
        steps = part.iterates(inputs["x"])
        if steps is None:
            raise NotApplicable("it tells no iterates")
        last, expected = None, case.call(part, inputs)
        for last in steps:
            if last.shape != expected.shape:
                raise Broken(
                    f"an iterate has shape {tuple(last.shape)}, the code {tuple(expected.shape)}",
                    advice="yield codes (batch, *code_shape)",
                )
    if last is None or not close(last, expected, 1e-9):
        raise Broken(
            "the iterates do not end at the code",
            shown="there is none" if last is None else f"{some(last)} instead of {some(expected)}",
            advice="let forward return the last of iterates(x)",
        )


@check(
    "encoder",
    "decoder",
    "transform",
    says="parameters and inputs get the gradient that finite differences show (float64)",
)
def gradient_reaches_all(case: EncoderCase | DecoderCase | TransformCase) -> None:
    part = case.built()
    name = "z" if isinstance(case, DecoderCase) else "x"
    inputs, leaves = leaves_of(part, case.inputs(2), (name,))
    weights = torch.randn(case.call(part, inputs).shape, generator=generator(2), dtype=torch.float64)
    slope_faults(lambda: (case.call(part, inputs) * weights).sum(), leaves, "2 samples")


@check("decoder", says="forward gives inputs of the shape it was built for, finite")
def decoded_has_the_right_shape(case: DecoderCase) -> None:
    part = case.built()
    for samples in (SAMPLES, 1):
        value = case.call(part, case.inputs(samples))
        expected = (samples, *case.setting.input_shape)
        if tuple(value.shape) != expected or not torch.isfinite(value).all():
            raise Broken(
                f"decoded has shape {tuple(value.shape)} or is not finite",
                shown=f"{samples} codes; it was built for {expected}",
                advice="give (batch, *input_shape), with the context's input_shape",
            )


@check("transform", says="forward gives what output_shape tells, finite, of blank inputs too")
def transformed_has_the_right_shape(case: TransformCase) -> None:
    part = case.built()
    for inputs in (case.inputs(SAMPLES), case.inputs(1), case.inputs(2).mapped(torch.zeros_like)):
        value = case.call(part, inputs)
        expected = (len(inputs["x"]), *case.setting.code_shape)
        if tuple(value.shape) != expected or not torch.isfinite(value).all():
            raise Broken(
                f"the output has shape {tuple(value.shape)} or is not finite: {some(value)}",
                shown=f"{len(inputs['x'])} inputs; output_shape tells {expected[1:]}",
                advice="give (batch, *output_shape(shape)), and divide by nothing that may be zero",
            )


@check("decoder", says="a decoder that says linear is linear, and its structure is its matrix")
def linearity(case: DecoderCase) -> None:
    part: Decoder = case.built()
    matrix = part.structure()
    if not part.linear and matrix is None:
        raise NotApplicable("it does not claim to be linear")
    a, b = case.inputs(3)["z"], case.inputs(3, seed=4)["z"]
    with torch.no_grad():
        joint, parts = part(2 * a - 3 * b), 2 * part(a) - 3 * part(b)
        if not close(joint, parts, 1e-8):
            raise Broken(
                "D(2a − 3b) ≠ 2 D(a) − 3 D(b)",
                shown=f"{some(joint)} and {some(parts)}",
                advice="leave linear out, or drop what is added or rectified",
            )
        if matrix is None:
            return
        product = a.flatten(1) @ matrix.matrix.T
        if not close(part(a).flatten(1), product, 1e-8):
            raise Broken(
                "structure().matrix is not what forward multiplies by",
                shown=f"forward {some(part(a))}, matrix {some(product)}",
                advice="LinearMap(matrix=D) with D: (n, units), decoded = z Dᵀ",
            )
        if not part.linear:
            raise Broken("it tells a matrix but not linear = True", advice="set linear = True in the class")
