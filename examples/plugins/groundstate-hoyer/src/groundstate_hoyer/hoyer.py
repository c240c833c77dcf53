from pydantic import Field
from torch import Tensor

from groundstate import Regulariser


class Hoyer(Regulariser):
    """Scale-invariant sparsity (‖z‖₁/‖z‖₂)² (Hoyer 2004)."""

    class Config(Regulariser.Config):
        epsilon: float = Field(1e-8, gt=0, description="least ‖z‖₂ that is divided by; > 0")

    def energy(self, z: Tensor) -> Tensor:
        z = z.flatten(1)
        return (z.abs().sum(1) / z.norm(dim=1).clamp_min(self.config.epsilon)) ** 2
