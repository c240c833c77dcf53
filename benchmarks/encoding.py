"""Peak memory of ``encode`` as the inputs grow: random patches of 144 values, 256 units, the real solver.

Each size is encoded in a process of its own, from one .npy file into shards of sparse codes; the peak is the process's,
with Python, PyTorch and the compiled kernels. It is to stay flat.

    python benchmarks/encoding.py --samples 250000 1000000
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _race import RESULTS, machine, save

from groundstate.encode import encode
from groundstate.model import Model
from groundstate_plugins.backends.cpu_native import CpuNative
from groundstate_plugins.decoders.linear import LinearDecoder
from groundstate_plugins.reconstructions.squared_error import SquaredError
from groundstate_plugins.regularisers.l1 import L1
from groundstate_plugins.solvers.auto import Auto

INPUTS, UNITS, CHUNK = 144, 256, 50_000
WEIGHT = 1.8
"""Gives about one non-zero in twenty."""


def write_inputs(path: Path, samples: int) -> None:
    """Standard normal values, other ones for each sample."""
    draw = np.random.default_rng(0)
    header = {"descr": "<f4", "fortran_order": False, "shape": (samples, INPUTS)}
    # written, not mapped: Linux counts the pages that this process holds into the peak of those that it starts
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for first in range(0, samples, CHUNK):
            file.write(draw.standard_normal((min(CHUNK, samples - first), INPUTS), np.float32).data)


def encoded(path: Path, output: Path) -> dict[str, Any]:
    """Encode in this process: seconds, the share of non-zeros in the first codes, and the peak memory."""
    terms = {"data": SquaredError(), "sparsity": L1(weight=WEIGHT)}
    decoder = LinearDecoder(units=UNITS)
    model = Model(terms=terms, decoder=decoder, solver=Auto(tolerance=1e-6), backend=CpuNative()).build((INPUTS,))
    some = torch.from_numpy(np.load(path, mmap_mode="r")[:1000].copy())
    density = float((model.encode(some) != 0).float().mean())
    began = time.perf_counter()
    encode(model, [path], output)
    took = time.perf_counter() - began
    return {
        "seconds": took,
        "non_zeros": density,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, nargs="+", default=[100_000, 400_000, 1_000_000])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--one", type=Path, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.one:
        print(json.dumps(encoded(*options.one)))
        return
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for samples in options.samples:
            path = Path(folder) / f"{samples}.npy"
            write_inputs(path, samples)
            words = [sys.executable, __file__, "--threads", str(options.threads)]
            words += ["--one", str(path), str(Path(folder) / f"codes-{samples}")]
            done = subprocess.run(words, check=True, capture_output=True, text=True)
            found[str(samples)] = json.loads(done.stdout.splitlines()[-1])
            path.unlink()
    peak = max(one["peak_mib"] for one in found.values())
    save("encoding", {"machine": machine("numba"), "samples": found, "peak_mib": peak}, options.output)


if __name__ == "__main__":
    main()
