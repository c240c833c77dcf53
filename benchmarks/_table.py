"""The table of docs/speed.md, made from the files that the benchmarks left in results/."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path("benchmarks") / "results"


@dataclass(frozen=True)
class Figure:
    """One figure of a benchmark. file: of results/, may be a pattern. key: the way to it in the file. asked: in words.

    A figure that is a mapping with a median is told with its quartiles.
    """

    work: str
    against: str
    file: str
    key: tuple[str, ...]
    asked: str = ""
    unit: str = "×"
    script: str = ""


FIGURES = (
    Figure("L1 codes", "SPAMS `lasso`, float64", "sparse_codes_*", ("spams_over_groundstate",), "≥ 2×"),
    *(
        Figure(
            "L1 codes",
            f"scikit-learn `{name}`",
            "sparse_codes_*",
            ("scikit_over_groundstate", f"scikit-learn {name}"),
            "≥ 40×",
        )
        for name in ("lasso_cd", "lasso_lars")
    ),
    Figure("group codes", "SPAMS `fistaFlat`", "group_codes*", ("spams_over_groundstate",), "≥ 10×"),
    *(
        Figure(work, against, f"structured_codes_{only}_*", key, asked)
        for work, against, only, key, asked in (
            ("tree codes, 6 %", "SPAMS `fistaTree`", "trees", ("tree groups, λ = 1.2", "ratio"), "≥ 3×"),
            ("tree codes, 15 %", "SPAMS `fistaTree`", "trees", ("tree groups, λ = 0.55", "ratio"), "≥ 3×"),
            ("12 atoms", "SPAMS `omp`", "pursuit", ("matching pursuit, 12 atoms", "ratio", "SPAMS omp"), "≥ 1×"),
            ("12 atoms", "scikit-learn", "pursuit", ("matching pursuit, 12 atoms", "ratio", "scikit-learn"), "≥ 50×"),
            ("overlapping pools", "generic solver", "overlapping", ("overlapping pools, λ = 0.3", "ratio"), "≥ 10×"),
            ("inhibition", "generic solver", "inhibition", ("inhibition, α = 0.2, S = 0.05", "ratio"), "≥ 10×"),
            ("weak inhibition", "generic solver", "inhibition", ("inhibition, α = 0.2, S = 0.005", "ratio"), "≥ 10×"),
        )
    ),
    Figure("FISTA iterations", "written in plain torch", "fista", ("times_faster",)),
    Figure("dictionary learning", "SPAMS `trainDL`", "dictionary_learning*", ("times_faster", "SPAMS"), "≥ 1.3×"),
    Figure("dictionary learning", "scikit-learn", "dictionary_learning*", ("times_faster", "scikit-learn"), "≥ 10×"),
    Figure(
        "training step's time, DrSAE on digits",
        "plain torch",
        "training_step_drsae-digits",
        ("ratio_to_plain",),
        "≤ 1×",
    ),
    Figure(
        "training step's time, DrSAE on digits",
        "plain torch, compiled",
        "training_step_drsae-digits",
        ("ratio_to_compiled",),
        "≤ 1×",
    ),
    Figure(
        "training step's time, DrSAE on MNIST",
        "plain torch",
        "training_step_drsae-mnist",
        ("ratio_to_plain",),
        "≤ 1.03×",
    ),
    Figure(
        "training step's time, DrSAE on MNIST",
        "plain torch, compiled",
        "training_step_drsae-mnist",
        ("ratio_to_compiled",),
        "≤ 1×",
    ),
    Figure(
        "training step's time, TopK",
        "plain torch, the same gathers",
        "training_step_topk",
        ("ratio_to_gathered",),
        "≤ 1×",
    ),
    Figure("training step's time, TopK", "plain torch, dense", "training_step_topk", ("ratio_to_plain",), "≤ 1×"),
    Figure("two processes, DrSAE", "one process", "processes*", ("drsae", "ratio_to_one", "two, steps"), "≥ 1.8×"),
    Figure(
        "two separate models, DrSAE",
        "one process",
        "processes*",
        ("drsae", "ratio_to_one", "two apart, steps"),
        "the bound",
    ),
    Figure(
        "first native codes of a process",
        "",
        "native_start",
        ("processor_seconds", "median"),
        "≤ 0.5 s",
        unit=" s",
    ),
    Figure("peak memory of encoding", "", "encoding", ("peak_mib",), "≤ 1,536 MiB", unit=" MiB"),
)


def rows(root: Path) -> Iterator[tuple[str, ...]]:
    """Work, what it is measured against, asked, measured, and the file, for each figure that was measured."""
    for figure in FIGURES:
        for path in sorted((root / RESULTS).glob(f"{figure.file}.json")):
            value: Any = json.loads(path.read_text(encoding="utf-8"))
            whole = value
            for key in figure.key:
                value = value.get(key) if isinstance(value, Mapping) else None
            if value is not None:
                quartiles = [whole.get(f"{figure.key[-1]}_{name}") for name in ("q1", "q3")]
                yield figure.work, figure.against, figure.asked, _told(value, quartiles, figure.unit), f"`{path.name}`"


def _told(value: Any, quartiles: list[Any], unit: str) -> str:
    if isinstance(value, Mapping):
        value, quartiles = value["median"], [value.get("lower"), value.get("upper")]
    spread = "" if None in quartiles else " [{:.3g}–{:.3g}]".format(*quartiles)
    return f"{value:.3g}{unit}{spread}"
