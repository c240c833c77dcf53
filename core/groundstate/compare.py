"""Runs side by side: which there are, and in what two of them differ."""

from __future__ import annotations

import json
import time
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from groundstate.history import read_history

CONFIG, RECORD, METRICS = "config.toml", "run.json", "metrics.jsonl"
SILENT_SECONDS = 600
"""A run that says it is running but has written nothing for so long is told apart."""
TIMINGS = ("seconds", "samples_per_second")
"""Figures that differ between two runs of one config on one machine."""
PLACES = ("name", "output", "tracking", "callbacks")
"""Tables of a config that change no number of a run."""

Change = tuple[Any, ...]
"""What each run has."""


@dataclass(frozen=True)
class Summary:
    """One run as a line of a list. figure: the value of ``metric``, the one its config monitors, or its energy."""

    id: str
    status: str
    created: str
    seconds: float | None
    config_hash: str
    metric: str | None
    figure: float | None
    parent: str | None
    problem: str | None = None

    def record(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Difference:
    """In what runs differ: by key, what each has, None where one has it not."""

    config: Mapping[str, Change]
    code: Mapping[str, Change]
    data: Mapping[str, Change]
    machine: Mapping[str, Change]
    figures: Mapping[str, Change]

    def record(self) -> dict[str, dict[str, list[Any]]]:
        return {part: {key: list(pair) for key, pair in found.items()} for part, found in vars(self).items()}


def list_runs(folder: Path) -> list[Summary]:
    """Every run in a folder of runs, the newest last; one whose record cannot be read says so."""
    found = [summarise(file.parent) for file in folder.glob(f"*/{RECORD}")]
    return sorted(found, key=lambda summary: (summary.created, summary.id))


def summarise(folder: Path) -> Summary:
    """One run's line."""
    try:
        record, config = read_record(folder), read_config(folder)
    except (OSError, ValueError) as error:
        return Summary(folder.name, "unreadable", "", None, "", None, None, None, f"{type(error).__name__}: {error}")
    metrics = final_metrics(folder, record)
    wanted = config.get("learning", {}).get("monitor") or None
    candidates = (wanted, "validation/energy", "test/energy", "energy")
    metric = next((name for name in candidates if name and name in metrics), wanted)
    return Summary(
        id=record.get("id", folder.name),
        status=_status(folder, record),
        created=record.get("created", ""),
        seconds=metrics.get("seconds"),
        config_hash=record.get("config_hash", ""),
        metric=metric,
        figure=metrics.get(metric) if metric is not None else None,
        parent=(record.get("parent") or {}).get("id"),
        problem=record.get("error"),
    )


def _status(folder: Path, record: Mapping[str, Any]) -> str:
    status = str(record.get("status", "unknown"))
    if status != "running":
        return status
    touched = max(file.stat().st_mtime for file in folder.iterdir() if file.is_file())
    return status if time.time() - touched < SILENT_SECONDS else "running?"


def read_record(folder: Path) -> dict[str, Any]:
    """What run.json holds. ValueError where it is damaged."""
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    if not isinstance(record, dict):
        raise ValueError(f"{RECORD} holds no record")
    return record


def read_config(folder: Path) -> dict[str, Any]:
    """The run's resolved config as plain tables."""
    return tomllib.loads((folder / CONFIG).read_text(encoding="utf-8"))


def final_metrics(folder: Path, record: Mapping[str, Any]) -> dict[str, float]:
    """The figures of a finished run; of another, the last value of each metric."""
    if record.get("metrics"):
        return dict(record["metrics"])
    values: dict[str, float] = {}
    for line in read_history(folder / METRICS):
        values |= line.values
    return values


def diff_runs(*folders: Path) -> Difference:
    """In what runs differ; timings are no figures."""
    records = [read_record(folder) for folder in folders]
    figures = [
        {name: value for name, value in final_metrics(folder, record).items() if name not in TIMINGS}
        for folder, record in zip(folders, records, strict=True)
    ]
    configs = [
        {key: value for key, value in flat(read_config(folder)).items() if key.partition(".")[0] not in PLACES}
        for folder in folders
    ]
    return Difference(
        config=changes(*configs),
        code=changes(*(_code(record) for record in records)),
        data=changes(*(flat(record.get("data") or {}) for record in records)),
        machine=changes(*(flat(record.get("host") or {}) for record in records)),
        figures=changes(*figures),
    )


def _code(record: Mapping[str, Any]) -> dict[str, Any]:
    git = record.get("git") or {}
    return {
        "commit": git.get("commit"),
        "uncommitted changes": git.get("dirty"),
        **{f"version of {name}": version for name, version in (record.get("versions") or {}).items()},
    }


def flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables by dotted key."""
    values: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            values |= flat(value, f"{prefix}{key}.")
        else:
            values[f"{prefix}{key}"] = value
    return values


def changes(*tables: Mapping[str, Any]) -> dict[str, Change]:
    """Keys whose values are not the same in all tables, with each table's."""
    keys = dict.fromkeys(key for table in tables for key in table)
    rows = {key: tuple(table.get(key) for table in tables) for key in keys}
    return {key: row for key, row in rows.items() if any(value != row[0] for value in row)}
