"""L1 codes of whitened patches: the native backend beside SPAMS and scikit-learn, at certified accuracy.

    python benchmarks/sparse_codes.py --photos DIR --units 256 --density 0.05

One process, contenders in turn, the same threads; every gap is measured by ``Problem.certificate`` in float64.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import spams
import torch
from _race import machine, race, ratio, record, save
from sklearn.decomposition import sparse_encode
from torch import Tensor

from groundstate import infer
from groundstate_plugins.data.image_patches import ImagePatches
from groundstate_plugins.regularisers.l1 import L1
from groundstate_plugins.solvers.auto import Auto

TOLERANCE = 1e-6
SLOW = 300
"""Samples that scikit-learn encodes: its time grows with the samples alone."""


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    data = ImagePatches(path=options.photos, train=options.samples + 20_000, validation=0, test=0, unit_variance=True)
    source = data.load(0).train
    patches = source.read(torch.arange(len(source))).x.double()
    x, rest = patches[: options.samples], patches[options.samples :]
    dictionary = _dictionary(rest, options)
    level = _level(x[:1000], dictionary, options.density)
    few, columns, atoms = x[:SLOW].numpy(), np.asfortranarray(x.numpy().T), np.asfortranarray(dictionary.numpy())
    found: dict[str, Tensor] = {}

    def keep(name: str, encode: Callable[[], Any]) -> Callable[[], None]:
        def run() -> None:
            found[name] = torch.as_tensor(encode())

        return run

    def scikit(algorithm: str) -> Callable[[], Any]:
        return lambda: sparse_encode(few, atoms.T, algorithm=algorithm, alpha=level, max_iter=5000, n_jobs=1)

    contenders = {
        "groundstate float64": keep("groundstate float64", lambda: encode(x, dictionary, level)),
        "groundstate float32": keep("groundstate float32", lambda: encode(x.float(), dictionary.float(), level)),
        "spams float64": lambda: found.update(
            {"spams float64": spams.lasso(columns, D=atoms, lambda1=level, mode=2, numThreads=options.threads)}
        ),
    }
    slow = {name: keep(name, scikit(name)) for name in (("lasso_cd", "lasso_lars") if options.scikit else ())}
    lanes = race(contenders, repeats=options.repeats)
    slower = race(slow, repeats=1, warmup=0)
    found["spams float64"] = torch.from_numpy(found["spams float64"].T.toarray())
    save(
        f"sparse_codes_{options.units}_{round(100 * options.density)}",
        {
            "machine": machine("numba", "spams-bin", "scikit-learn"),
            "units": options.units,
            "samples": options.samples,
            "weight": level,
            "non_zeros": float((found["groundstate float64"] != 0).double().mean()),
            "seconds": record(lanes),
            "worst_gap": {name: _worst_gap(x[: len(code)], dictionary, code, level) for name, code in found.items()},
            "spams_over_groundstate": ratio(lanes["spams float64"], lanes["groundstate float64"]),
            "scikit_over_groundstate": {
                name: lane.median / SLOW * options.samples / lanes["groundstate float64"].median
                for name, lane in slower.items()
            },
        },
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, help="a folder of photographs; scikit-learn's two by default")
    parser.add_argument("--units", type=int, default=256)
    parser.add_argument("--density", type=float, default=0.05, help="share of non-zeros that the weight is chosen for")
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dictionary", type=Path, help="(inputs, units) .npy; a short SPAMS training by default")
    parser.add_argument("--scikit", action="store_true", help=f"scikit-learn too, on {SLOW} samples and one thread")
    return parser.parse_args()


def _dictionary(patches: Tensor, options: argparse.Namespace) -> Tensor:
    if options.dictionary is not None:
        return torch.from_numpy(np.load(options.dictionary)).double()
    trained = spams.trainDL(
        np.asfortranarray(patches.numpy().T), K=options.units, lambda1=3.0, mode=2, iter=60, batchsize=128,
        numThreads=options.threads, verbose=False,
    )  # fmt: skip
    return torch.nn.functional.normalize(torch.from_numpy(trained), dim=0)


def encode(x: Tensor, dictionary: Tensor, level: float) -> Tensor:
    """Codes whose certificate the solver looks at, as a user would get them."""
    solver = Auto(tolerance=TOLERANCE, max_iterations=200)
    return infer(x, dictionary=dictionary, terms=[L1(weight=level)], solver=solver, backend="cpu-native").code


def _level(x: Tensor, dictionary: Tensor, density: float) -> float:
    low, high = 1e-3, 30.0
    for _ in range(14):
        middle = (low * high) ** 0.5
        more = float((encode(x, dictionary, middle) != 0).double().mean()) > density
        low, high = (middle, high) if more else (low, middle)
    return (low * high) ** 0.5


def _worst_gap(x: Tensor, dictionary: Tensor, code: Tensor, level: float) -> float:
    """Of codes that someone else found: certified where they are, without an iteration."""
    solver = Auto(max_iterations=0)
    solution = infer(x, dictionary=dictionary, terms=[L1(weight=level)], solver=solver, start=code.double())
    assert solution.certificate is not None
    return float(solution.certificate.relative.max())


if __name__ == "__main__":
    main()
