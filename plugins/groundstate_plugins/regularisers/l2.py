"""Ridge: half the squared norm of the code; beside L1 it makes the elastic net."""

from __future__ import annotations

from torch import Tensor

from groundstate.components import Regulariser
from groundstate.structure import Ridge


class L2(Regulariser):
    """½‖z‖². Smooth: it adds its weight to the curvature of the problem, which makes any code unique."""

    quadratic = True

    def energy(self, z: Tensor) -> Tensor:
        """z: (batch, *code_shape). Returns (batch,)."""
        return 0.5 * z.flatten(1).square().sum(1)

    def gradient(self, z: Tensor) -> Tensor:
        return z

    def structure(self) -> Ridge:
        return Ridge()

    def formula(self) -> str:
        return "½‖z‖²"
