"""Checks of proximal maps and dual norms, against a numerical minimiser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from groundstate.components import TERM_KINDS, Memory, Term, needs
from groundstate.problem import Step
from groundstate.structure import L1, Ridge, Structure
from groundstate.testing.reference import prox_of, standard_penalties, value_of
from groundstate.testing.results import Broken, NotApplicable, check
from groundstate.testing.subject import close, generator, some
from groundstate.testing.terms import TermCase

Objective = Callable[[Tensor], Tensor]
TOLERANCE = 1e-6


def apply(part: Term, v: Tensor, step: Step, z: Tensor | None = None) -> Tensor:
    """The prox, with what it asks for."""
    assert part.prox is not None
    given: dict[str, Any] = {"v": v, "step": step, "z": v if z is None else z, "memory": Memory(), "tolerance": 1e-11}
    result: Tensor = part.prox(**{name: given[name] for name in needs(part.prox)})
    return result


def proxed(case: TermCase, *, exact: bool | None = True) -> Term:
    """The term, where it has a prox; exact: one that does not depend on the current point."""
    part: Term = case.built()
    if part.prox is None:
        raise NotApplicable("it has no prox")
    if set(needs(part.energy)) != {"z"}:
        raise NotApplicable("its energy depends on more than z")
    at_a_point = "z" in needs(part.prox)
    if exact is not None and exact == at_a_point:
        raise NotApplicable("its prox majorises at the current point" if at_a_point else "its prox is exact")
    return part


def points(case: TermCase, part: Term, seed: int = 0, samples: int = 3) -> Tensor:
    """Where a prox is tried: entries of both signs, small and large."""
    return 1.5 * torch.randn(samples, *case.setting.code_shape, generator=generator(seed), dtype=torch.float64)


def lower(objective: Objective, starts: list[Tensor], *, non_negative: bool) -> Tensor:
    """The lowest point found from several starts, for each sample: quasi-Newton steps, then random ones.

    Where the objective is infinite outside a set, some start lies in it, and random moves that stay there count.

    objective: (batch, …) → (batch,), of samples that do not touch each other. A quasi-Newton method gets near the
    minimum of a function with kinks too (Lewis & Overton 2013); what it leaves, random moves find.
    """
    best, height = starts[0], objective(starts[0])
    for start in starts:
        found = _quasi_newton(objective, start, non_negative=non_negative)
        best, height = _better(best, height, found, objective(found))
    draw = generator(3)
    for scale in (0.3, 0.1, 0.03, 0.01, 1e-3, 1e-4):
        for kind in range(12):
            move = scale * torch.randn(best.shape, generator=draw, dtype=best.dtype)
            if kind % 3 == 1:
                move = move * (torch.rand(best.shape, generator=draw) < 0.1)
            trial = best * (best.abs() > scale) if kind % 3 == 2 else best + move
            trial = trial.clamp_min(0) if non_negative else trial
            best, height = _better(best, height, trial, objective(trial))
    return best


def _better(a: Tensor, height: Tensor, b: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    lower_ = other < height
    return torch.where(lower_.view(-1, *[1] * (a.dim() - 1)), b, a), torch.where(lower_, other, height)


def _quasi_newton(objective: Objective, start: Tensor, *, non_negative: bool) -> Tensor:
    def value(flat: np.ndarray[Any, Any]) -> tuple[float, np.ndarray[Any, Any]]:
        u = torch.from_numpy(flat.copy()).view_as(start).requires_grad_()
        total = objective(u).sum()
        (slope,) = torch.autograd.grad(total, u)
        return float(total.detach()), torch.nan_to_num(slope).flatten().numpy()

    bounds = [(0, None)] * start.numel() if non_negative else None
    first = start.clamp_min(0) if non_negative else start
    found = minimize(
        value, first.flatten().numpy(), jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 150}
    )
    return torch.from_numpy(found.x).view_as(start)


def objective_of(part: Term, v: Tensor, step: float) -> Objective:
    """step·energy(u) + ½‖u − v‖²."""
    """step·energy(u) + ½‖u − v‖², infinite where the term does not let u be."""

    def objective(u: Tensor) -> Tensor:
        value = step * part.energy(u) + 0.5 * (u - v).flatten(1).square().sum(1)
        return value if part.contains is None else torch.where(part.contains(u), value, torch.inf)

    return objective


def require_lowest(objective: Objective, u: Tensor, v: Tensor, *, non_negative: bool, what: str) -> None:
    """Broken where some point lies lower than u."""
    here = objective(u).detach()
    noise = 0.1 * torch.randn(u.shape, generator=generator(8), dtype=u.dtype)
    draw = generator(9)
    parts = [v * (torch.rand(v.shape, generator=draw) < density) for density in (0.3, 0.1, 0.03) for _ in range(8)]
    inside = [part for part in parts if bool(objective(part).isfinite().all())]
    starts = [u.detach(), v, u.detach() + noise]
    found = lower(lambda at: objective(at), [*starts, *inside[:8]], non_negative=non_negative)
    gain = here - objective(found).detach()
    worst = int(gain.argmax())
    if float(gain[worst]) > TOLERANCE * (1 + float(here[worst].abs())):
        raise Broken(
            f"{what} does not minimise step·energy(u) + ½‖u − v‖²",
            shown=f"v = {some(v[worst])}: prox {some(u[worst])} costs {float(here[worst]):.8g}, "
            f"but {some(found[worst])} only {float(here[worst] - gain[worst]):.8g}",
            advice="the step multiplies the energy, not its square or its root; without a closed form leave prox out",
        )


@check(*TERM_KINDS, says="prox is the minimiser of step·energy(u) + ½‖u − v‖² that a numerical search finds")
def prox_is_the_minimiser(case: TermCase) -> None:
    part = proxed(case)
    for step in (0.15, 1.1):
        v = points(case, part)
        u = apply(part, v, step)
        if u.shape != v.shape:
            raise Broken(f"prox changes the shape {tuple(v.shape)} to {tuple(u.shape)}", advice="return u like v")
        if part.non_negative and bool((u < 0).any()):
            raise Broken("prox gives negative entries, but the term restricts codes to z ≥ 0", shown=some(u))
        if part.contains is not None and not bool(part.contains(u).all()):
            raise Broken("prox leads out of the set that contains tells", shown=some(u))
        require_lowest(objective_of(part, v, step), u, v, non_negative=part.non_negative, what=f"prox with step {step}")


@check(*TERM_KINDS, says="prox takes a step per sample as well as a number")
def prox_takes_steps_per_sample(case: TermCase) -> None:
    part = proxed(case, exact=None)
    v = points(case, part)
    steps = torch.tensor([0.1, 0.5, 1.3], dtype=v.dtype)
    together = apply(part, v, steps.view(-1, *[1] * (v.dim() - 1)))
    alone = torch.cat([apply(part, v[i : i + 1], float(steps[i])) for i in range(len(v))])
    if not close(together, alone, 1e-7):
        raise Broken(
            "prox with a step per sample differs from prox with each step alone",
            shown=f"steps {some(steps)}: {some(together)} instead of {some(alone)}",
            advice="let step broadcast against v: (batch, 1, …), not a float only",
        )


@check(*TERM_KINDS, says="prox of a norm is firmly non-expansive: ‖p − q‖² ≤ ⟨p − q, u − v⟩")
def prox_is_firmly_non_expansive(case: TermCase) -> None:
    part = proxed(case)
    if not part.norm:
        raise NotApplicable("it does not claim to be a norm, so it need not be convex")
    for seed in range(6):
        u, v = points(case, part, seed), points(case, part, seed + 50)
        p, q = apply(part, u, 0.7), apply(part, v, 0.7)
        apart = (p - q).flatten(1)
        excess = apart.square().sum(1) - (apart * (u - v).flatten(1)).sum(1)
        if bool((excess > 1e-7).any()):
            raise Broken(
                "two points come out further apart than a prox of a convex function allows",
                shown=f"u = {some(u)}, v = {some(v)}: excess {float(excess.max()):.3g}",
                advice="correct prox; or, where the energy is not convex, do not claim norm",
            )


@check(*TERM_KINDS, says="a prox that majorises at z never raises an energy with step 1/(L + curvature)")
def prox_never_raises(case: TermCase) -> None:
    part = proxed(case, exact=False)
    units = case.setting.units
    a = torch.randn(12, units, generator=generator(2), dtype=torch.float64)
    bound = float(torch.linalg.matrix_norm(a, 2) ** 2)
    for weight in (0.2, 3.0):
        step = 1 / (bound + weight * part.curvature())
        for density in (1.0, 0.3, 0.0):
            z = points(case, part, 4) * (torch.rand(3, *case.setting.code_shape, generator=generator(6)) < density)
            z = z.abs() if part.non_negative else z
            _no_rise(part, z, a, step, weight)


def _no_rise(part: Term, z: Tensor, a: Tensor, step: float, weight: float) -> None:
    target = torch.randn(len(z), len(a), generator=generator(9), dtype=z.dtype)

    def energy(at: Tensor) -> Tensor:
        return 0.5 * (at.flatten(1) @ a.T - target).square().sum(1) + weight * part.energy(at)

    slope = ((z.flatten(1) @ a.T - target) @ a).view_as(z)
    after = apply(part, z - step * slope, step * weight, z)
    rise = (energy(after) - energy(z)).detach()
    worst = int(rise.argmax())
    if float(rise[worst]) > 1e-8 * (1 + float(energy(z)[worst].detach().abs())):
        raise Broken(
            "a proximal step raises the energy",
            shown=f"z = {some(z[worst])}, step 1/(L + {weight}·curvature): it rises by {float(rise[worst]):.4g}",
            advice="curvature() must bound what the majoriser adds, and prox majorise at z, not at v",
        )


@check(*TERM_KINDS, says="dual_norm bounds ⟨c, u⟩ / energy(u) over all u, and not wildly")
def dual_norm_is_a_bound(case: TermCase) -> None:
    part: Term = case.built()
    if part.dual_norm is None:
        raise NotApplicable("it has no dual_norm")
    c = points(case, part)
    claimed: Tensor = part.dual_norm(c).detach()
    if claimed.shape != (len(c),):
        raise Broken(f"dual_norm returns {tuple(claimed.shape)}; it must be (batch,)", shown=f"c of {tuple(c.shape)}")
    best = torch.zeros(len(c), dtype=c.dtype)
    shown = c
    for u in _directions(part, c):
        u = u.clamp_min(0) if part.non_negative else u
        cost = part.energy(u).detach()
        ratio = torch.where(cost > 0, (c * u).flatten(1).sum(1) / cost.clamp_min(1e-300), best)
        shown = torch.where((ratio > best).view(-1, *[1] * (c.dim() - 1)), u, shown)
        best = torch.maximum(best, ratio)
    if bool((best > claimed * (1 + 1e-6) + 1e-9).any()):
        worst = int((best - claimed).argmax())
        raise Broken(
            "some u has ⟨c, u⟩ / energy(u) above dual_norm(c)",
            shown=f"c = {some(c[worst])}, u = {some(shown[worst])}: "
            f"{float(best[worst]):.6g} > {float(claimed[worst]):.6g}",
            advice="a bound may be too large, never too small: a certificate of optimality would be wrong",
        )
    if bool((claimed > 2 * case.setting.units**0.5 * best + 1e-9).any()):
        raise Broken(
            "dual_norm is so loose that no certificate will ever be small",
            shown=f"claimed {some(claimed)}, reached {some(best)}",
            advice="tighten it, or leave it out: the scale is then found from prox",
        )


def _directions(part: Term, c: Tensor) -> list[Tensor]:
    """Where the ratio may be large: single units, signs, c itself, random ones, and what the prox leaves last."""
    flat = c.flatten(1)
    single = torch.zeros_like(flat).scatter_(1, flat.abs().argmax(1, keepdim=True), 1.0) * flat.sign()
    highest = torch.zeros_like(flat).scatter_(1, flat.argmax(1, keepdim=True), 1.0)
    found = [single, highest, flat.sign(), flat]
    draw = generator(12)
    for density in (1.0, 0.3, 0.1):
        for _ in range(20):
            keep = (torch.rand(flat.shape, generator=draw) < density) & (flat != 0)
            found.append(flat * keep + 0.1 * keep * torch.randn(flat.shape, generator=draw, dtype=flat.dtype))
    directions = [one.view_as(c) for one in found]
    if part.prox is not None and "z" not in needs(part.prox):
        low, high = torch.zeros(len(c), dtype=c.dtype), 2 * flat.norm(dim=1)
        for _ in range(40):
            middle = 0.5 * (low + high)
            left = apply(part, c, middle.view(-1, *[1] * (c.dim() - 1))).flatten(1).abs().amax(1) > 0
            low, high = torch.where(left, middle, low), torch.where(left, high, middle)
        for share in (1.0, 1 - 1e-3, 1 - 1e-6):
            directions.append(apply(part, c, (share * low).view(-1, *[1] * (c.dim() - 1))))
    return directions


@check(*TERM_KINDS, says="where prox_after says so, two proxes one after the other are the prox of the sum")
def composition(case: TermCase) -> None:
    part = proxed(case)
    forms: list[Structure] = [L1(non_negative=part.non_negative), Ridge()]
    forms += [form for form in standard_penalties(case.setting.units).values() if type(form) is not L1]
    own = part.structure()
    tried = 0
    for form in [*forms, *([own] if own is not None else [])]:
        try:
            earlier = prox_of(form, v := points(case, part), 0.3, v)
        except ValueError:
            continue
        if not part.prox_after([form]) or getattr(form, "non_negative", False) != part.non_negative:
            continue
        tried += 1
        u = apply(part, earlier, 0.3)
        base = objective_of(part, v, 0.3)

        def both(at: Tensor, form: Structure = form, base: Objective = base) -> Tensor:
            value = value_of(form, at)
            assert value is not None
            return base(at) + 0.3 * value

        what = f"prox after that of {type(form).__name__}, which prox_after allows,"
        require_lowest(both, u, v, non_negative=part.non_negative, what=what)
    if not tried:
        raise NotApplicable("prox_after names nothing that is known here")
