"""Few-label evaluation against scikit-learn on features made by hand, and its refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from groundstate.data import Splits, TensorSource
from groundstate.errors import InputError
from groundstate.few_labels import STRENGTHS, evaluate_few_labels
from groundstate.model import Model
from groundstate.stack import Layer, Stack
from groundstate_plugins.decoders.linear import LinearDecoder
from groundstate_plugins.encoders.linear import LinearEncoder
from groundstate_plugins.reconstructions.squared_error import SquaredError
from groundstate_plugins.solvers.amortised import Amortised

CLASSES, INPUTS = 3, 6


def source(samples: int, seed: int) -> TensorSource:
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(samples) % CLASSES
    centres = 1.5 * torch.eye(CLASSES, INPUTS)
    return TensorSource(x=centres[y] + torch.randn(samples, INPUTS, generator=generator), y=y)


def splits(train: int = 90, validation: bool = True) -> Splits:
    return Splits(source(train, 0), source(60, 1) if validation else None, source(300, 2), "", CLASSES)


def stack() -> Stack:
    model = Model(
        encoder=LinearEncoder(), decoder=LinearDecoder(units=8), terms={"data": SquaredError()}, solver=Amortised()
    )
    return Stack([Layer(model.build((INPUTS,)))])


def test_errors_are_those_of_logistic_regression_on_the_features() -> None:
    one, data = stack(), splits(90)
    (found,) = evaluate_few_labels(one, data, [30], draws=1)
    train, test = (one.encode(part.read(torch.arange(len(part))).x).numpy() for part in (data.train, data.test) if part)
    train, test = train - train.mean(0), test - train.mean(0)
    scale = np.sqrt((train**2).sum(1).mean())
    fit = LogisticRegression(C=found.strengths[0], max_iter=1000).fit(train / scale, np.arange(90) % CLASSES)
    expected = np.mean(fit.predict(test / scale) != np.arange(300) % CLASSES)
    assert found.error == pytest.approx(expected, abs=0.01)
    assert found.error < 0.45
    assert found.spread == 0


@pytest.mark.parametrize("validation", [True, False])
def test_more_labels_help_and_draws_repeat(validation: bool) -> None:
    data = splits(validation=validation)
    few, many = evaluate_few_labels(stack(), data, [2, 20], draws={2: 4, 20: 3})
    assert (len(few.errors), len(many.errors)) == (4, 3)
    assert many.error < few.error
    assert few.spread > 0
    assert set(few.strengths + many.strengths) <= set(STRENGTHS)
    again = evaluate_few_labels(stack(), data, [2, 20], draws={2: 4, 20: 3})
    assert again == [few, many]


def test_the_test_part_chooses_nothing() -> None:
    data = splits()
    (found,) = evaluate_few_labels(stack(), data, [5], draws=2)
    spoiled = Splits(data.train, data.validation, source(30, 9), "", CLASSES)
    (other,) = evaluate_few_labels(stack(), spoiled, [5], draws=2)
    assert found.strengths == other.strengths


def test_what_the_data_has_not_is_refused_in_one_sentence() -> None:
    with pytest.raises(InputError, match=r"31 labels per class are asked for, but .* only 30 samples of class 0"):
        evaluate_few_labels(stack(), splits(90), [10, 31])
    with pytest.raises(InputError, match="at least one is needed"):
        evaluate_few_labels(stack(), splits(90), [0])
    unlabelled = Splits(TensorSource(x=torch.zeros(4, INPUTS)), None, None, "")
    with pytest.raises(InputError, match="need data with labels and a test part"):
        evaluate_few_labels(stack(), unlabelled, [1])
