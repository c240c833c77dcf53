"""How every benchmark measures: contenders in turn in one process, medians, and ratios run by run."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
"""Where ``save`` writes, beside the scripts: one JSON file and one picture per benchmark."""

Reset, Peak = Path("/proc/self/clear_refs"), Path("/proc/self/status")


@dataclass(frozen=True)
class Lane:
    """One contender's times. seconds: of each repeat. peak_mib: largest resident memory of a repeat, where known."""

    name: str
    seconds: tuple[float, ...]
    peak_mib: float | None

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def race(contenders: Mapping[str, Callable[[], Any]], *, repeats: int = 7, warmup: int = 1) -> dict[str, Lane]:
    """Run every contender in turn, ``repeats`` times, the order reversed each time; the first rounds do not count.

    A machine that slows down for a while so slows all of them, and a ratio of one repeat holds.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    peaks: dict[str, float | None] = dict.fromkeys(contenders)
    for turn in range(warmup + repeats):
        names = list(contenders) if turn % 2 == 0 else list(contenders)[::-1]
        for name in names:
            _reset_peak()
            began = time.perf_counter()
            contenders[name]()
            took = time.perf_counter() - began
            if turn >= warmup:
                seconds[name].append(took)
                peaks[name] = _peak_mib()
    return {name: Lane(name, tuple(seconds[name]), peaks[name]) for name in contenders}


def ratio(slow: Lane, fast: Lane) -> dict[str, float]:
    """How many times ``fast`` is faster, repeat by repeat: the median and the quartiles."""
    ratios = sorted(a / b for a, b in zip(slow.seconds, fast.seconds, strict=True))
    quartiles = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else [ratios[0]] * 3
    return {"median": statistics.median(ratios), "lower": quartiles[0], "upper": quartiles[2]}


def record(lanes: Mapping[str, Lane]) -> dict[str, Any]:
    """The lanes as plain values."""
    return {name: {**asdict(lane), "median": lane.median} for name, lane in lanes.items()}


def machine(*packages: str) -> dict[str, Any]:
    """On what a figure was measured: processor, cores, threads, and the versions of these packages."""
    import torch

    versions: dict[str, str | None] = {}
    for name in ("torch", "numpy", *packages):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": versions,
        "openblas_coretype": os.environ.get("OPENBLAS_CORETYPE"),
    }


def save(name: str, result: Mapping[str, Any], folder: Path = RESULTS) -> Path:
    """Write ``<name>.json`` and print it; a file is whole or not there."""
    from groundstate.files import write_json

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    write_json(path, dict(result))
    print(json.dumps(result, indent=2))
    return path


def draw(curves: Mapping[str, Sequence[tuple[float, float]]], path: Path, *, title: str, across: str, up: str) -> Path:
    """A log–log picture, one line of (across, up) points per contender: time against gap, growth with a size."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for name, points in curves.items():
        axes.loglog(*zip(*points, strict=True), "o-", label=name)
    axes.set(xlabel=across, ylabel=up, title=title)
    axes.grid(visible=True, which="both", alpha=0.2)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return path


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _reset_peak() -> None:
    with suppress(OSError):
        Reset.write_text("5", encoding="ascii")


def _peak_mib() -> float | None:
    with suppress(OSError, StopIteration):
        lines = Peak.read_text(encoding="ascii").splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
    return None
