"""What logistic regression on the inputs reaches: the figure that learned features have to beat."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Protocol, runtime_checkable

import torch
from pydantic import Field

from groundstate.components import Callback
from groundstate.data import Source, Splits
from groundstate.hooks import hookimpl

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from groundstate.run import Run

METRIC = "baseline/logistic-regression/error"


@runtime_checkable
class HasRaw(Protocol):
    """Data that also gives the same splits as they are stored, whatever scale the model is trained on."""

    def raw(self) -> Splits: ...


@dataclass(frozen=True)
class Fit:
    """A fitted baseline: the strength that did best on validation, and its share of wrong test labels."""

    strength: float
    error: float


class Baseline(Callback):
    """Fits logistic regression to the training split at the end of a run and sets its test error beside the model's.

    Each input is standardised. The inverse strength C of the L2 penalty is the one with the fewest errors on the
    validation split (the smallest of equals); the test split is looked at once. Does nothing for data without
    labels or without a test split. The metric is ``baseline/logistic-regression/error``.
    """

    class Config(Callback.Config):
        strengths: tuple[Annotated[float, Field(gt=0)], ...] = Field(
            (0.01, 0.1, 1.0, 10.0), min_length=1, description="values of C to choose from; > 0, small means simple"
        )
        samples: int | None = Field(None, ge=1, description="training samples to fit on; all by default")
        max_iterations: int = Field(200, ge=1, description="of one fit")
        label: str | None = Field(None, description="what the printed line calls the model; by default the run's name")

    @hookimpl
    def final_metrics(self, run: Run) -> Mapping[str, float]:
        splits = run.data.raw() if isinstance(run.data, HasRaw) else run.inputs
        if splits.test is None or "y" not in splits.train.names or "y" not in splits.test.names:
            return {}
        return {METRIC: self.fit(splits).error}

    def fit(self, splits: Splits) -> Fit:
        """Fit and choose; splits need labels y and a test part. Without validation, the middle strength is taken."""
        from sklearn.metrics import zero_one_loss

        assert splits.test is not None
        inputs, labels = _arrays(splits.train, self.config.samples)
        strengths = sorted(self.config.strengths)
        if splits.validation is None or len(strengths) == 1:
            best = strengths[len(strengths) // 2]
            model = self._fitted(best, inputs, labels)
        else:
            held, truth = _arrays(splits.validation)
            fitted = {strength: self._fitted(strength, inputs, labels) for strength in strengths}
            best = min(strengths, key=lambda strength: zero_one_loss(truth, fitted[strength].predict(held)))
            model = fitted[best]
        held, truth = _arrays(splits.test)
        return Fit(best, float(zero_one_loss(truth, model.predict(held))))

    def _fitted(self, strength: float, inputs: NDArray[np.float32], labels: NDArray[np.int64]) -> Any:
        from sklearn.exceptions import ConvergenceWarning

        with warnings.catch_warnings():
            # A strength that does not converge has its say on validation like any other.
            warnings.simplefilter("ignore", ConvergenceWarning)
            return self._pipeline(strength).fit(inputs, labels)

    def _pipeline(self, strength: float) -> Any:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=self.config.max_iterations))

    @hookimpl
    def run_ended(self, run: Run) -> None:
        if METRIC in run.metrics:
            print(self.comparison(run), file=sys.stderr, flush=True)

    def comparison(self, run: Run) -> str:
        """One line: the model's test accuracy, where a task measured it, beside the baseline's."""
        figures = [f"{self.config.label or run.name} {_accuracy(error)}" for error in _model_errors(run)]
        what = "pixels" if run.inputs.picture_shape is not None else "inputs"
        raw = f"raw {what}" if isinstance(run.data, HasRaw) else f"the model's {what}"
        figures.append(f"logistic regression on {raw} {_accuracy(run.metrics[METRIC])}")
        return f"test accuracy: {' · '.join(figures)}"


def _model_errors(run: Run) -> Sequence[float]:
    names = [f"test/{name}/error" for name, term in run.model.energy.terms.items() if term.role == "task"]
    return [run.metrics[name] for name in names if name in run.metrics][:1]


def _accuracy(error: float) -> str:
    return f"{100 * (1 - error):.1f} %"


def _arrays(source: Source, limit: int | None = None) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Flat inputs (samples, n) and labels (samples,)."""
    rows = torch.arange(len(source))
    if limit is not None and limit < len(source):  # drawn, since samples may stand in order of their labels
        rows = torch.randperm(len(source), generator=torch.Generator().manual_seed(0))[:limit].sort().values
    batch = source.read(rows)
    return batch.x.flatten(1).float().cpu().numpy(), batch.fields["y"].cpu().numpy()
