"""Cardinality: codes of a few entries."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field
from torch import Tensor

from groundstate.components import Regulariser
from groundstate.problem import Step
from groundstate.structure import L1, Structure
from groundstate.structure import Cardinality as CardinalityStructure


class Cardinality(Regulariser):
    """‖z‖₀ ≤ k: a restriction in place of a price, 0 wherever it holds.

    It is not convex. Solver ``matching-pursuit`` is made for it; proximal solvers make it iterative hard thresholding
    (Blumensath & Davies 2008). The certificate is the fixed-point residual: where it is 0, no proximal step changes the
    code (Beck & Eldar 2013), though another support may fit better still.
    """

    class Config(Regulariser.Config):
        keep: int = Field(ge=1, description="k, the largest number of entries that are not 0")

    examples = ({"keep": 3},)

    def contains(self, z: Tensor) -> Tensor:
        """z: (batch, *code_shape). Returns (batch,) bool."""
        inside: Tensor = (z.flatten(1) != 0).sum(1) <= self.config.keep
        return inside

    def energy(self, z: Tensor) -> Tensor:
        """z: (batch, *code_shape). Returns zeros (batch,); outside of the set too, where the prox never leads."""
        return z.new_zeros(len(z))

    def prox(self, v: Tensor, step: Step) -> Tensor:
        """The k entries of largest magnitude, the others 0, whatever the step."""
        flat = v.flatten(1)
        kept = flat.abs().topk(min(self.config.keep, flat.shape[1]), dim=1).indices
        return flat.new_zeros(flat.shape).scatter(1, kept, flat.gather(1, kept)).view_as(v)

    def prox_after(self, earlier: Sequence[Structure | None]) -> bool:
        """A soft threshold keeps the order of magnitudes, and what an entry is worth grows with its magnitude."""
        return all(isinstance(form, L1) and not form.non_negative for form in earlier)

    def structure(self) -> CardinalityStructure:
        return CardinalityStructure(count=self.config.keep)

    def formula(self) -> str:
        return f"‖z‖₀ ≤ {self.config.keep}"
