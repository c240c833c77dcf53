"""How the time for L1 codes grows: with the samples, the units, the input's size and the threads; SPAMS beside it.

    python benchmarks/growth.py --photos DIR

One thing grows at a time, from 4,000 whitened patches of 12×12 pixels, 256 units (patches themselves) and two threads;
the weight is a fixed share of the largest correlation. Both reach a relative gap of 1e-6 or better.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import spams
import torch
from _race import RESULTS, draw, machine, race, save

from groundstate import infer
from groundstate_plugins.data.image_patches import ImagePatches
from groundstate_plugins.regularisers.l1 import L1
from groundstate_plugins.solvers.auto import Auto

SHARE = 0.5
"""The weight, of the median over the patches of the largest correlation with an atom."""
USUAL = {"samples": 4_000, "units": 256, "side": 12, "threads": 2}
GROWS = {
    "samples": (1_000, 4_000, 16_000, 64_000),
    "units": (64, 128, 256, 512, 1_024),
    "side": (6, 8, 12, 16),
    "threads": (1, 2),
}


def measured(photos: Path | None, repeats: int, samples: int, units: int, side: int, threads: int) -> dict[str, float]:
    """Median seconds of each contender for one setting."""
    torch.set_num_threads(threads)
    data = ImagePatches(
        path=photos, size=side, train=samples + 20 * units, validation=0, test=0, unit_variance=True
    ).load(0)
    patches = data.train.read(torch.arange(samples + 20 * units)).x.double()
    x, rest = patches[:samples], patches[samples:]
    # patches as atoms: no training, whose time would be the benchmark's
    dictionary = torch.nn.functional.normalize(rest[: 20 * units : 20], dim=1).T.contiguous()
    level = SHARE * float((x @ dictionary).abs().amax(1).median())
    terms, solver = [L1(weight=level)], Auto(tolerance=1e-6, max_iterations=200)
    columns, atoms = np.asfortranarray(x.numpy().T), np.asfortranarray(dictionary.numpy())
    lanes = race(
        {
            "groundstate": lambda: infer(x, dictionary=dictionary, terms=terms, solver=solver, backend="cpu-native"),
            "SPAMS": lambda: spams.lasso(columns, D=atoms, lambda1=level, mode=2, numThreads=threads),
        },
        repeats=repeats,
    )
    return {name: lane.median for name, lane in lanes.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="a folder of photographs; scikit-learn's two by default")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--grows", choices=GROWS, action="append", help="only these; all by default")
    options = parser.parse_args()
    for name in options.grows or GROWS:
        curves: dict[str, list[tuple[float, float]]] = {}
        for size in GROWS[name]:
            for contender, seconds in measured(options.photos, options.repeats, **{**USUAL, name: size}).items():
                curves.setdefault(contender, []).append((size, seconds))
        save(f"growth_{name}", {"machine": machine("numba", "spams-bin"), "usual": USUAL, "seconds": curves})
        draw(
            curves,
            RESULTS / f"growth_{name}.png",
            title=f"L1 codes, {', '.join(f'{value:,} {key}' for key, value in USUAL.items() if key != name)}",
            across="pixels on a side" if name == "side" else name,
            up="seconds",
        )


if __name__ == "__main__":
    main()
