"""Code target: the code that the data gives, for encoders that are trained on known codes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from groundstate.components import Regulariser


class CodeTarget(Regulariser):
    """½‖z − z*‖² with the batch field ``target`` as z*; acts in learning alone, since inference may not know z*."""

    quadratic = True

    class Config(Regulariser.Config):
        acts: Literal["inference", "learning", "both"] | None = Field(
            "learning", description="where the term acts; by default in learning alone"
        )

    def energy(self, z: Tensor, target: Tensor) -> Tensor:
        """z, target: (batch, *code_shape). Returns (batch,)."""
        return 0.5 * (z - target).flatten(1).square().sum(1)

    def gradient(self, z: Tensor, target: Tensor) -> Tensor:
        return z - target

    def metrics(self, z: Tensor, target: Tensor) -> dict[str, Tensor]:
        """error, signal: ‖z − z*‖² and ‖z*‖²; the ratio of their means is the NMSE."""
        return {
            "error": (z - target).flatten(1).square().sum(1),
            "signal": target.flatten(1).square().sum(1),
        }

    def formula(self) -> str:
        return "½‖z − z*‖²"
