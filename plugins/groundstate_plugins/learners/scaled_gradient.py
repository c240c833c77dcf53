"""Gradient descent on a step for each unit: the gradient of its filter over how strongly the unit acts."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from pydantic import Field
from torch import Tensor, nn

from groundstate.components import Code, Learner, needs
from groundstate.data import Batch
from groundstate.energy import Point
from groundstate.errors import InputError
from groundstate.model import Model
from groundstate.parameters import ParameterSpec, select_units
from groundstate.processes import Processes

FLOOR = 0.1
"""Of the units' mean square: what a unit that hardly acts is scaled by at least."""
FADING = 0.9
"""Of the mean squares so far, what a batch leaves."""


class ScaledGradient(Learner):
    """The decoder's filters by gradient over their unit's mean square code, the rest by plain gradient.

    d_u ← d_u − η g_u / (s_u + 0.1 s̄), with g_u the gradient's running average, s_u that of z_u² and s̄ its mean over
    units; then onto the decoder's constraint. For ½‖x − Dz‖² the mean of z_u² is the energy's curvature along d_u, so
    η = 1 is Newton's step for a unit alone, and units that share their inputs ask for less. It takes decoders in which
    every unit has a filter of its own: a dictionary, or local filters, for which sums over pairs of units as in
    ``online-dictionary`` would be too large.
    """

    class Config(Learner.Config):
        batch_size: int = Field(50, ge=1, description="samples per step")
        step: float = Field(0.05, gt=0, le=1, description="η, of Newton's step for a unit alone")
        momentum: float = Field(0.5, ge=0, lt=1, description="share of the gradients so far in a step")

    def build(self, model: Model) -> Collection[str]:
        """InputError where no parameter of the decoder has one filter for each unit."""
        self._model = model
        shape = model.shapes.code_shape
        decoder = model.decoder
        found = [name for name, value, _ in decoder.declared() if _units(value, shape)] if decoder is not None else []
        if len(found) != 1:
            raise InputError(
                "this learner needs a decoder in which every unit has a filter of its own, e.g. [model.decoder] "
                "type = 'local' or 'linear'"
            )
        if model.solver.config.differentiate != "none":
            raise InputError(
                f"this learner takes the decoder, so no task can reach it by differentiate = "
                f"'{model.solver.config.differentiate}'; set it to 'none', or use the gradient"
            )
        self._name = found[0]
        self._processes = Processes(model.backend)
        self._data = [
            key for key, term in model.energy.terms.items() if {"decoded", "decode"} & set(needs(term.energy))
        ]
        self._reset()
        return (f"decoder.{self._name}",)

    def update(
        self, batch: Batch, code: Tensor, weights: Mapping[str, float], generator: torch.Generator | None
    ) -> None:
        acting = {key: weights[key] for key in self._data if weights.get(key)}
        if not acting:
            return
        filters, spec = self._taken
        gradient = self._slope(batch, code, acting, generator)
        square, samples = code.square().sum(0), code.new_tensor(float(len(code)))
        self._processes.reduce([gradient, square, samples])
        self._gradient.mul_(self.config.momentum).add_(gradient / samples, alpha=1 - self.config.momentum)
        self._square.mul_(FADING).add_(square / samples, alpha=1 - FADING)
        self._batches += 1
        scale = self._square / (1 - FADING**self._batches)
        scale = scale + FLOOR * scale.mean()
        if not bool(scale.any()):
            return
        move = self._gradient / (1 - self.config.momentum**self._batches)
        place = _units(filters, scale.shape)
        assert place is not None
        with torch.no_grad():
            filters.sub_(move / scale.reshape(place), alpha=self.config.step)
            if spec.constraint is not None:
                spec.constraint.project_(filters)

    def _slope(
        self, batch: Batch, code: Tensor, weights: Mapping[str, float], generator: torch.Generator | None
    ) -> Tensor:
        """∂/∂filters of the terms' energies, summed over the batch."""
        filters, _ = self._taken
        with torch.enable_grad():
            filters.requires_grad_(True)
            try:
                point = Point(batch, Code(code), self._model.decoder, None, generator)
                (slope,) = torch.autograd.grad(self._model.energy.total(point, weights).sum(), filters)
            finally:
                filters.requires_grad_(False)
        return slope

    def state(self) -> dict[str, Tensor]:
        return {"gradient": self._gradient, "square": self._square, "batches": torch.tensor(self._batches)}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """A run that began with another learner has no averages: they begin here."""
        self._reset()
        if tensors:
            device = self._square.device
            self._gradient, self._square = (tensors[key].clone().to(device) for key in ("gradient", "square"))
            self._batches = int(tensors["batches"])

    def select(self, units: Tensor) -> None:
        self._gradient = select_units(self._gradient, self._taken[1].unit_dims, units)
        self._square = self._square[units]

    @property
    def _taken(self) -> tuple[nn.Parameter, ParameterSpec]:
        """The filters, with how they learn: pruning makes new ones."""
        assert self._model.decoder is not None
        return next((value, spec) for name, value, spec in self._model.decoder.declared() if name == self._name)

    def _reset(self) -> None:
        filters, _ = self._taken
        self._gradient = torch.zeros_like(filters.detach())
        self._square = filters.detach().new_zeros(self._model.shapes.code_shape)
        self._batches = 0


def _units(filters: Tensor, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """A code's shape, filled up by ones so that it broadcasts against filters; None where its units are no axes of it.

    Units come first (local filters), or last (a dictionary).
    """
    rest = filters.dim() - len(shape)
    if rest > 0 and filters.shape[: len(shape)] == shape:
        return (*shape, *[1] * rest)
    if rest > 0 and filters.shape[rest:] == shape:
        return (*[1] * rest, *shape)
    return None
