"""How well a linear classifier does on a trained model's features where labels are few."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from groundstate.data import Source, Splits
from groundstate.errors import InputError
from groundstate.stack import Stack

STRENGTHS = (0.1, 1.0, 10.0, 100.0, 1000.0, 10_000.0)
"""Inverse strengths C of the ridge penalty that are tried, for centred features of unit mean square norm."""
FOLDS = 5
MAX_ITERATIONS = 300
TOLERANCE = 1e-5
"""Of the gradient's largest entry: features of norm 1 have small entries, so that a coarser one stops at once."""
BATCH = 500

Rows = NDArray[np.int64]
Features = NDArray[np.float32]


@dataclass(frozen=True)
class FewLabels:
    """Test error (a share) of each draw of so many labels per class; strengths: the C that each draw chose."""

    per_class: int
    errors: tuple[float, ...]
    strengths: tuple[float, ...]

    @property
    def error(self) -> float:
        """The mean over the draws."""
        return mean(self.errors)

    @property
    def spread(self) -> float:
        """The standard deviation over the draws; 0 of one draw."""
        return stdev(self.errors) if len(self.errors) > 1 else 0.0


def evaluate_few_labels(
    stack: Stack,
    splits: Splits,
    per_class: Sequence[int],
    *,
    draws: int | Mapping[int, int] = 10,
    seed: int = 0,
    follow: Callable[[FewLabels], None] = lambda found: None,
) -> list[FewLabels]:
    """Logistic regression on features, for each number of labels per class and each draw of them.

    Labelled samples are drawn from the training part, every class alike; C is chosen on the validation part, and by
    cross-validation on the drawn labels where there is none. The test part is only reported. All features are held
    in memory. draws: as many for each number of labels, or how many for which. InputError where data has no labels,
    no test part, or fewer labels of a class than are asked for.
    """
    require_labels(splits, per_class)
    assert splits.test is not None
    test, test_labels = _features(stack, splits.test)
    labels = _labels(splits.train)
    times = {count: draws if isinstance(draws, int) else draws[count] for count in per_class}
    drawn = {(count, draw): draw_rows(labels, count, seed, draw) for count in per_class for draw in range(times[count])}
    rows = np.unique(np.concatenate(list(drawn.values())))
    train, _ = _features(stack, splits.train, rows)
    held = None if splits.validation is None else _features(stack, splits.validation)
    middle = train.mean(0)
    scale = float(np.sqrt(np.square(train - middle, dtype=np.float64).sum(1).mean())) or 1.0
    for part in (train, test, *(() if held is None else held[:1])):
        part -= middle
        part /= scale
    results = []
    for count in per_class:
        figures = []
        for draw in range(times[count]):
            chosen = drawn[count, draw]
            x, y = train[np.searchsorted(rows, chosen)], labels[chosen]
            model, strength = _fit(x, y, held, count)
            figures.append((float(np.mean(model.predict(test) != test_labels)), strength))
        errors, strengths = zip(*figures, strict=True)
        results.append(FewLabels(count, errors, strengths))
        follow(results[-1])
    return results


def require_labels(splits: Splits, per_class: Sequence[int]) -> None:
    """Refuse data without labels or a test part, and more labels per class than it has."""
    if splits.test is None or "y" not in splits.train.names or splits.classes is None:
        raise InputError("labels per class need data with labels and a test part; this data has not both")
    if min(per_class) < 1:
        raise InputError(f"{min(per_class)} labels per class teach nothing; at least one is needed")
    counts = np.bincount(_labels(splits.train), minlength=splits.classes)
    fewest = int(counts.argmin())
    if max(per_class) > counts[fewest]:
        raise InputError(
            f"{max(per_class)} labels per class are asked for, but the training part has only "
            f"{counts[fewest]} samples of class {fewest}"
        )


def _fit(x: Features, y: Rows, held: tuple[Features, Rows] | None, count: int) -> tuple[Any, float]:
    """The classifier, and the C that does best on held-out samples or on folds of these."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    def classifier(strength: float) -> Any:
        return LogisticRegression(C=strength, max_iter=MAX_ITERATIONS, tol=TOLERANCE)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a fit stops at its last iteration: the held-out error judges it
        if held is not None:
            return _best_of_path(classifier(STRENGTHS[0]).set_params(warm_start=True), x, y, held)
        if count < 2:
            return classifier(STRENGTHS[len(STRENGTHS) // 2]).fit(x, y), STRENGTHS[len(STRENGTHS) // 2]
        folds = StratifiedKFold(min(FOLDS, count), shuffle=True, random_state=0)
        scores = {
            strength: float(cross_val_score(classifier(strength), x, y, cv=folds).mean()) for strength in STRENGTHS
        }
        best = max(scores, key=lambda strength: scores[strength])
        return classifier(best).fit(x, y), best


def _best_of_path(model: Any, x: Features, y: Rows, held: tuple[Features, Rows]) -> tuple[Any, float]:
    """From the strongest penalty on, each fit begins at the one before; the first that is worse ends the search."""
    best, chosen, highest = model, STRENGTHS[0], -1.0
    for strength in STRENGTHS:
        model.set_params(C=strength).fit(x, y)
        score = float(np.mean(model.predict(held[0]) == held[1]))
        if score < highest:
            break
        best, chosen, highest = copy(model), strength, score
    return best, chosen


def draw_rows(labels: Rows, count: int, seed: int, draw: int) -> Rows:
    """Row numbers of ``count`` samples of each class."""
    generator = np.random.default_rng([seed, count, draw])
    classes = np.unique(labels)
    return np.concatenate([generator.choice(np.flatnonzero(labels == one), count, replace=False) for one in classes])


def _batches(source: Source, rows: Rows | None) -> Iterable[torch.Tensor]:
    order = torch.arange(len(source)) if rows is None else torch.from_numpy(rows)
    return torch.split(order, BATCH)


def _features(stack: Stack, source: Source, rows: Rows | None = None) -> tuple[Features, Rows]:
    """Flat features of some samples, or of all, and their labels."""
    parts, labels = [], []
    for some in _batches(source, rows):
        batch = source.read(some)
        parts.append(stack.encode(batch.x).flatten(1).float().cpu().numpy())
        labels.append(batch.fields["y"].numpy())
    return np.concatenate(parts), np.concatenate(labels)


def _labels(source: Source) -> Rows:
    return np.concatenate([source.read(some).fields["y"].numpy() for some in _batches(source, None)])
