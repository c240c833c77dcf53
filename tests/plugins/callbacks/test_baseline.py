"""The baseline: logistic regression as anyone would fit it with scikit-learn, on what the data calls raw."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from groundstate.data import Splits, TensorSource
from groundstate.run import train
from groundstate_plugins.callbacks.baseline import METRIC, Baseline
from groundstate_plugins.data.digits import Digits


def arrays(source: TensorSource) -> tuple[object, object]:
    return source.fields["x"].numpy(), source.fields["y"].numpy()


def errors_by_hand(splits: Splits, strength: float) -> tuple[float, float]:
    """Validation and test error of one C, step by step."""
    (inputs, labels), held, test = arrays(splits.train), arrays(splits.validation), arrays(splits.test)
    scaler = StandardScaler().fit(inputs)
    model = LogisticRegression(C=strength, max_iter=1000).fit(scaler.transform(inputs), labels)
    return tuple(float((model.predict(scaler.transform(x)) != y).mean()) for x, y in (held, test))


def labelled(seed: int, samples: int = 60) -> TensorSource:
    """Two clouds in the plane that overlap."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(samples) % 2
    return TensorSource(x=torch.randn(samples, 2, generator=generator) + y[:, None], y=y)


def test_strength_is_chosen_on_validation() -> None:
    splits = Digits().raw()
    strengths = (0.01, 1.0)
    by_hand = {strength: errors_by_hand(splits, strength) for strength in strengths}
    best = min(strengths, key=lambda strength: by_hand[strength][0])
    fit = Baseline(strengths=strengths).fit(splits)
    assert fit.strength == best
    assert fit.error == pytest.approx(by_hand[best][1])
    assert fit.error < 0.1


def test_without_validation_the_middle_strength_is_taken() -> None:
    splits = Splits(labelled(0), None, labelled(1), "", 2)
    assert Baseline(strengths=(100.0, 0.1, 1.0)).fit(splits).strength == 1.0


def test_samples_are_drawn_not_taken_from_the_front() -> None:
    parts = [labelled(seed, 200) for seed in range(3)]
    order = parts[0].fields["y"].argsort(stable=True)  # the first half has one class only
    train_part = TensorSource(**{name: value[order] for name, value in parts[0].fields.items()})
    fit = Baseline(samples=50).fit(Splits(train_part, parts[1], parts[2], "", 2))
    assert 0.1 < fit.error < 0.4


def test_raw_inputs_are_used_where_the_data_has_them() -> None:
    baseline = Baseline(strengths=(1.0,))
    data = Digits(scale="unit-norm")
    metrics = baseline.final_metrics(SimpleNamespace(data=data, inputs=data.load(0)))
    assert metrics == {METRIC: pytest.approx(errors_by_hand(Digits(scale="none").load(0), 1.0)[1])}


def test_data_without_labels_or_test_split_has_no_baseline() -> None:
    bare = TensorSource(x=torch.randn(20, 2))
    for splits in (Splits(bare, bare, bare, ""), Splits(labelled(0), labelled(1), None, "", 2)):
        assert Baseline().final_metrics(SimpleNamespace(data=object(), inputs=splits)) == {}


def test_figure_is_in_the_record_and_beside_the_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = train(
        {
            "name": "small",
            "data": {"type": "digits"},
            "model": {"encoder": {"type": "recurrent", "steps": 2}, "decoder": {"type": "linear", "units": 20}},
            "energy": {
                "reconstruction": {"type": "squared-error"},
                "classification": {"type": "cross-entropy"},
            },
            "inference": {"type": "amortised"},
            "phases": {"joint": {"epochs": 1}},
            "backend": {"type": "cpu", "threads": 1},
            "tracking": False,
            "callbacks": {"progress": False, "baseline": {"type": "baseline", "strengths": [1.0], "label": "DrSAE"}},
            "output": {"folder": str(tmp_path)},
        }
    )
    record = json.loads((run.folder / "run.json").read_text())
    assert record["metrics"][METRIC] == pytest.approx(errors_by_hand(Digits().raw(), 1.0)[1])
    ours = 100 * (1 - record["metrics"]["test/classification/error"])
    theirs = 100 * (1 - record["metrics"][METRIC])
    said = f"test accuracy: DrSAE {ours:.1f} % · logistic regression on raw pixels {theirs:.1f} %"
    assert said in capsys.readouterr().err.splitlines()
