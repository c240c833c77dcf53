"""FISTA's milliseconds an iteration: the solver, in cache-sized blocks, against FISTA as it is usually written.

Both run the same number of iterations on 10,000 inputs of 144 values and 256 units, one thread, in turn; the plain one
is Beck & Teboulle's, three products and element-wise passes over all samples, and keeps no certificate. The solver also
checks every sample's energy in each iteration, and certifies at the last one.

    python benchmarks/fista.py
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from _race import RESULTS, machine, race, ratio, record, save
from torch import Tensor

from groundstate import infer
from groundstate_plugins.regularisers.l1 import L1
from groundstate_plugins.solvers.fista import Fista


def plain(x: Tensor, dictionary: Tensor, weight: float, iterations: int) -> Tensor:
    """z: (batch, units), after some iterations of step 1/L from zero."""
    step = 1.0 / float(torch.linalg.matrix_norm(dictionary, 2) ** 2)
    z = ahead = x.new_zeros(len(x), dictionary.shape[1])
    t = 1.0
    for _ in range(iterations):
        descended = ahead - step * (ahead @ dictionary.T - x) @ dictionary
        following = descended.sign() * (descended.abs() - step * weight).clamp_min(0)
        t, before = 0.5 * (1 + (1 + 4 * t * t) ** 0.5), t
        ahead = following + (before - 1) / t * (following - z)
        z = following
    return z


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--inputs", type=int, default=144)
    parser.add_argument("--units", type=int, default=256)
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    generator = torch.Generator().manual_seed(0)
    dictionary = torch.randn(options.inputs, options.units, generator=generator)
    dictionary /= dictionary.norm(dim=0)
    x = torch.randn(options.samples, options.inputs, generator=generator)
    weight = 0.5 * float((x @ dictionary).abs().amax(1).median())
    # no code is ever done, so that each iteration is one of all samples
    solver = Fista(tolerance=1e-30, max_iterations=options.iterations, check_every=options.iterations)
    lanes = race(
        {
            "groundstate": lambda: infer(x, dictionary=dictionary, terms=[L1(weight=weight)], solver=solver),
            "plain": lambda: plain(x, dictionary, weight, options.iterations),
        },
        repeats=options.repeats,
    )
    result: dict[str, Any] = {
        "machine": machine(),
        "settings": {key: value for key, value in vars(options).items() if key != "output"},
        "lanes": record(lanes),
        "ms_per_iteration": {name: 1e3 * lane.median / options.iterations for name, lane in lanes.items()},
        "times_faster": ratio(lanes["plain"], lanes["groundstate"]),
    }
    save("fista", result, options.output)


if __name__ == "__main__":
    main()
