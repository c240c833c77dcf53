"""Processor time of the first native codes in a fresh process, beyond the imports of torch and groundstate.

    python benchmarks/native_start.py

The first process of all compiles where nothing is cached yet; it does not count.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

from _race import machine, save

REPEATS = 5
START = """
import json, time
import torch, groundstate
from groundstate_plugins.regularisers.l1 import L1
from groundstate_plugins.solvers.auto import Auto
x, dictionary = torch.randn(10, 16), torch.randn(16, 30)
encode = lambda backend: groundstate.infer(x, dictionary=dictionary, terms=[L1()], solver=Auto(), backend=backend)
encode("cpu")
began = time.process_time()
encode("cpu-native")
took = time.process_time() - began
from groundstate_plugins.backends.native import lasso
stats = lasso._block.stats
print(json.dumps([took, sum(stats.cache_hits.values()), sum(stats.cache_misses.values())]))
"""


def main() -> None:
    rounds = [_start() for _ in range(1 + REPEATS)][1:]
    seconds, hits, misses = zip(*rounds, strict=True)
    save(
        "native_start",
        {
            "machine": machine("numba", "llvmlite"),
            "processor_seconds": {"median": statistics.median(seconds), "all": seconds},
            "loaded": max(hits),
            "compiled": max(misses),
        },
    )


def _start() -> tuple[float, int, int]:
    done = subprocess.run([sys.executable, "-c", START], check=True, capture_output=True, text=True)
    took, hits, misses = json.loads(done.stdout.splitlines()[-1])
    return took, hits, misses


if __name__ == "__main__":
    main()
