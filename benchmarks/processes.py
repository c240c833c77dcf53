"""Two processes against one, a thread each: training samples a second on sparse coding and on DrSAE MNIST.

Whole processes take turns: one, two on one model (gloo), and two that each train a model of their own. The last say
what the machine gives: two cores share memory and clock, so two processes cannot be faster than that. The time is the
training's own, with its evaluations and checkpoints, without the start of the processes.

    python benchmarks/processes.py --photos ../shared/data/photos --mnist ../shared/data/mnist
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import tomli_w
from _race import RESULTS, machine, save

from groundstate.history import read_history

CASES = ("sparse coding", "drsae")


def tables(case: str, options: argparse.Namespace) -> dict[str, Any]:
    """The config of a case."""
    if case == "sparse coding":
        found: dict[str, Any] = {
            "data": {
                "type": "image-patches",
                "path": str(options.photos.resolve()),
                "train": options.patches,
                "validation": 2000,
                "test": 1000,
            },
            "model": {"decoder": {"type": "linear", "units": 256}},
            "energy": {"reconstruction": {"type": "squared-error"}, "sparsity": {"type": "l1", "weight": 1.0}},
            "inference": {"type": options.solver, "tolerance": 1e-3, "max_iterations": 500},
            "learning": {"batch_size": options.patch_batch, "log_every": 5},
            "phases": {"learn": {"epochs": options.epochs}},
        }
    else:
        found = {
            "extends": "groundstate:drsae",
            "data": {"type": "mnist", "path": str(options.mnist.resolve())},
            "model": {"encoder": {"steps": 11}, "decoder": {"units": 400, "noise": 2.8}},
            "learning": {"batch_size": options.mnist_batch, "clip": 0.1, "average": 0.999, "log_every": 5},
            "phases": {"unsupervised": False, "joint": {"epochs": options.mnist_epochs}},
            "callbacks": {"baseline": False},
        }
    found.setdefault("callbacks", {})["progress"] = False
    return {**found, "backend": {"type": "torchrun", "threads": 1}, "tracking": False}


def start(file: Path, rank: int, world: int, port: int) -> subprocess.Popen[str]:
    """One process, as torchrun starts it."""
    where = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    where |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "groundstate", "train", str(file)]
    return subprocess.Popen(words, env=os.environ | where, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def trained(case: str, options: argparse.Namespace, folder: Path, together: int, models: int) -> list[Path]:
    """Train some models at once, each by some processes; their runs' folders."""
    files, running = [], []
    for number in range(models):
        own = folder / str(number)
        own.mkdir(parents=True)
        config = tables(case, options) | {"output": {"folder": str(own / "runs"), "report": False}}
        files.append(own / "config.toml")
        files[-1].write_text(tomli_w.dumps(config), encoding="utf-8")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        running += [start(files[-1], rank, together, port) for rank in range(together)]
    for process in running:
        said = process.communicate()[1]
        if process.returncode:
            raise SystemExit(said)
    return [next((file.parent / "runs").iterdir()) for file in files]


def speed(folder: Path) -> dict[str, float]:
    """Samples a second, of the whole training and inside of an epoch, and the energy at the end."""
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    records = list(read_history(folder / "metrics.jsonl"))
    epochs = sum(one.kind == "epoch" for one in records)
    steps = [one.values["samples_per_second"] for one in records if one.kind == "step"]
    return {
        "whole": record["data"]["samples"]["train"] * epochs / record["metrics"]["seconds"],
        "steps": statistics.median(steps),
        "energy": record["metrics"]["validation/energy"],
    }


def measure(case: str, options: argparse.Namespace) -> dict[str, Any]:
    ways = {"one": (1, 1), "two": (2, 1), "two apart": (1, 2)}
    found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for turn in range(options.repeats):
        for way in list(ways) if turn % 2 == 0 else list(ways)[::-1]:
            with tempfile.TemporaryDirectory() as folder:
                each = [speed(run) for run in trained(case, options, Path(folder), *ways[way])]
            found[way].append(each[0] | {key: sum(one[key] for one in each) for key in ("whole", "steps")})
            print(
                case, way, {key: round(value, 4) for key, value in found[way][-1].items()}, file=sys.stderr, flush=True
            )
    ratios = {
        f"{way}, {key}": statistics.median(a[key] / b[key] for a, b in zip(found[way], found["one"], strict=True))
        for way in ("two", "two apart")
        for key in ("whole", "steps")
    }
    return {"samples_per_second": found, "ratio_to_one": ratios}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, default=Path("../shared/data/photos"), help="a folder of photographs")
    parser.add_argument("--mnist", type=Path, default=Path("../shared/data/mnist"), help="the folder of its four files")
    parser.add_argument("--only", nargs="*", choices=CASES, default=CASES)
    parser.add_argument("--solver", default="auto")
    parser.add_argument("--patches", type=int, default=50_000)
    parser.add_argument("--patch-batch", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--mnist-batch", type=int, default=1000)
    parser.add_argument("--mnist-epochs", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    result: dict[str, Any] = {"machine": machine("numba"), "options": {k: str(v) for k, v in vars(options).items()}}
    for case in options.only:
        result[case] = measure(case, options)
    save("processes", result, options.output)


if __name__ == "__main__":
    main()
