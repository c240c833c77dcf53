"""Checks of terms: energies, gradients, claims and structure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from groundstate.components import TERM_KINDS, Code, Term, needs
from groundstate.data import Batch
from groundstate.energy import PROVIDED, Energy, Point
from groundstate.errors import InputError
from groundstate.problem import Problem
from groundstate.structure import LeastSquares, Ridge
from groundstate.testing.components import (
    SAMPLES,
    ComponentCase,
    Inputs,
    leaves_of,
    select_first,
    slope_faults,
)
from groundstate.testing.reference import ReferenceData, ReferenceDecoder, value_of
from groundstate.testing.results import Broken, NotApplicable, check
from groundstate.testing.subject import (
    CLASSES,
    CODE_SHAPES,
    INPUT_SHAPES,
    Setting,
    Subject,
    accepted,
    close,
    generator,
    some,
)

OF_THE_CODE = ("z", "mean", "log_variance", "pre_activation", "prediction")
SHARED = OF_THE_CODE[1:4]
"""What an encoder may share beside the code."""


class TermCase(ComponentCase):
    """A term on codes of one shape."""

    @property
    def asked(self) -> tuple[str, ...]:
        """What its energy asks for by name."""
        return needs(self.subject.cls.energy)  # type: ignore[attr-defined]

    @property
    def noisy(self) -> bool:
        return "generator" in self.asked

    def inputs(self, samples: int = SAMPLES, seed: int = 0) -> Inputs:
        """Codes, data and labels; for a term that restricts codes to z ≥ 0, such codes."""
        draw = generator(seed + 40)
        made: dict[str, Any] = {
            key: torch.randn(samples, *self.setting.code_shape, generator=draw, dtype=torch.float64)
            for key in OF_THE_CODE
        }
        if self.built().non_negative:
            made |= {key: made[key].abs() for key in ("z", "prediction")}
        x = torch.randn(samples, *self.setting.input_shape, generator=draw, dtype=torch.float64)
        made["x"] = x
        made["mask"] = (torch.rand(x.shape, generator=draw) < 0.7).to(x)
        made["y"] = self._labels(samples, draw)
        if self.subject.batch is not None:
            made |= self.subject.batch(samples, draw)
        missing = set(self.asked) - {*made, *PROVIDED}
        if missing:
            raise NotApplicable(f"it asks for {', '.join(sorted(missing))}, which the kit cannot make up: give batch")
        return Inputs(made)

    def _labels(self, samples: int, draw: torch.Generator) -> Tensor:
        labels = torch.randint(CLASSES, (samples,), generator=draw)
        if "y" not in self.asked:
            return labels
        for candidate in (labels, labels.double(), torch.randn(samples, CLASSES, generator=draw, dtype=torch.float64)):
            trial = {"z": torch.zeros(samples, *self.setting.code_shape, dtype=torch.float64), "y": candidate}
            if set(self.asked) > set(trial):
                return labels
            try:
                self.built().energy(**{name: trial[name] for name in self.asked})
            except (InputError, RuntimeError, ValueError, IndexError, TypeError):
                continue
            return candidate
        return labels

    def point(self, inputs: Inputs) -> Point:
        """Where the term is evaluated, with a plain linear decoder."""
        z = inputs["z"]
        matrix = self.setting.matrix()
        if z[0].numel() != self.setting.units:  # after pruning: the same atoms without the dropped ones
            kept = inputs.values["kept"]
            matrix = matrix.view(-1, *self.setting.code_shape).index_select(1, kept).flatten(1)
        decoder = ReferenceDecoder(self.setting, matrix.to(z.device, z.dtype))
        code = Code(z, **{key: inputs[key] for key in SHARED})
        fields = {key: value for key, value in inputs.values.items() if key not in (*OF_THE_CODE, "kept")}
        return Point(Batch(fields), code, decoder, inputs["prediction"], generator(60))

    def call(self, part: Any, inputs: Inputs) -> Tensor:
        value: Tensor = self.point(inputs).call(part.energy)
        return value

    def units_of(self, inputs: Inputs, units: Tensor, *, zero: bool) -> Inputs:
        chosen = {key: select_first(inputs[key], units, zero=zero) for key in OF_THE_CODE}
        return Inputs({**inputs.values, **chosen, "kept": units})


def cases(subject: Subject) -> Iterator[TermCase]:
    """The term on flat and on 4-D codes, where it does not refuse them."""
    settings = [Setting(INPUT_SHAPES[0], shape) for shape in CODE_SHAPES]
    settings += [Setting(INPUT_SHAPES[1], CODE_SHAPES[1])] if subject.kind == "reconstruction" else []
    return (TermCase(subject, setting) for setting in accepted(subject, settings))


@check(*TERM_KINDS, says="energy is one finite value per sample, on flat and on 4-D codes")
def energy_per_sample(case: TermCase) -> None:
    part = case.built()
    for samples in (SAMPLES, 1):
        inputs = case.inputs(samples)
        zeros = Inputs({**inputs.values, **{key: torch.zeros_like(inputs[key]) for key in OF_THE_CODE}})
        for name, given in (("random codes", inputs), ("the code 0", zeros)):
            value = case.call(part, given)
            shown = f"{samples} samples, {name}"
            if not isinstance(value, Tensor) or value.shape != (samples,):
                shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise Broken(
                    f"energy returns {shape}; it must be one value per sample, ({samples},)",
                    shown=shown,
                    advice="sum over the axes behind the first only: z.flatten(1).sum(1)",
                )
            if not torch.isfinite(value).all():
                raise Broken(
                    f"the energy is {some(value)}",
                    shown=shown,
                    advice="keep it finite: clamp_min what is divided by, log1p for log",
                )


@check(*TERM_KINDS, says="the gradient by autograd is the slope of the energy (finite differences, float64)")
def gradient_is_the_slope(case: TermCase) -> None:
    part = case.built()
    asked = case.asked
    names = ["z"] if {"z", "decoded", "decode"} & set(asked) else []
    names += ["mean", "log_variance"] if "code" in asked else []
    names += ["prediction"] if "prediction" in asked else []
    inputs, leaves = leaves_of(part, case.inputs(3), tuple(names))
    if "code" in asked and "z" not in names:
        inputs, leaves = leaves_of(part, case.inputs(3), ("z", *names))
    slope_faults(lambda: case.call(part, inputs).sum(), leaves, "3 samples")


@check(*TERM_KINDS, says="the gradient is finite at the code 0, where inference starts")
def gradient_at_zero(case: TermCase) -> None:
    part = case.built()
    if part.prox is not None:
        raise NotApplicable("it has a prox, so its gradient is not asked for")
    inputs = case.inputs(2)
    z = torch.zeros_like(inputs["z"]).requires_grad_()
    value = case.call(part, Inputs({**inputs.values, "z": z}))
    if not value.requires_grad:
        raise NotApplicable("its energy does not depend on z")
    (gradient,) = torch.autograd.grad(value.sum(), z, allow_unused=True)
    if gradient is not None and not torch.isfinite(gradient).all():
        raise Broken(
            f"the gradient at 0 is {some(gradient)}",
            shown="the code 0",
            advice="clamp under the root or the fraction: (z.square().sum(1) + ε).sqrt()",
        )


@check(*TERM_KINDS, says="gradient, where it is written out, equals that of autograd")
def closed_gradient(case: TermCase) -> None:
    part = case.built()
    if part.gradient is None:
        raise NotApplicable("it leaves the gradient to autograd")
    inputs = case.inputs(3)
    z = inputs["z"].clone().requires_grad_()
    point = case.point(Inputs({**inputs.values, "z": z}))
    (expected,) = torch.autograd.grad(point.call(part.energy).sum(), z)
    found = case.point(inputs).call(part.gradient)
    if not close(found, expected, 1e-9):
        raise Broken(
            "gradient is not ∂energy/∂z",
            shown=f"z = {some(inputs['z'])}: {some(found)} instead of {some(expected)}",
            advice="correct gradient, or leave it out: autograd takes its place",
        )


@check(*TERM_KINDS, says="what the class claims of its energy (quadratic, norm) is so")
def claims(case: TermCase) -> None:
    part = case.built()
    if not (part.quadratic or part.norm):
        raise NotApplicable("it claims nothing")
    inputs = case.inputs()
    a, b = inputs["z"], case.inputs(seed=9)["z"]

    def energy(z: Tensor) -> Tensor:
        return case.call(part, Inputs({**inputs.values, "z": z}))

    if part.quadratic:
        # the third difference of a polynomial of second degree is 0
        values = [energy(a + step * b) for step in (0.0, 1.0, 2.0, 3.0)]
        third = values[3] - 3 * values[2] + 3 * values[1] - values[0]
        if not close(third, torch.zeros_like(third), 1e-8):
            raise Broken(
                "quadratic = True, but the energy along a line is no polynomial of second degree",
                shown=f"third difference {some(third)}",
                advice="leave quadratic out: the solver then searches for its step",
            )
    if part.norm:
        double = energy(2.5 * a)
        if not close(double, 2.5 * energy(a), 1e-8) or not bool((energy(a + b) <= energy(a) + energy(b) + 1e-8).all()):
            raise Broken(
                "norm = True, but energy(c·z) = c·energy(z) or the triangle inequality does not hold",
                shown=f"energy(z) = {some(energy(a))}, energy(2.5·z) = {some(double)}",
                advice="leave norm out: the certificate is then a residual, not a duality gap",
            )


@check(*TERM_KINDS, says="structure() describes the same energy, by formula and in the closed form of a problem")
def structure_equals_reference(case: TermCase) -> None:
    part: Term = case.built()
    form = part.structure()
    if form is None:
        raise NotApplicable("it tells no structure")
    inputs = case.inputs()
    advice = "let structure() say the term before its weight, with the same restriction to z ≥ 0"
    if isinstance(form, LeastSquares):
        expected = ReferenceData().energy(inputs["x"], case.point(inputs).decoded) * form.weight
    else:
        value = value_of(form, inputs["z"])
        if value is None:
            raise NotApplicable(f"no reference is known for {type(form).__name__}")
        expected = value
    found = case.call(part, inputs)
    if not close(found, expected, 1e-9):
        raise Broken(
            f"energy and structure() ({type(form).__name__}) differ",
            shown=f"z = {some(inputs['z'])}: {some(found)} and {some(expected)}",
            advice=advice,
        )
    if bool(getattr(form, "non_negative", False)) != part.non_negative:
        raise Broken("structure() and the term disagree on z ≥ 0", shown=f"{form}", advice=advice)
    if isinstance(form, (LeastSquares, Ridge)) and len(case.setting.code_shape) == 1:
        _closed_problem(case, part, inputs)


def _closed_problem(case: TermCase, part: Term, inputs: Inputs) -> None:
    """The same problem with and without the decoder's matrix: value and gradient must agree."""
    values = []
    for open_ in (True, False):
        terms = {"part": part} if part.role == "reconstruction" else {"data": ReferenceData(), "part": part}
        energy = Energy(terms, ReferenceDecoder(case.setting, open_=open_))
        problem = Problem(energy, Batch({"x": inputs["x"]}), case.setting.code_shape, weights=dict.fromkeys(terms, 0.7))
        values.append(problem.smooth(inputs["z"]))
    for (found, expected), what in zip(zip(*values, strict=True), ("value", "gradient"), strict=True):
        if not close(found, expected.detach(), 1e-8):
            raise Broken(
                f"the {what} of a problem in closed form is not that of its terms",
                shown=f"{some(found)} instead of {some(expected)}",
                advice="structure() must describe the energy exactly; else return None",
            )


@check(*TERM_KINDS, says="metrics are per-sample figures with names")
def metrics_per_sample(case: TermCase) -> None:
    part = case.built()
    if part.metrics is None:
        raise NotApplicable("it has no metrics")
    inputs = case.inputs()
    missing = set(needs(part.metrics)) - {*inputs.values, *PROVIDED}
    if missing:
        raise NotApplicable(f"metrics asks for {', '.join(sorted(missing))}, which the kit cannot make up: give batch")
    for name, value in case.point(inputs).call(part.metrics).items():
        if not isinstance(value, Tensor) or value.shape != (SAMPLES,) or not torch.isfinite(value.double()).all():
            raise Broken(
                f"the metric '{name}' is not one finite value per sample",
                shown=f"{SAMPLES} samples",
                advice="return {name: tensor of shape (batch,)}",
            )


@check("task", says="its probabilities are those of classes: none negative, of sum 1, the likeliest as it predicts")
def probabilities_of_classes(case: TermCase) -> None:
    part = case.built()
    if part.probabilities is None:
        raise NotApplicable("it gives no probabilities")
    with torch.no_grad():
        found = part.probabilities(case.inputs()["z"])
        scores = part.predict(case.inputs()["z"])
    sums = torch.ones(SAMPLES, dtype=found.dtype)
    if found.shape != scores.shape or not close(found.sum(1), sums, 1e-9) or bool((found < 0).any()):
        raise Broken(
            "the probabilities of a sample's classes do not add up to 1, or one is negative",
            shown=some(found),
            advice="return (batch, classes), e.g. predict(z).softmax(1)",
        )
    if not torch.equal(found.argmax(1), scores.argmax(1)):
        raise Broken("the likeliest class is not the one that predict scores highest", shown=some(found))
