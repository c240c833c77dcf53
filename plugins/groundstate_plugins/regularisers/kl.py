"""How far an encoder's Gaussian is from the standard normal: noise, not sparsity, limits what a code can say."""

from __future__ import annotations

import math

from torch import Tensor

from groundstate.components import Code, Regulariser
from groundstate.errors import InputError


class GaussianKL(Regulariser):
    """KL(N(μ, σ²) ‖ N(0, 1)) = ½Σ(μ² + σ² − 1 − log σ²), in nats, of what the encoder shares.

    With the reconstruction ½‖x − Dz‖² its weight is the variance of the observation noise, β of Higgins et al. 2017.
    In inference μ and σ are constants, so that it moves no code.
    """

    def energy(self, code: Code) -> Tensor:
        """Returns (batch,). InputError where the encoder shares no mean and log σ²."""
        mean, log_variance = code.mean, code.log_variance
        if mean is None or log_variance is None:
            raise InputError(
                "the divergence needs the mean and the log variance of the code, and the encoder shares none; "
                "choose [model.encoder] type = 'gaussian'"
            )
        return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).sum(1)

    def metrics(self, code: Code) -> dict[str, Tensor]:
        """bits: the divergence in bits, the rate at which the code tells of the input."""
        return {"bits": self.energy(code) / math.log(2)}

    def formula(self) -> str:
        return "½Σ(μ² + σ² − 1 − log σ²)"
