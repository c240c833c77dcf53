"""L1: the sum of absolute values, for sparse codes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field
from torch import Tensor

from groundstate.components import Regulariser
from groundstate.problem import Step, soft_threshold
from groundstate.structure import L1 as L1Structure
from groundstate.structure import Structure


class L1(Regulariser):
    """‖z‖₁, optionally restricted to codes z ≥ 0."""

    norm = True

    class Config(Regulariser.Config):
        non_negative: bool = Field(False, description="restrict codes to z ≥ 0")

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        self.non_negative = self.config.non_negative

    def energy(self, z: Tensor) -> Tensor:
        """z: (batch, *code_shape). Returns (batch,); finite outside z ≥ 0 too, where the prox never leads."""
        return z.flatten(1).abs().sum(1)

    def prox(self, v: Tensor, step: Step) -> Tensor:
        """Soft threshold sign(v)·max(|v| − step, 0), or max(v − step, 0) for non-negative codes."""
        return soft_threshold(v, step, non_negative=self.non_negative)

    def dual_norm(self, c: Tensor) -> Tensor:
        """max_i |c_i|, or max_i max(c_i, 0) for non-negative codes; c: (batch, *code_shape)."""
        flat = c.flatten(1)
        return flat.amax(1).clamp_min(0) if self.non_negative else flat.abs().amax(1)

    def prox_after(self, earlier: Sequence[Structure | None]) -> bool:
        """Soft thresholds add up: S_a ∘ S_b = S_{a+b}, with z ≥ 0 or without."""
        return all(isinstance(form, L1Structure) for form in earlier)

    def structure(self) -> L1Structure:
        return L1Structure(non_negative=self.non_negative)

    def formula(self) -> str:
        return "‖z‖₁, z ≥ 0" if self.non_negative else "‖z‖₁"
