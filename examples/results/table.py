"""The page examples/RESULTS.md, made from the records that protocols left."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lab import Row

RECORDS = Path("examples") / "results" / "records"
PICTURES = Path("docs") / "pictures"
PAGE = Path("examples") / "RESULTS.md"
LISTED = 4

HEAD = """\
<!-- made by `make results NAME=…` from examples/results/records; edit nothing here -->
# Results

Each row comes from real runs, by the command in its last column. *must* and *goal* are what the project asks of
itself; *measured* is the mean over seeds ± their standard deviation. Hyperparameters and the best epoch are chosen on
validation data; test data is only measured. Below: the runs behind each figure, and a picture of each system.
"""


def page(root: Path) -> str:
    """The whole page, from every record under ``root``."""
    records = {
        file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted((root / RECORDS).glob("*.json"))
    }
    parts = [HEAD, _figures(records), "## Runs\n", _runs(records)]
    parts += [_section(root, name, record) for name, record in records.items()]
    return "\n".join(parts)


def _figures(records: Mapping[str, Any]) -> str:
    head = ("system", "figure", "must", "goal", "measured", "seeds", "elsewhere", "date", "command")
    lines = []
    for name, record in records.items():
        for number, values in enumerate(record["rows"]):
            row = Row(**values)
            lines.append(
                (
                    record["title"] if number == 0 else "",
                    row.figure,
                    _asked(row, row.must),
                    _asked(row, row.goal),
                    measured(row),
                    str(len(row.values)),
                    row.reference,
                    record["date"] if number == 0 else "",
                    f"`make results NAME={name}`" if number == 0 else "",
                )
            )
    return _table(head, lines)


def _asked(row: Row, asked: str) -> str:
    mark = {True: " ✓", False: " ✗", None: ""}[row.reached(asked)]
    return f"{asked}{mark}"


def measured(row: Row) -> str:
    """Mean ± spread, to two digits of the spread (three of the mean where there is none)."""
    if row.spread is None:
        return f"{row.mean:.3g}"
    digits = max(0, min(4, 1 - _exponent(row.spread))) if row.spread > 0 else 2
    return f"{row.mean:.{digits}f} ± {row.spread:.{digits}f}"


def _exponent(value: float) -> int:
    return int(f"{value:e}".partition("e")[2])


def _runs(records: Mapping[str, Any]) -> str:
    head = ("system", "model", "seeds", "config", "seconds each", "commit", "versions", "MLflow runs")
    lines = []
    for name, record in records.items():
        by_label: dict[str, list[Mapping[str, Any]]] = {}
        for run in record["runs"]:
            by_label.setdefault(run["label"], []).append(run)
        versions = ", ".join(f"{key} {record['versions'][key]}" for key in ("groundstate", "torch", "python"))
        for number, (label, runs) in enumerate(by_label.items()):
            lines.append(
                (
                    name if number == 0 else "",
                    label,
                    _listed(str(run["seed"]) for run in runs),
                    _listed(run["config_hash"][:8] for run in runs),
                    _listed(f"{run['seconds']:.0f}" for run in runs),
                    _listed(run["commit"][:8] for run in runs),
                    versions if number == 0 else "",
                    _listed(run["mlflow"][:8] or "–" for run in runs),
                )
            )
    return _table(head, lines)


def _listed(words: Iterable[str]) -> str:
    """Each word once; of many the first ones, since the record holds all."""
    found = list(dict.fromkeys(words))
    return ", ".join(found if len(found) <= LISTED else [*found[:LISTED], f"… ({len(found)})"])


def _section(root: Path, name: str, record: Mapping[str, Any]) -> str:
    notes = [f"- {row['figure']}: {row['note']}" for row in record["rows"] if row["note"]]
    parts = [f"\n## {record['title']}\n"]
    parts += [f"{record['finding']}\n"] if record["finding"] else []
    parts += ["\n".join(notes) + "\n"] if notes else []
    if (root / PICTURES / f"{name}.png").is_file():
        parts.append(f"![{record['caption']}](../{PICTURES.as_posix()}/{name}.png)\n\n*{record['caption']}*\n")
    return "\n".join(parts)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines) + "\n"
