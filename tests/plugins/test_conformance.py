"""Every registered plugin of every kind passes every check of its kind: one line in registry.toml gets all of it."""

from __future__ import annotations

import struct
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from groundstate.components import TERM_KINDS
from groundstate.registry import Registry
from groundstate.testing import Check, Examination, checks_of

ROOT = Path(__file__).resolve().parents[2]
REGISTRY = tomllib.loads((ROOT / "registry.toml").read_text(encoding="utf-8"))
PLUGINS = [(kind, name) for kind, named in REGISTRY.items() if kind != "system" for name in named]

Fields = Callable[[Path], dict[str, Any]]


def arrays(folder: Path) -> dict[str, Any]:
    rows = np.random.default_rng(0).standard_normal((60, 8)).astype(np.float32)
    np.save(folder / "x.npy", rows)
    return {"path": folder / "x.npy"}


def idx_files(folder: Path) -> dict[str, Any]:
    """MNIST's four files with 60 made-up digits each."""
    draw = np.random.default_rng(0)
    for part, count in (("train", 120), ("t10k", 60)):
        pixels = draw.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, count, 28, 28) + pixels.tobytes())
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, count) + labels.tobytes())
    return {"path": folder}


def photographs(folder: Path) -> dict[str, Any]:
    from PIL import Image

    draw = np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(draw.integers(0, 256, (64, 64), dtype=np.uint8)).save(folder / f"{number}.png")
    return {"path": folder}


FILES: dict[str, Fields] = {"npy": arrays, "mnist": idx_files, "image-patches": photographs}
"""Data that needs files: made-up ones, and the fields that name them."""

SMALL: dict[str, dict[str, Any]] = {
    "image-patches": {"train": 300, "validation": 40, "test": 40},
    "mnist": {"validation": 20},
}


@pytest.fixture(scope="module")
def examination(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Examination]:
    """A plugin's examination, the same for all of its checks: its cases are made once."""
    registry = Registry.discover()

    @cache
    def of(kind: str, name: str) -> Examination:
        fields = None
        if kind == "data" and name in FILES:
            fields = {**FILES[name](tmp_path_factory.mktemp(name)), **SMALL.get(name, {})}
        return Examination(registry.load(registry.get(kind, name)), kind, name, fields)

    return of


@pytest.mark.parametrize(
    ("kind", "name", "check"),
    [(kind, name, check) for kind, name in PLUGINS for check in checks_of(kind)],
    ids=str,
)
def test_a_built_in_passes(kind: str, name: str, check: Check, examination: Callable[[str, str], Examination]) -> None:
    result = examination(kind, name).run(check)
    if result.status == "skipped":
        pytest.skip(result.message)
    assert result.status == "passed", str(result)


def test_every_kind_has_checks_beyond_the_general_ones() -> None:
    for kind in REGISTRY:
        if kind != "system":
            assert len(checks_of(kind)) >= (12 if kind in TERM_KINDS else 6), kind
