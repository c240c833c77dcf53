"""Code prediction: the code and what the encoder predicts of it pull each other together."""

from __future__ import annotations

from torch import Tensor

from groundstate.components import Regulariser


class CodePrediction(Regulariser):
    """½‖z − f_E(x)‖², in inference and in learning (predictive sparse decomposition, Kavukcuoglu et al. 2008).

    In inference the prediction is constant and z is drawn to it; in learning the encoder follows z.
    """

    quadratic = True

    def energy(self, z: Tensor, prediction: Tensor) -> Tensor:
        """z, prediction: (batch, …). Returns (batch,)."""
        return 0.5 * (z - prediction).flatten(1).square().sum(1)

    def gradient(self, z: Tensor, prediction: Tensor) -> Tensor:
        return z - prediction

    def formula(self) -> str:
        return "½‖z − f(x)‖²"
