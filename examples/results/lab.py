"""What a protocol measures with: real data, trained runs, rows of figures, a picture."""

from __future__ import annotations

import fcntl
import os
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundstate import InputError, Model, load, provenance
from groundstate.compare import final_metrics, read_record
from groundstate.config import LoadedConfig, config_hash, load_config
from groundstate.run import RECORD, Run, open_run, resume_run, train
from groundstate_plugins.trackers.spool import Delivered

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DATA_VARIABLE = "GROUNDSTATE_DATA"
PICTURE_BYTES = 150_000


@dataclass(frozen=True)
class Row:
    """One figure of a system.

    values: one per seed, in the figure's unit. must, goal: what is asked, e.g. "≤ 1.12"; "–" where nothing is.
    reference: the same figure elsewhere, with its source. note: what a reader must know of how it was taken.
    """

    figure: str
    values: Sequence[float]
    must: str = "–"
    goal: str = "–"
    reference: str = ""
    note: str = ""

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def spread(self) -> float | None:
        """Standard deviation over the seeds (m − 1 in the denominator); None for a single one."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def reached(self, asked: str) -> bool | None:
        """Whether the mean keeps a bound such as "≤ 1.12"; None where ``asked`` is none."""
        bound = re.fullmatch(r"([≤≥<>]) *([−-]?[\d.]+).*", asked)
        if bound is None:
            return None
        limit = float(bound[2].replace("−", "-"))
        return {"≤": self.mean <= limit, "≥": self.mean >= limit, "<": self.mean < limit, ">": self.mean > limit}[
            bound[1]
        ]


@dataclass(frozen=True)
class Trained:
    """A finished run of a protocol, and its folder. label: which of the protocol's models it is."""

    label: str
    folder: Path

    @cached_property
    def record(self) -> dict[str, Any]:
        return read_record(self.folder)

    @cached_property
    def metrics(self) -> dict[str, float]:
        return final_metrics(self.folder, self.record)

    @cached_property
    def model(self) -> Model:
        return load(self.folder)

    def opened(self) -> Run:
        """The run with its data; its model is not the trained one."""
        return open_run(self.folder)

    def said(self) -> dict[str, Any]:
        """Where a figure comes from."""
        return {
            "label": self.label,
            "run": self.record["id"],
            "seed": self.record["seed"],
            "config_hash": self.record["config_hash"],
            "seconds": self.metrics["seconds"],
            "mlflow": Delivered.load(self.folder).run_id,
            "commit": (self.record["git"] or {}).get("commit", ""),
        }


class Lab:
    """Gives a protocol its data and its trained runs, and keeps what it measures.

    root: of the repository. data: holds the data folders. runs: holds the runs, where finished ones of the same
    config are found again.
    """

    def __init__(self, root: Path, data: Path, runs: Path, seeds: Sequence[int]) -> None:
        self.root = root
        self.data_folder = data
        self.runs_folder = runs
        self.seeds = seeds
        self.rows: list[Row] = []
        self.trained: list[Trained] = []
        self.figure: Figure | None = None
        self.caption = ""
        self.finding = ""

    def data(self, name: str) -> Path:
        """A folder of real data; InputError where it is missing."""
        folder = self.data_folder / name
        if not folder.is_dir():
            raise InputError(
                f"there is no folder {folder}: name the one that holds {name}/ by --data or {DATA_VARIABLE}"
            )
        return folder.resolve()

    def train(
        self,
        config: str | Mapping[str, Any],
        overrides: Mapping[str, Any] | None = None,
        *,
        label: str = "",
        seeds: Sequence[int] | None = None,
    ) -> list[Trained]:
        """One finished run per seed: those that are there already, resumed or new.

        config: the name of a file in examples/, or a mapping. label: names this model among the protocol's.
        """
        source = self.root / "examples" / f"{config}.toml" if isinstance(config, str) else config
        runs = []
        for seed in self.seeds if seeds is None else seeds:
            given = {**(overrides or {}), "seed": seed, "output.folder": str(self.runs_folder)}
            runs.append(Trained(label, self._run(load_config(source, given))))
        self.trained += runs
        return runs

    def _run(self, loaded: LoadedConfig) -> Path:
        wanted = config_hash(loaded.config)
        with _only_one(self.runs_folder / f".{wanted[:16]}.lock"):
            found = [file.parent for file in self.runs_folder.glob(f"*/{RECORD}") if _hash_of(file.parent) == wanted]
            finished = [folder for folder in found if read_record(folder)["status"] == "finished"]
            if finished:
                return max(finished, key=lambda folder: folder.stat().st_mtime)
            return (resume_run(found[-1]) if found else train(loaded)).folder

    def row(self, figure: str, values: Sequence[float], **said: str) -> Row:
        """Keep one row of the table (see Row)."""
        self.rows.append(Row(figure, [float(value) for value in values], **said))
        return self.rows[-1]

    def picture(self, figure: Figure, caption: str) -> None:
        """Keep the protocol's picture; the caption says what to see in it."""
        self.figure, self.caption = figure, caption

    def record(self) -> dict[str, Any]:
        """What was measured, as plain values."""
        # a protocol without runs of its own was measured here and now
        first = (
            self.trained[0].record if self.trained else {"versions": provenance.versions(), "host": provenance.host()}
        )
        return {
            "rows": [asdict(row) for row in self.rows],
            "runs": [run.said() for run in self.trained],
            "versions": first.get("versions", {}),
            "host": first.get("host", {}),
            "caption": self.caption,
            "finding": self.finding,
        }


def _hash_of(folder: Path) -> str:
    try:
        record = read_record(folder)
        # what pruning left was not made by its config alone
        return "" if record.get("pruned") else str(record["config_hash"])
    except (OSError, ValueError, KeyError):
        return ""  # a damaged record is no run to go on with


@contextmanager
def _only_one(lock: Path) -> Iterator[None]:
    """Two protocols that need the same run train it once: the second waits."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def default_data(root: Path) -> Path:
    """GROUNDSTATE_DATA, else shared/data beside the repository."""
    return Path(os.environ.get(DATA_VARIABLE) or root.parent / "shared" / "data")
