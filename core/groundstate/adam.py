"""Adam by torch's fused kernel, called directly: in a small model what torch.optim does around it costs more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

BETAS = (0.9, 0.999)
DECAY = 0.01
"""Of AdamW alone."""


class FusedAdam:
    """The steps of ``torch.optim.Adam(fused=True)``, or of AdamW with ``decoupled``, to the last bit.

    groups: parameters by the factor on their learning rate. Each of ``param_groups`` has them as ``params``, the factor
    as ``multiplier`` and the rate of the next step as ``lr``. state: by parameter, ``step``, ``exp_avg`` and
    ``exp_avg_sq``.
    """

    def __init__(
        self,
        groups: Mapping[float, Sequence[nn.Parameter]],
        *,
        maximize: bool = False,
        decoupled: bool = False,
        epsilon: float = 1e-8,
    ) -> None:
        self.param_groups: list[dict[str, Any]] = []
        for multiplier, members in groups.items():
            # one call of the kernel takes one kind of tensor
            kinds: dict[tuple[torch.device, torch.dtype], list[nn.Parameter]] = {}
            for parameter in members:
                kinds.setdefault((parameter.device, parameter.dtype), []).append(parameter)
            self.param_groups += [{"params": kind, "multiplier": multiplier, "lr": 1e-3} for kind in kinds.values()]
        self.state: dict[nn.Parameter, dict[str, Tensor]] = {}
        self._kernel = torch._fused_adamw_ if decoupled else torch._fused_adam_
        self._maximize, self._decay, self._epsilon = maximize, DECAY if decoupled else 0.0, epsilon

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter that has a gradient."""
        for group in self.param_groups:
            moving = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not moving:
                continue
            states = [self.state.get(parameter) or self._begin(parameter) for parameter in moving]
            steps = [state["step"] for state in states]
            torch._foreach_add_(steps, 1)
            self._kernel(
                moving,
                [parameter.grad for parameter in moving],
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [],
                steps,
                lr=group["lr"],
                beta1=BETAS[0],
                beta2=BETAS[1],
                weight_decay=self._decay,
                eps=self._epsilon,
                amsgrad=False,
                maximize=self._maximize,
            )

    def _begin(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        state = {
            "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
            "exp_avg": torch.zeros_like(parameter, requires_grad=False),
            "exp_avg_sq": torch.zeros_like(parameter, requires_grad=False),
        }
        self.state[parameter] = state
        return state
