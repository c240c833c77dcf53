"""Many metrics into a database of MLflow's at once, by MLflow's own tables.

``log_batch`` makes an object of each value and flushes them one by one, about 0.1 ms of processor time a value: a run
that logs every step would keep a second core half busy beside its training, and slow that. Plain rows cost a tenth.
What a request does beyond the rows (whether the run takes metrics, names, the latest value of each) stays MLflow's:
the last value of every metric goes through ``log_batch``, and first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

COLUMNS = {"key", "value", "timestamp", "step", "is_nan", "run_uuid"}


def takes_rows(client: MlflowClient) -> bool:
    """Whether the client's store is a SQLite or PostgreSQL database whose table of metrics is the one known here."""
    from mlflow.store.tracking.dbmodels.models import SqlMetric
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store = _store(client)
    return (
        isinstance(store, SqlAlchemyStore)
        and store.engine.dialect.name in ("sqlite", "postgresql")
        and set(SqlMetric.__table__.columns.keys()) == COLUMNS
    )


def split_latest(metrics: Sequence[Metric]) -> tuple[list[Metric], list[Metric]]:
    """The last of each name, and all others."""
    last = {metric.key: metric for metric in metrics}
    return list(last.values()), [metric for metric in metrics if last[metric.key] is not metric]


def insert_rows(client: MlflowClient, run_id: str, metrics: Sequence[Metric]) -> None:
    """Add the rows, all or none; those that are there already stay as they are."""
    from mlflow.store.tracking.dbmodels.models import SqlMetric
    from sqlalchemy.dialects import postgresql, sqlite

    if not metrics:
        return
    store = _store(client)
    rows = []
    for metric in metrics:
        is_nan, value = store.sanitize_metric_value(metric.value)
        row = {"key": metric.key, "value": value, "timestamp": metric.timestamp, "step": metric.step}
        rows.append({**row, "is_nan": is_nan, "run_uuid": run_id})
    insert = sqlite.insert if store.engine.dialect.name == "sqlite" else postgresql.insert
    with store.engine.begin() as connection:
        connection.execute(insert(SqlMetric.__table__).on_conflict_do_nothing(), rows)


def _store(client: MlflowClient) -> Any:
    return client._tracking_client.store
