"""Multinomial logistic loss of the label given the code."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from groundstate.components import Context, Task
from groundstate.errors import InputError
from groundstate.parameters import NormBound

START = 0.01
"""Spread of the first weights: all classes start nearly equally likely."""


class CrossEntropy(Task):
    """−log softmax(C z + c)_y, with z/‖z‖ in place of z where ``normalise``.

    Parameters: ``weight`` C (classes, *code_shape), ``bias`` c (classes,).
    Rolfe & LeCun 2013 use ``normalise`` and rows of norm at most 5.
    """

    weight: Tensor
    bias: Tensor | None

    class Config(Task.Config):
        normalise: bool = Field(False, description="score z/‖z‖ instead of z")
        bound: float | None = Field(5.0, gt=0, description="largest norm of a row of C; none for no bound")
        bias: bool = Field(True, description="add a constant per class")

    def build(self, context: Context) -> None:
        if context.classes is None:
            raise InputError(
                "the task needs labels, but the data has none; choose data with a field y or remove the task"
            )
        bound, code_axes = self.config.bound, tuple(range(1, 1 + len(context.code_shape)))
        self.declare(
            "weight",
            START * context.randn(context.classes, *context.code_shape),
            constraint=None if bound is None else NormBound(code_axes, bound),
            unit_dims=(1,),
        )
        if self.config.bias:
            self.declare("bias", torch.zeros(context.classes))
        else:
            self.bias = None

    def predict(self, z: Tensor) -> Tensor:
        """Scores (batch, classes), the larger the likelier; z: (batch, *code_shape)."""
        flat, weight = z.flatten(1), self.weight.flatten(1)
        scores: Tensor = functional.linear(flat, weight, None if self.config.normalise else self.bias)
        if not self.config.normalise:
            return scores
        norm = flat.norm(dim=1, keepdim=True)
        # at z = 0 the direction is undefined: no score but the constants, and no gradient
        scores = scores * ((norm > 0) / norm.clamp_min(torch.finfo(z.dtype).eps))
        return scores if self.bias is None else scores + self.bias

    def probabilities(self, z: Tensor) -> Tensor:
        """The probability of each class, (batch, classes); z: (batch, *code_shape)."""
        return self.predict(z).softmax(1)

    def energy(self, z: Tensor, y: Tensor) -> Tensor:
        """y: (batch,) int64 labels in [0, classes). Returns (batch,)."""
        self._check_labels(y)
        loss: Tensor = functional.cross_entropy(self.predict(z), y, reduction="none")
        return loss

    def metrics(self, z: Tensor, y: Tensor) -> dict[str, Tensor]:
        """error: 1 where the likeliest class is not the label."""
        self._check_labels(y)
        return {"error": (self.predict(z).argmax(1) != y).to(z.dtype)}

    def _check_labels(self, y: Tensor) -> None:
        if y.dim() != 1 or y.is_floating_point():
            raise InputError(f"labels must be whole numbers, one per sample; y is {y.dtype} of shape {tuple(y.shape)}")
        low, high = (int(value) for value in torch.aminmax(y))
        if low < 0 or high >= len(self.weight):
            wrong = low if low < 0 else high
            raise InputError(f"label {wrong} is out of range: the model has classes 0 to {len(self.weight) - 1}")

    def formula(self) -> str:
        return "−log softmax(C z/‖z‖)_y" if self.config.normalise else "−log softmax(C z)_y"
