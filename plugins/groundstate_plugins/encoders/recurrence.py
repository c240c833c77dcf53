"""The rectified recurrence with its gradient in closed form: no copies, one product for each weight's gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

aten = torch.ops.aten


def unrolled(x: Tensor, feedforward: Tensor, recurrent: Tensor, threshold: Tensor, steps: int, signed: bool) -> Tensor:
    """z after T steps of z ← f(E x + R z − b) from z = 0; f rectifies, or where ``signed`` shrinks by b.

    x: (batch, n). feedforward E: (units, n), recurrent R: (units, units), threshold b: (units,), or each with one
    more axis in front, of T (T − 1 for R): own matrices for each step. steps: T. Returns (batch, units). Its
    gradient can be taken once.
    """
    given = (x, feedforward, recurrent, threshold)
    if torch.is_grad_enabled() and any(value.requires_grad for value in given):
        code: Tensor = _Recurrence.apply(*given, steps, signed)  # type: ignore[no-untyped-call]
        return code
    return _run(*given, x.new_empty(min(steps, 2), len(x), threshold.shape[-1]), steps, signed)


@torch.no_grad()
def iterated(x: Tensor, feedforward: Tensor, recurrent: Tensor, threshold: Tensor, steps: int, signed: bool) -> Tensor:
    """The codes of all steps, (T, batch, units), without their gradient."""
    codes = x.new_empty(steps, len(x), threshold.shape[-1])
    _run(x, feedforward, recurrent, threshold, codes, steps, signed)
    return codes


def _run(
    x: Tensor, feedforward: Tensor, recurrent: Tensor, threshold: Tensor, codes: Tensor, steps: int, signed: bool
) -> Tensor:
    """The last code; each step's is written into ``codes``, (kept, batch, units), over the oldest one."""
    untied, places = threshold.dim() == 2, codes.unbind(0)
    transposed = recurrent.mT.unbind(0) if untied else [recurrent.mT] * (steps - 1)
    drive = code = places[0]
    for t in range(steps):
        if t == 0 or untied:
            e, b = (feedforward[t], threshold[t]) if untied else (feedforward, threshold)
            drive = x @ e.T if signed else torch.addmm(-b, x, e.T)
        before, code = code, places[t % len(places)]
        entering = torch.addmm(drive, before, transposed[t - 1], out=code) if t else drive
        if signed:
            torch.sub(entering, entering.clamp(-b, b), out=code)
        else:
            torch.clamp_min(entering, 0, out=code)
    return code


class _Recurrence(torch.autograd.Function):
    """Keeps the codes of all steps: where one is 0, no gradient passes; and they are what R's gradient needs."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        feedforward: Tensor,
        recurrent: Tensor,
        threshold: Tensor,
        steps: int,
        signed: bool,
    ) -> Tensor:
        codes = x.new_empty(steps, len(x), threshold.shape[-1])
        code = _run(x, feedforward, recurrent, threshold, codes, steps, signed)
        ctx.save_for_backward(x, feedforward, recurrent, codes)
        ctx.signed, ctx.untied = signed, threshold.dim() == 2
        # not a view of what is saved, which a caller might change in place
        return code.clone()

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, feedforward, recurrent, codes = ctx.saved_tensors
        slopes = _slopes(gradient, recurrent, codes, ctx.signed, ctx.untied)
        need_x, need_e, need_r, need_b = ctx.needs_input_grad[:4]
        shrunk = slopes * codes.sign() if ctx.signed else slopes  # ∂/∂b is its negative
        if ctx.untied:
            return (
                torch.einsum("tbk,tkn->bn", slopes, feedforward) if need_x else None,
                slopes.mT @ x if need_e else None,
                torch.bmm(slopes[1:].mT, codes[:-1]) if need_r and len(codes) > 1 else None,
                shrunk.sum(1).neg_() if need_b else None,
                None,
                None,
            )
        driven = slopes.sum(0)
        return (
            driven @ feedforward if need_x else None,
            driven.T @ x if need_e else None,
            slopes[1:].flatten(0, 1).T @ codes[:-1].flatten(0, 1) if need_r and len(codes) > 1 else None,
            (shrunk.sum((0, 1)) if ctx.signed else driven.sum(0)).neg_() if need_b else None,
            None,
            None,
        )


def _slopes(gradient: Tensor, recurrent: Tensor, codes: Tensor, signed: bool, untied: bool) -> Tensor:
    """∂/∂(E x + R z − b) of each step, (T, batch, units)."""
    slopes = torch.empty_like(codes)
    through = (aten.softshrink_backward if signed else aten.threshold_backward).grad_input
    # all views at once: made one by one they cost as much as the small products between them
    matrices = recurrent.unbind(0) if untied else [recurrent] * (len(codes) - 1)
    into, at = slopes.unbind(0), codes.unbind(0)
    through(gradient.contiguous(), at[-1], 0.0, grad_input=into[-1])
    for t in range(len(codes) - 1, 0, -1):
        before = into[t - 1]
        torch.mm(into[t], matrices[t - 1], out=before)
        through(before, at[t - 1], 0.0, grad_input=before)
    return slopes
