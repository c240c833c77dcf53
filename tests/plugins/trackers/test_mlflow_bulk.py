"""Rows in a database's own table against what MLflow makes of the same metrics itself."""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from groundstate_plugins.trackers.mlflow_bulk import insert_rows, split_latest, takes_rows


@pytest.fixture
def two_runs(client: Any) -> Iterator[tuple[str, str]]:
    experiment = client.create_experiment("bulk")
    yield client.create_run(experiment).info.run_id, client.create_run(experiment).info.run_id
    client.delete_experiment(experiment)


def metrics() -> list[Any]:
    from mlflow.entities import Metric

    odd = [Metric("odd", value, 5, step) for step, value in enumerate((math.nan, math.inf, -math.inf, 1e-300))]
    return [*(Metric(name, step / 7, 1000 + step, step) for step in range(1, 40) for name in ("a", "b/c")), *odd]


def test_the_rows_are_those_that_mlflow_itself_writes(client: Any, two_runs: tuple[str, str]) -> None:
    assert takes_rows(client)
    own, theirs = two_runs
    client.log_batch(theirs, metrics=metrics())
    latest, others = split_latest(metrics())
    assert [metric.key for metric in latest] == ["a", "b/c", "odd"]
    assert len(latest) + len(others) == len(metrics())
    client.log_batch(own, metrics=latest)
    for _ in range(2):  # a second time changes nothing
        insert_rows(client, own, others)
    told = [
        {
            name: [(found.step, found.timestamp, repr(found.value)) for found in client.get_metric_history(run, name)]
            for name in ("a", "b/c", "odd")
        }
        for run in two_runs
    ]
    assert told[0] == told[1]
    assert client.get_run(own).data.metrics == client.get_run(theirs).data.metrics


def test_no_row_goes_to_a_run_that_is_not_there(client: Any) -> None:
    from sqlalchemy.exc import IntegrityError

    with pytest.raises(IntegrityError):
        insert_rows(client, "0" * 32, metrics())


def test_a_server_takes_no_rows() -> None:
    assert not takes_rows(SimpleNamespace(_tracking_client=SimpleNamespace(store=object())))  # type: ignore[arg-type]
