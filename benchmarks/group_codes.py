"""Codes under groups of four: the native backend beside SPAMS and skglm, at a relative gap of 4e-6.

    python benchmarks/group_codes.py --photos DIR

One process, contenders in turn, wall-clock time; SPAMS on the same threads, its tolerance the loosest that reaches the
gap on every sample; skglm on one thread, sample by sample, on fewer (its time is scaled). Gaps by
``Problem.certificate`` in float64. The picture shows time against the worst gap.
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
from skglm import GroupLasso
from torch import Tensor

from groundstate import infer
from groundstate_plugins.backends.cpu_native import CpuNative
from groundstate_plugins.regularisers.group import Group
from groundstate_plugins.solvers.auto import Auto

GAP = 4e-6
OURS = (1e-2, 1e-3, 1e-4, 1e-5, GAP)
SPAMS = (1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10)
"""Tolerances tried in turn, until the gap is reached."""
SLOW = 20
"""Samples that skglm encodes."""


def main() -> None:
    parser = arguments(__doc__, samples=500)
    parser.add_argument("--units", type=int, default=256, help="a multiple of 4")
    parser.add_argument("--weight", type=float, default=1.5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    x, dictionary = patches_and_dictionary(options, options.units)
    term = Group(size=4, weight=options.weight)
    columns, atoms = np.asfortranarray(x.numpy().T), np.asfortranarray(dictionary.numpy())
    found: dict[str, Tensor] = {}

    def keep(name: str, run: Callable[[], Any]) -> Callable[[], None]:
        return lambda: found.update({name: torch.as_tensor(run())})

    def ours(tolerance: float) -> Tensor:
        solver = Auto(tolerance=tolerance, max_iterations=1000)
        return infer(x, dictionary=dictionary, terms=[term], solver=solver, backend=CpuNative()).code

    def flat(tolerance: float) -> Any:
        codes = spams.fistaFlat(
            *(columns, atoms, np.zeros((options.units, len(x)), order="F")),
            loss="square", regul="group-lasso-l2", size_group=4, lambda1=options.weight, it0=10, max_it=5000,
            tol=tolerance, numThreads=options.threads, intercept=False, pos=False,
        )  # fmt: skip
        return np.ascontiguousarray((codes[0] if isinstance(codes, tuple) else codes).T)

    def single() -> Any:
        model = GroupLasso(groups=4, alpha=options.weight / x.shape[1], fit_intercept=False, tol=1e-8, max_iter=200)
        return np.stack([model.fit(atoms, row).coef_.copy() for row in x[:SLOW].numpy()])

    def worst(code: Tensor) -> float:
        some, solver = x[: len(code)], Auto(max_iterations=0)
        solution = infer(some, dictionary=dictionary, terms=[term], solver=solver, start=code)
        assert solution.certificate is not None
        return float(solution.certificate.relative.max())

    names = {f"groundstate {tolerance:g}": partial(ours, tolerance) for tolerance in OURS}
    lanes = race({name: keep(name, run) for name, run in names.items()}, repeats=1)
    for tolerance in SPAMS:
        name = f"SPAMS {tolerance:g}"
        lanes |= race({name: keep(name, partial(flat, tolerance))}, repeats=1, warmup=0)
        if worst(found[name]) <= GAP:
            break
    own = f"groundstate {GAP:g}"
    pair = {"groundstate": keep("groundstate", names[own]), "SPAMS": keep("SPAMS", partial(flat, tolerance))}
    figures = race(pair, repeats=options.repeats, warmup=0)
    slow = race({"skglm": keep("skglm", single)}, repeats=1)
    gaps = {name: worst(code) for name, code in found.items()}
    save(
        f"group_codes_{options.units}",
        {
            "machine": machine("numba", "spams-bin", "skglm"),
            "units": options.units,
            "samples": options.samples,
            "weight": options.weight,
            "non_zeros": float((found["groundstate"] != 0).double().mean()),
            "seconds": record(figures | lanes | slow),
            "worst_gap": gaps,
            "spams_over_groundstate": ratio(figures["SPAMS"], figures["groundstate"]),
            "skglm_over_groundstate": slow["skglm"].median / SLOW * len(x) / figures["groundstate"].median,
        },
    )
    curves: dict[str, list[tuple[float, float]]] = {}
    for name, lane in (lanes | slow).items():
        of = SLOW if name == "skglm" else len(x)
        curves.setdefault(name.split()[0], []).append((max(gaps[name], 1e-16), 1e6 * lane.median / of))
    for points in curves.values():
        points.sort()
    title = f"Codes under groups of 4, {options.units} units, {len(x):,} samples"
    path = RESULTS / f"group_codes_{options.units}.png"
    draw(curves, path, title=title, across="worst relative gap", up="µs per sample")


if __name__ == "__main__":
    main()
