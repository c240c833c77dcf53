"""L1 codes of whitened patches: the native backend beside SPAMS and scikit-learn, at certified accuracy.

    python benchmarks/sparse_codes.py --photos DIR --setting 256-sparse

One process, contenders in turn, wall-clock time, the same threads for all but scikit-learn, which gets one and fewer
samples (its time is scaled: it grows with the samples alone). Every gap is measured by ``Problem.certificate`` in
float64. The picture shows time against the worst gap.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import spams
import torch
from _patches import arguments, patches_and_dictionary
from _race import RESULTS, draw, machine, race, ratio, record, save
from sklearn.decomposition import sparse_encode
from torch import Tensor

from groundstate import infer
from groundstate_plugins.backends.cpu_native import CpuNative
from groundstate_plugins.regularisers.l1 import L1
from groundstate_plugins.solvers.auto import Auto

TOLERANCE = 1e-6
SETTINGS = {
    "256-sparse": (256, 0.05),
    "256-dense": (256, 0.15),
    "1024-sparse": (1024, 0.05),
    "1024-dense": (1024, 0.12),
}
"""Units, and the share of non-zeros that the weight is chosen for."""
LOOSER = (1e-2, 1e-3, 1e-4, 1e-5)
"""Tolerances of the curve, beside the one of the figures."""
SLOW = 100
"""Samples that scikit-learn encodes."""


def main() -> None:
    parser = arguments(__doc__, samples=10_000)
    parser.add_argument("--setting", choices=SETTINGS, default="256-sparse", help="units and density")
    parser.add_argument("--scikit", action="store_true", help=f"scikit-learn too, on {SLOW} samples and one thread")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    units, density = SETTINGS[options.setting]
    x, dictionary = patches_and_dictionary(options, units)
    level = _level(x[:500], dictionary, density)
    columns, atoms = np.asfortranarray(x.numpy().T), np.asfortranarray(dictionary.numpy())
    found: dict[str, Any] = {}

    def keep(name: str, run: Callable[[], Any]) -> Callable[[], None]:
        return lambda: found.update({name: run()})

    def peer(dtype: type) -> Callable[[], Any]:
        given = columns.astype(dtype), atoms.astype(dtype)
        return lambda: spams.lasso(given[0], D=given[1], lambda1=level, mode=2, numThreads=options.threads)

    contenders = {
        "groundstate float64": partial(encode, x, dictionary, level),
        "groundstate float32": partial(encode, x.float(), dictionary.float(), level),
        "SPAMS float64": peer(np.float64),
        "SPAMS float32": peer(np.float32),
    }
    contenders |= {f"groundstate {limit:g}": partial(encode, x, dictionary, level, limit) for limit in LOOSER}
    few = x[:SLOW].numpy()
    for algorithm in ("lasso_cd", "lasso_lars") if options.scikit else ():
        given = {"algorithm": algorithm, "alpha": level, "max_iter": 5000, "n_jobs": 1}
        contenders[f"scikit-learn {algorithm}"] = partial(sparse_encode, few, atoms.T, **given)
    lanes = race({name: keep(name, run) for name, run in contenders.items()}, repeats=options.repeats)
    for name in ("SPAMS float64", "SPAMS float32"):
        found[name] = torch.from_numpy(found[name].T.toarray())
    gaps = {name: _worst_gap(x, dictionary, torch.as_tensor(code), level) for name, code in found.items()}
    ours = lanes["groundstate float64"]
    scaled = {name: SLOW if name.startswith("scikit") else options.samples for name in lanes}
    name = f"sparse_codes_{options.setting}_{options.samples}"
    save(
        name,
        {
            "machine": machine("numba", "spams-bin", "scikit-learn"),
            "units": units,
            "samples": options.samples,
            "weight": level,
            "non_zeros": float((found["groundstate float64"] != 0).double().mean()),
            "seconds": record(lanes),
            "worst_gap": gaps,
            "spams_over_groundstate": ratio(lanes["SPAMS float64"], ours),
            "scikit_over_groundstate": {
                name: ratio(lane, ours)["median"] * options.samples / SLOW
                for name, lane in lanes.items()
                if name.startswith("scikit")
            },
            "scikit_threads": 1,
        },
    )
    curves: dict[str, list[tuple[float, float]]] = {}
    for lane in lanes.values():
        tolerance = lane.name.removeprefix("groundstate ")
        line = "groundstate float64" if tolerance in map("{:g}".format, LOOSER) else lane.name
        curves.setdefault(line, []).append((max(gaps[lane.name], 1e-16), 1e6 * lane.median / scaled[lane.name]))
    curves["groundstate float64"].sort()
    title = f"L1 codes, {options.setting}, {options.samples:,} samples"
    draw(curves, RESULTS / f"{name}.png", title=title, across="worst relative gap", up="µs per sample")


def encode(x: Tensor, dictionary: Tensor, level: float, tolerance: float = TOLERANCE) -> Tensor:
    """Codes whose certificate the solver looks at, as a user would get them."""
    solver = Auto(tolerance=tolerance, max_iterations=200)
    return infer(x, dictionary=dictionary, terms=[L1(weight=level)], solver=solver, backend=CpuNative()).code


def _level(x: Tensor, dictionary: Tensor, density: float) -> float:
    """The weight for this share of non-zeros; the smallest tried where no weight gives as many."""
    low, high = 3e-2, 30.0
    for _ in range(12):
        middle = (low * high) ** 0.5
        more = float((encode(x, dictionary, middle) != 0).double().mean()) > density
        low, high = (middle, high) if more else (low, middle)
    return (low * high) ** 0.5


def _worst_gap(x: Tensor, dictionary: Tensor, code: Tensor, level: float) -> float:
    """Of codes that someone else found: certified where they are, without an iteration."""
    solver = Auto(max_iterations=0)
    some = x[: len(code)]
    solution = infer(some, dictionary=dictionary, terms=[L1(weight=level)], solver=solver, start=code.double())
    assert solution.certificate is not None
    return float(solution.certificate.relative.max())


if __name__ == "__main__":
    main()
