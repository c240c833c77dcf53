"""What an energy looks like to a solver: a smooth part, proximal maps, and a certificate of how low a code is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from groundstate.components import Code, Memory, needs
from groundstate.data import Batch
from groundstate.energy import Energy, Point
from groundstate.precision import exact_products
from groundstate.structure import LeastSquares, LinearMap, MaskedLeastSquares, ProblemStructure, Ridge

Step = float | Tensor
BISECTIONS = 50
"""Halvings of the dual scale where several norms are certified together: 2⁻⁵⁰ of the scale remains."""
DYKSTRA_ROUNDS = 1000
REFINEMENTS = 4
"""Times that a prox is solved again, thirty times more exactly each, where a step would raise the energy."""


@dataclass(frozen=True)
class Certificate:
    """How near to the lowest energy a code is, per sample.

    kind: ``gap``, a duality gap, bounds E(z) − min E; ``residual``, the fixed-point residual
    ‖z − prox(z − t∇f)‖∞/t, certifies stationarity only.
    value: (batch,), in units of the energy (gap) or of its gradient (residual).
    relative: (batch,), the gap over ½‖x‖², or the residual over the one at z = 0.
    """

    kind: Literal["gap", "residual"]
    value: Tensor
    relative: Tensor

    def select(self, rows: Tensor) -> Certificate:
        return Certificate(self.kind, self.value[rows], self.relative[rows])


@dataclass(frozen=True)
class Lipschitz:
    """A bound on the curvature of the smooth part; ``certain`` where it is proven, else a first guess."""

    value: float
    certain: bool


class Problem:
    """What an energy looks like to a solver, for one batch: smooth part, prox, value and certificate.

    weights: the acting terms and their weights (default: those that act in inference).
    encoded: what the encoder gave, for terms that ask for ``prediction`` or ``code``; constant in inference.
    code_shape: shape of one code.
    tolerance: the relative certificate the caller wants; inner iterations work to a tenth of it.
    differentiable: keep the graph through smooth and prox, for back-propagation through a solver.
    """

    def __init__(
        self,
        energy: Energy,
        batch: Batch,
        code_shape: tuple[int, ...],
        *,
        weights: Mapping[str, float] | None = None,
        encoded: Code | None = None,
        generator: torch.Generator | None = None,
        tolerance: float = 1e-6,
        differentiable: bool = False,
    ) -> None:
        self.energy = energy
        self.batch = batch
        self.code_shape = code_shape
        self.weights = dict(energy.weights("inference") if weights is None else weights)
        self.encoded = None if encoded is None else encoded.mapped(Tensor.detach)
        self.generator = generator
        self.tolerance = tolerance
        self.differentiable = differentiable
        self.split = energy.split(tuple(self.weights))
        self.memories = {name: Memory() for name in (*self.split.proxed, "")}
        self.mask: Tensor | None = None
        self.linear, self.data_weight, self.ridge = self._closed_form()
        self._lipschitz: Lipschitz | None = None
        self._curvature: float | None = None

    def _closed_form(self) -> tuple[LinearMap | None, float, float]:
        """(D, w, ρ) where the smooth part is w·½‖x − Dz‖² + ρ·½‖z‖²; (None, 0, 0) for any other.

        With a mask it is w·½‖m ∘ (x − Dz)‖² + ρ·½‖z‖²: the same with m ∘ x and a dictionary of each sample's own.
        """
        linear = self.energy.decoder.structure() if self.energy.decoder is not None else None
        data, ridge = 0.0, 0.0
        forms = [self.energy.terms[name].structure() for name in self.split.smooth]
        if any(isinstance(form, MaskedLeastSquares) for form in forms):
            if any(isinstance(form, LeastSquares) for form in forms) or "mask" not in self.batch.fields:
                return None, 0.0, 0.0
            if linear is not None:
                self.mask = self.batch.fields["mask"].to(self.batch.x).flatten(1)
        for name, form in zip(self.split.smooth, forms, strict=True):
            match form:
                case LeastSquares(weight=weight) | MaskedLeastSquares(weight=weight):
                    data += self.weights[name] * weight
                case Ridge(weight=weight):
                    ridge += self.weights[name] * weight
                case _:
                    return None, 0.0, 0.0
        return (linear, data, ridge) if linear is not None else (None, 0.0, 0.0)

    @property
    def structure(self) -> ProblemStructure | None:
        """The problem's form where every part tells its own and all samples share it, else None."""
        if self.linear is None or self.mask is not None:
            return None
        penalties = [
            form.scaled(self.weights[name])
            for name in self.split.proxed
            if (form := self.energy.terms[name].structure()) is not None
        ]
        if len(penalties) < len(self.split.proxed):
            return None
        if self.ridge:
            penalties.append(Ridge(weight=self.ridge))
        return ProblemStructure(
            dictionary=self.linear, data=LeastSquares(weight=self.data_weight), penalties=tuple(penalties)
        )

    def __len__(self) -> int:
        return len(self.batch)

    def zeros(self) -> Tensor:
        """The code 0, (batch, *code_shape)."""
        return self.batch.x.new_zeros(len(self), *self.code_shape)

    def point(self, z: Tensor) -> Point:
        """Where terms are evaluated for a code: with what the encoder shares, as a constant."""
        if self.encoded is None:
            return Point(self.batch, Code(z), self.energy.decoder, None, self.generator)
        code = self.encoded.at(z)
        return Point(self.batch, code, self.energy.decoder, self.encoded.value, self.generator)

    # -- value and gradient -------------------------------------------------------------------------

    def residual(self, z: Tensor) -> Tensor:
        """x − Dz, or m ∘ (x − Dz), flat: (batch, n), in closed form; (batch, 0) for any other problem.

        It is affine in z: a solver that keeps the residuals of two codes has that of any point on the line
        through them without another product, and hands it to ``smooth`` and ``value``.
        """
        if self.linear is None:
            return z.new_empty(len(z), 0)
        residual = torch.addmm(self.batch.x.flatten(1), z.flatten(1), self.linear.matrix.T, alpha=-1)
        return residual if self.mask is None else residual * self.mask

    def value(self, z: Tensor, residual: Tensor | None = None) -> Tensor:
        """The energy of each sample, (batch,)."""
        return self.smooth_value(z, residual) + self.penalty(z)

    def smooth_value(self, z: Tensor, residual: Tensor | None = None) -> Tensor:
        """The smooth part of the energy, (batch,)."""
        if self.linear is None:
            return self.energy.total(self.point(z), {name: self.weights[name] for name in self.split.smooth})
        return self._closed_value(z, self.residual(z) if residual is None else residual)

    def _closed_value(self, z: Tensor, residual: Tensor) -> Tensor:
        value: Tensor = 0.5 * self.data_weight * torch.linalg.vector_norm(residual, dim=1).square()
        return value + 0.5 * self.ridge * z.flatten(1).square().sum(1) if self.ridge else value

    def penalty(self, z: Tensor) -> Tensor:
        """The part that is handled by prox, (batch,)."""
        return self.energy.total(self.point(z), {name: self.weights[name] for name in self.split.proxed})

    def smooth(self, z: Tensor, residual: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Value (batch,) and gradient (shape of z) of the smooth part."""
        if self.linear is not None:
            residual = self.residual(z) if residual is None else residual
            return self._closed_value(z, residual), self.gradient(z, residual)
        value, gradient = z.new_zeros(len(z)), torch.zeros_like(z)
        by_autograd: dict[str, float] = {}
        point = self.point(z)
        for name in self.split.smooth:
            term, weight = self.energy.terms[name], self.weights[name]
            if term.gradient is None:
                by_autograd[name] = weight
            else:
                value = value + weight * point.call(term.energy)
                gradient = gradient + weight * point.call(term.gradient)
        if by_autograd:
            with torch.enable_grad():
                leaf = z if self.differentiable and z.requires_grad else z.detach().requires_grad_()
                energy = self.energy.total(self.point(leaf), by_autograd)
                # a term that does not look at z has gradient 0
                slope = torch.zeros_like(z)
                if energy.requires_grad:
                    (slope,) = torch.autograd.grad(
                        energy.sum(),
                        leaf,
                        create_graph=self.differentiable,
                        allow_unused=True,
                        materialize_grads=True,
                    )
            value = value + (energy if self.differentiable else energy.detach())
            gradient = gradient + slope
        return value, gradient

    def gradient(self, z: Tensor, residual: Tensor | None = None) -> Tensor:
        """The gradient of the smooth part alone, shape of z."""
        if self.linear is None:
            return self.smooth(z)[1]
        residual = self.residual(z) if residual is None else residual
        residual = residual if self.mask is None else residual * self.mask
        gradient = (residual @ self.linear.matrix).view_as(z)
        gradient = gradient * -self.data_weight if self.differentiable else gradient.mul_(-self.data_weight)
        return gradient + self.ridge * z if self.ridge else gradient

    def descended(self, z: Tensor, step: float, residual: Tensor) -> Tensor:
        """z − step·∇f(z), shape of z; in closed form by one product that writes each entry once."""
        if self.linear is None or self.mask is not None:
            return torch.add(z, self.gradient(z, residual), alpha=-step)
        scale, kept = step * self.data_weight, 1 - step * self.ridge
        return torch.addmm(z.flatten(1), residual, self.linear.matrix, beta=kept, alpha=scale).view_as(z)

    def lipschitz(self) -> Lipschitz:
        """A bound on the gradient's Lipschitz constant: exact for a matrix, else by power iteration or a guess."""
        if self._lipschitz is None:
            if self.linear is not None:
                norm = self.linear.squared_norm() if self.data_weight else 0.0
                bound = (self.data_weight * norm + self.ridge) * (1 + 1e-6)
                self._lipschitz = Lipschitz(max(bound, torch.finfo(torch.float32).tiny), True)
            elif self._is_quadratic():
                self._lipschitz = Lipschitz(self._power_iteration(), False)
            else:
                self._lipschitz = Lipschitz(1.0, False)
        return self._lipschitz

    def curvature(self) -> float:
        """What the majorising proxes add to the Lipschitz constant."""
        if self._curvature is None:  # asked in every iteration, and may cost an eigenvalue
            weighted = (self.weights[name] * self.energy.terms[name].curvature() for name in self.split.proxed)
            self._curvature = sum(weighted)
        return self._curvature

    def _is_quadratic(self) -> bool:
        linear = self.energy.decoder is None or self.energy.decoder.linear
        return linear and all(self.energy.terms[name].quadratic for name in self.split.smooth)

    def _power_iteration(self, rounds: int = 30) -> float:
        """Largest curvature of a quadratic smooth part over the batch; a lower bound, hence not certain."""
        forms = [self.energy.terms[name].structure() for name in self.split.smooth]
        if len(self) > 1 and all(isinstance(form, LeastSquares | Ridge) for form in forms):
            # the same for every sample
            return self.select(torch.zeros(1, dtype=torch.int64, device=self.batch.x.device))._power_iteration(rounds)
        generator = torch.Generator().manual_seed(0)
        direction = torch.randn(1, *self.code_shape, generator=generator).to(self.batch.x).expand_as(self.zeros())
        origin = self.smooth(self.zeros())[1].detach()
        largest = 1e-12
        for _ in range(rounds):
            norm = direction.flatten(1).norm(dim=1).clamp_min(1e-30)
            direction = direction / per_sample(norm, direction)
            direction = (self.smooth(direction)[1] - origin).detach()
            largest = float(direction.flatten(1).norm(dim=1).max())
        return max(largest, 1e-12)

    # -- prox ---------------------------------------------------------------------------------------

    def prox(self, v: Tensor, step: Step, z: Tensor) -> Tensor:
        """argmin_u step·Ω(u) + ½‖u − v‖² over the prox-handled part Ω, majorised at z where it is not convex."""
        if self.split.composed:
            for name in self.split.proxed:
                v = self._prox_of(name, v, step, z)
            return v
        return self._dykstra(v, step, z)

    def prox_from(self, v: Tensor, step: Step, z: Tensor) -> Tensor:
        """prox(v, step, z), so that a gradient step from z never raises the energy.

        Where a prox is exact to a tolerance only and its step·Ω(u) + ½‖u − v‖² is above that of z itself, it is
        solved again more exactly; where that does not help, z stays.
        """
        u = self.prox(v, step, z)
        majorised = any("z" in needs(self._prox_method(name)) for name in self.split.proxed)
        if self._exact() or majorised or self.differentiable:
            return u
        inside = torch.ones(len(self), dtype=torch.bool, device=z.device)
        if any(self.energy.terms[name].non_negative for name in self.split.proxed):
            inside = z.flatten(1).amin(1) >= 0
        worse = inside & self._costs_more(u, z, v, step)
        tolerance = self.tolerance
        for _ in range(REFINEMENTS):
            rows = worse.nonzero().flatten()
            if len(rows) == 0:
                return u
            tolerance *= 0.03
            some = self.select(rows)
            some.tolerance = tolerance
            part = step[rows] if isinstance(step, Tensor) and step.dim() and len(step) > 1 else step
            better = some.prox(v[rows], part, z[rows])
            u = u.index_copy(0, rows, better)
            for name, memory in self.memories.items():
                value, found = memory.value, some.memories[name].value
                if value is not None and found is not None:
                    memory.value = value.index_copy(0, rows, found)
            worse = worse.index_copy(0, rows, some._costs_more(better, z[rows], v[rows], part))
        return torch.where(per_sample(worse, z), z, u)

    def _costs_more(self, u: Tensor, z: Tensor, v: Tensor, step: Step) -> Tensor:
        """Whether step·Ω(u) + ½‖u − v‖² is above that of z by more than rounding, (batch,) bool."""
        scale = step.flatten() if isinstance(step, Tensor) else step

        def cost(at: Tensor) -> Tensor:
            return scale * self.penalty(at) + 0.5 * (at - v).flatten(1).square().sum(1)

        here = cost(z)
        return cost(u) > here + 4 * torch.finfo(here.dtype).eps * here

    def _exact(self) -> bool:
        """Whether the prox is exact, not to a tolerance."""
        inner = any("tolerance" in needs(self._prox_method(name)) for name in self.split.proxed)
        return self.split.composed and not inner

    def _prox_method(self, name: str) -> Callable[..., Tensor]:
        method = self.energy.terms[name].prox
        assert method is not None
        return method

    def _prox_of(self, name: str, v: Tensor, step: Step, z: Tensor) -> Tensor:
        method = self._prox_method(name)
        given: dict[str, Any] = {
            "v": v,
            "step": step * self.weights[name],
            "z": z,
            "memory": self.memories[name],
            "tolerance": 0.1 * self.tolerance,
        }
        return method(**{need: given[need] for need in needs(method)})

    def _dykstra(self, v: Tensor, step: Step, z: Tensor) -> Tensor:
        """Prox of a sum by cyclic ascent on its dual, one prox at a time (Bauschke & Combettes 2008)."""
        memory = self.memories[""]
        names = self.split.proxed
        duals = memory.value
        if duals is None or duals.shape[1:] != (len(names), *v.shape[1:]):
            duals = v.new_zeros(len(v), len(names), *v.shape[1:])
        parts = list(duals.unbind(1))
        u = v - sum(parts)
        accuracy = max(0.1 * self.tolerance, 4 * torch.finfo(v.dtype).eps)
        scale = v.detach().flatten(1).abs().amax(1).clamp_min(torch.finfo(v.dtype).tiny)
        for _ in range(DYKSTRA_ROUNDS):
            before = u
            for i, name in enumerate(names):
                whole = u + parts[i]
                u = self._prox_of(name, whole, step, z)
                parts[i] = whole - u
            moved = (u - before).detach().flatten(1).abs().amax(1)
            if bool((moved <= accuracy * scale).all()):
                break
        memory.value = torch.stack(parts, 1).detach()
        return u

    # -- certificates -------------------------------------------------------------------------------

    def certificate(self, z: Tensor) -> Certificate:
        """A duality gap where the problem is convex with norms as penalties, else the fixed-point residual.

        In the precision of the problem, whatever products may be rounded to in between.
        """
        with torch.no_grad(), exact_products():
            terms = [self.energy.terms[name] for name in self.split.proxed]
            # without a penalty there is no dual norm to scale by, and the gap would say nothing
            if self.linear is not None and self.data_weight and terms and all(term.norm for term in terms):
                return self._gap(z)
            return self._fixed_point(z)

    def _gap(self, z: Tensor) -> Certificate:
        """P(z) − D(θ) with θ = s·r, written without cancellation: ½(1−s)²‖r‖² + Ω(z) − s⟨z, Dᵀr⟩.

        r is the residual with the data's weight and the ridge folded in; s the largest scale at which θ is
        dual feasible (or a bound on it).
        """
        flat, residual = z.flatten(1), self.residual(z)
        correlation = self.gradient(z, residual).neg_()
        scale = self._dual_scale(correlation, z)
        inner = torch.linalg.vecdot(flat, correlation.flatten(1))
        fit = (1 - scale).square() * self._closed_value(z, residual)
        gap = (fit + (self.penalty(z) - scale * inner)).clamp_min(0)
        if any(self.energy.terms[name].non_negative for name in self.split.proxed):
            gap = torch.where(flat.amin(1) < 0, torch.inf, gap)  # outside the domain
        x = self.batch.x.flatten(1) if self.mask is None else self.batch.x.flatten(1) * self.mask
        half = 0.5 * self.data_weight * torch.linalg.vector_norm(x, dim=1).square()
        return Certificate("gap", gap, gap / half.clamp_min(torch.finfo(half.dtype).tiny))

    def _dual_scale(self, correlation: Tensor, z: Tensor) -> Tensor:
        """A scale s in [0, 1] with Ω*(s·c) ≤ 1, as large as is known.

        For one norm by its dual. For several by where their prox vanishes, if that is exact; else each bears a part
        of c = Σ_j c_j, and Ω*(c) ≤ max_j Ω_j*(c_j)/w_j: the parts are those that a proximal step from z takes, which
        at the optimum are the right ones.
        """
        names = self.split.proxed
        if any(self.energy.terms[name].dual_norm is None for name in names) or (len(names) > 1 and self._exact()):
            return self._scale_by_prox(correlation)
        parts = [correlation] if len(names) == 1 else self._shares(correlation, z)
        scale = correlation.new_ones(len(correlation))
        for name, part in zip(names, parts, strict=True):
            dual = self._dual_norm_of(name, part, z)
            scale = torch.minimum(scale, self.weights[name] / dual.clamp_min(torch.finfo(dual.dtype).tiny))
        return scale

    def _dual_norm_of(self, name: str, part: Tensor, z: Tensor) -> Tensor:
        method = self.energy.terms[name].dual_norm
        assert method is not None
        given: dict[str, Any] = {"z": z, "memory": self.memories[name], "tolerance": 0.1 * self.tolerance}
        return method(part, **{need: given[need] for need in needs(method)[1:]})

    def _shares(self, correlation: Tensor, z: Tensor) -> list[Tensor]:
        """c in one part per proxed term; what a proximal step from z leaves of it is shared alike."""
        step = 1.0 / (self.lipschitz().value + self.curvature())
        v = z + step * correlation
        taken = []
        if self.split.composed:
            u = v
            for name in self.split.proxed:
                before, u = u, self._prox_of(name, u, step, z)
                taken.append(before - u)
        else:
            u = self._dykstra(v, step, z)
            duals = self.memories[""].value
            assert duals is not None
            taken = list(duals.unbind(1))
        left = (u - z) / len(taken)
        return [(part + left) / step for part in taken]

    def _scale_by_prox(self, correlation: Tensor) -> Tensor:
        """The largest s in [0, 1] at which the prox of s·c vanishes, by bisection."""
        low, high = (correlation.new_full((len(correlation),), bound) for bound in (0.0, 1.0))
        for _ in range(BISECTIONS):
            middle = 0.5 * (low + high)
            shrunk = self.prox(correlation * per_sample(middle, correlation), 1.0, torch.zeros_like(correlation))
            feasible = shrunk.flatten(1).abs().amax(1) == 0
            low, high = torch.where(feasible, middle, low), torch.where(feasible, high, middle)
        return low

    def _fixed_point(self, z: Tensor) -> Certificate:
        step = 1.0 / (self.lipschitz().value + self.curvature())

        def residual(at: Tensor) -> Tensor:
            moved = self.prox(at - step * self.smooth(at)[1], step, at)
            return (at - moved).flatten(1).abs().amax(1) / step

        value, start = residual(z), residual(torch.zeros_like(z))
        return Certificate("residual", value, value / start.clamp_min(torch.finfo(start.dtype).eps))

    def select(self, rows: Tensor) -> Problem:
        """The problem of some of the samples; what the proxes remember goes with them."""
        chosen = Problem(
            self.energy,
            self.batch.select(rows),
            self.code_shape,
            weights=self.weights,
            encoded=None if self.encoded is None else self.encoded.mapped(lambda part: part[rows]),
            generator=self.generator,
            tolerance=self.tolerance,
            differentiable=self.differentiable,
        )
        chosen._lipschitz, chosen._curvature = self._lipschitz, self._curvature
        for name, memory in self.memories.items():
            if memory.value is not None:
                chosen.memories[name].value = memory.value[rows]
        return chosen

    def in_double(self) -> Problem:
        """The same problem in double precision, with a copy of the parameters."""
        chosen = Problem(
            self.energy.in_double(),
            self.batch.to(self.batch.x.device, torch.float64),
            self.code_shape,
            weights=self.weights,
            encoded=None if self.encoded is None else self.encoded.mapped(_double),
            generator=self.generator,
            tolerance=self.tolerance,
            differentiable=self.differentiable,
        )
        for name, memory in self.memories.items():
            if memory.value is not None:
                chosen.memories[name].value = _double(memory.value)
        return chosen


def _double(values: Tensor) -> Tensor:
    return values.double() if values.is_floating_point() else values


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """(batch,) shaped to broadcast over the samples of ``like``."""
    return values.view(-1, *([1] * (like.dim() - 1)))


def soft_threshold(v: Tensor, threshold: Step, *, non_negative: bool = False) -> Tensor:
    """sign(v)·max(|v| − threshold, 0), or max(v − threshold, 0) where non_negative.

    threshold: a number or a tensor that broadcasts against v.
    """
    if non_negative:
        return (v - threshold).clamp_min_(0)
    if isinstance(threshold, Tensor):
        return v - v.clamp(-threshold, threshold)
    return functional.softshrink(v, threshold)
