"""A task that asks for a margin between the classes."""

from pydantic import Field
from torch import Tensor
from torch.nn import functional

from groundstate import Context, InputError, NormBound, Task


class SquaredHinge(Task):
    """½ Σ_{c ≠ y} max(0, margin − s_y + s_c)², with linear scores s = C z (Crammer & Singer 2001, squared)."""

    scores: Tensor

    class Config(Task.Config):
        margin: float = Field(1.0, gt=0, description="by how much the right class must lead; > 0")
        bound: float = Field(5.0, gt=0, description="largest norm of a row of C; > 0")

    def build(self, context: Context) -> None:
        """C: (classes, *code_shape)."""
        if context.classes is None:
            raise InputError("squared-hinge needs labels, but the data has none; choose data with a field y")
        first = 0.01 * context.randn(context.classes, *context.code_shape)
        rows = NormBound(tuple(range(1, first.dim())), self.config.bound)
        self.declare("scores", first, constraint=rows, unit_dims=(1,))

    def predict(self, z: Tensor) -> Tensor:
        """Scores (batch, classes), the larger the likelier."""
        return functional.linear(z.flatten(1), self.scores.flatten(1))

    def energy(self, z: Tensor, y: Tensor) -> Tensor:
        """y: (batch,) whole numbers from 0. Returns (batch,)."""
        scores = self.predict(z)
        short = (self.config.margin - scores.gather(1, y[:, None]) + scores).clamp_min(0).square()
        # the right class falls short of itself by the margin, and does not count
        return 0.5 * (short.sum(1) - self.config.margin**2)

    def metrics(self, z: Tensor, y: Tensor) -> dict[str, Tensor]:
        """error: 1 where the class with the highest score is not the label."""
        return {"error": (self.predict(z).argmax(1) != y).to(z.dtype)}

    def formula(self) -> str:
        return "½ Σ max(0, m − s_y + s_c)²"
