"""Codes under tree groups, overlapping pools, inhibition and a limit of entries: cpu-native against its peers.

Whitened 12 × 12 patches of photographs, a dictionary that SPAMS trained on them. Trees of 1 + 3 + 12 units against
SPAMS ``fistaTree``, whose tolerance is set so that its largest gap comes near 4e-6; pools of 3 × 3 units on
a torus against the generic solver; inhibition between units of a
sheet that lie apart against greedy coordinate descent in PyTorch; 12 atoms by matching pursuit against SPAMS ``omp``
(by decrease, as it does) and scikit-learn's ``orthogonal_mp_gram`` (by correlation, as it does), with the Gram matrix
given to both. All in float64; gaps and residuals by ``Problem.certificate``; our times include them.

    python benchmarks/structured_codes.py --path PHOTOS [--only trees | overlapping | inhibition | pursuit]
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import numpy as np
import torch
from _race import machine, race, ratio, record, save
from scipy.sparse import csc_matrix

from groundstate import infer
from groundstate_plugins.data.image_patches import ImagePatches
from groundstate_plugins.regularisers.cardinality import Cardinality
from groundstate_plugins.regularisers.group import Group
from groundstate_plugins.regularisers.lateral_inhibition import LateralInhibition
from groundstate_plugins.regularisers.tree_group import TreeGroup
from groundstate_plugins.solvers.matching_pursuit import MatchingPursuit

ATOMS = 12
GAP = 4e-6
RESIDUAL = 1e-6


def depth_first(parent: list[int]) -> list[int]:
    """The units in the order that SPAMS asks for: each right before its descendants."""
    order: list[int] = []

    def visit(unit: int) -> None:
        order.append(unit)
        for child, above in enumerate(parent):
            if above == unit:
                visit(child)

    for root, above in enumerate(parent):
        if above < 0:
            visit(root)
    return order


def spams_tree(parent: list[int], order: list[int]) -> dict[str, Any]:
    """The forest as SPAMS describes it, below one root without units or weight."""
    units = len(parent)
    place = {unit: number + 1 for number, unit in enumerate(order)}
    groups = np.zeros((units + 1, units + 1), bool)
    for unit, above in enumerate(parent):
        groups[place[unit], place.get(above, 0)] = True
    return {
        "eta_g": np.array([1e-9] + [1.0] * units),  # 0 makes its prox divide 0 by 0
        "groups": csc_matrix(groups),
        "own_variables": np.array([0, *range(units)], dtype=np.int32),
        "N_own_variables": np.array([0] + [1] * units, dtype=np.int32),
    }


def trees(x: torch.Tensor, dictionary: torch.Tensor, weight: float, accuracy: float, repeats: int) -> dict[str, Any]:
    import spams

    units = dictionary.shape[1]
    term = TreeGroup(branching=[units // 16, 3, 4], weight=weight)
    parent = term.config.forest().parent.tolist()
    order = depth_first(parent)
    forest, back = spams_tree(parent, order), np.argsort(order)
    columns, atoms = np.asfortranarray(x.numpy().T), np.asfortranarray(dictionary.numpy()[:, order])
    largest = float(torch.linalg.matrix_norm(dictionary, 2)) ** 2
    found: dict[str, Any] = {}

    def ours() -> None:
        found["cpu-native"] = infer(x, dictionary=dictionary, terms=[term], tolerance=GAP, backend="cpu-native")

    def theirs() -> None:
        codes = spams.fistaTree(
            *(columns, atoms, np.zeros((units, len(x)), order="F"), forest),
            numThreads=torch.get_num_threads(),
            max_it=20_000,
            L0=largest,
            fixed_step=True,
            compute_gram=True,
            lambda1=weight,
            tol=accuracy,
            it0=10,
            loss="square",
            regul="tree-l2",
        )
        found["SPAMS fistaTree"] = torch.from_numpy(np.ascontiguousarray(codes.T[:, back]))

    lanes = race({"cpu-native": ours, "SPAMS fistaTree": theirs}, repeats=repeats)
    code = found["cpu-native"].code
    peer = infer(x, dictionary=dictionary, terms=[term], start=found["SPAMS fistaTree"], max_iterations=0)
    return {
        "lanes": record(lanes),
        "ratio": ratio(lanes["SPAMS fistaTree"], lanes["cpu-native"]),
        "non_zeros": float((code != 0).double().mean()),
        "largest_gap": {
            "cpu-native": float(found["cpu-native"].certificate.relative.max()),
            "SPAMS fistaTree": float(peer.certificate.relative.max()),
        },
    }


def overlapping(x: torch.Tensor, dictionary: torch.Tensor, weight: float, repeats: int) -> dict[str, Any]:
    term = Group(sheet=(16, dictionary.shape[1] // 16), window=(3, 3), weight=weight)
    found: dict[str, Any] = {}

    def encode(name: str, backend: str | None) -> None:
        found[name] = infer(x, dictionary=dictionary, terms=[term], tolerance=GAP, backend=backend)

    names: dict[str, str | None] = {"cpu-native": "cpu-native", "generic": None}
    lanes = race({name: partial(encode, name, backend) for name, backend in names.items()}, repeats=repeats)
    return {
        "samples": len(x),
        "lanes": record(lanes),
        "ratio": ratio(lanes["generic"], lanes["cpu-native"]),
        "non_zeros": {name: float((one.code != 0).double().mean()) for name, one in found.items()},
        "largest_gap": {name: float(one.certificate.relative.max()) for name, one in found.items()},
        "mean_energy": {name: float(one.energy.mean()) for name, one in found.items()},
    }


def inhibition(x: torch.Tensor, dictionary: torch.Tensor, sparsity: float, strength: float, repeats: int) -> Any:
    term = LateralInhibition(
        rule="distance", sheet=(16, dictionary.shape[1] // 16), strength=strength, sparsity=sparsity
    )
    found: dict[str, Any] = {}

    def ours() -> None:
        found["cpu-native"] = infer(x, dictionary=dictionary, terms=[term], tolerance=RESIDUAL, backend="cpu-native")

    def generic() -> None:
        found["generic"] = infer(
            x, dictionary=dictionary, terms=[term], solver="coordinate-descent", tolerance=RESIDUAL
        )

    lanes = race({"cpu-native": ours, "generic": generic}, repeats=repeats)
    return {
        "lanes": record(lanes),
        "ratio": ratio(lanes["generic"], lanes["cpu-native"]),
        "non_zeros": float((found["cpu-native"].code != 0).double().mean()),
        "largest_residual": {name: float(one.certificate.relative.max()) for name, one in found.items()},
        "mean_energy": {name: float(one.energy.mean()) for name, one in found.items()},
        "largest_rise": float((found["cpu-native"].energy - found["generic"].energy).max()),
    }


def pursuit(x: torch.Tensor, dictionary: torch.Tensor, repeats: int) -> Any:
    """Both rules, each beside the peer that has it; scikit-learn on a third of the samples, as it is slow."""
    import spams
    from sklearn.linear_model import orthogonal_mp_gram

    dictionary = dictionary / dictionary.norm(dim=0)  # both peers ask for it
    gram, few = dictionary.T @ dictionary, x[: max(1, len(x) // 3)]
    columns, atoms = np.asfortranarray(x.numpy().T), np.asfortranarray(dictionary.numpy())
    found: dict[str, Any] = {}

    def ours(samples: torch.Tensor, choose: Any) -> None:
        solver, term = MatchingPursuit(choose=choose), Cardinality(keep=ATOMS)
        found[choose] = infer(samples, dictionary=dictionary, terms=[term], solver=solver, backend="cpu-native")

    def theirs() -> None:
        threads = torch.get_num_threads()
        found["SPAMS omp"] = spams.omp(columns, atoms, L=ATOMS, numThreads=threads)

    def scikit_learn() -> None:
        drive = (dictionary.T @ few.T).numpy()
        found["scikit-learn"] = orthogonal_mp_gram(gram.numpy(), drive, n_nonzero_coefs=ATOMS, copy_Gram=False)

    fast = race({"cpu-native": lambda: ours(x, "decrease"), "SPAMS omp": theirs}, repeats=repeats)
    slow = race(
        {"cpu-native, third": lambda: ours(few, "correlation"), "scikit-learn, third": scikit_learn}, repeats=repeats
    )
    peers = {"decrease": found["SPAMS omp"].toarray().T, "correlation": found["scikit-learn"].T}
    energies = {
        choose: 0.5 * (part - torch.from_numpy(code) @ dictionary.T).square().sum(1)
        for (choose, code), part in zip(peers.items(), (x, few), strict=True)
    }
    return {
        "samples": len(x),
        "lanes": record(fast | slow),
        "ratio": {
            "SPAMS omp": ratio(fast["SPAMS omp"], fast["cpu-native"]),
            "scikit-learn": ratio(slow["scikit-learn, third"], slow["cpu-native, third"]),
        },
        "mean_energy": {
            choose: {"cpu-native": float(found[choose].energy.mean()), "peer": float(energies[choose].mean())}
            for choose in peers
        },
        "same_code": {
            choose: float(((found[choose].code - torch.from_numpy(code)).abs().amax(1) < 1e-9).double().mean())
            for choose, code in peers.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", help="a folder of photographs; by default those of scikit-learn")
    parser.add_argument("--units", type=int, default=256, help="a multiple of 16")
    parser.add_argument("--samples", type=int, default=1000, help="with inhibition; a fifth of them with trees")
    parser.add_argument("--only", choices=["trees", "overlapping", "inhibition", "pursuit"], help="one of the four")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    try:
        import spams
    except ImportError:
        raise SystemExit("this benchmark needs SPAMS: pip install spams-bin") from None
    source = ImagePatches(path=arguments.path, size=12).load(0).train
    patches = source.read(torch.arange(min(len(source), 8000 + arguments.samples))).fields["x"].flatten(1).double()
    x = patches[: arguments.samples].contiguous()
    rest = np.asfortranarray(patches[arguments.samples :].numpy().T)
    trained = spams.trainDL(rest, K=arguments.units, lambda1=0.6, iter=40, batchsize=400, numThreads=1, verbose=False)
    dictionary = torch.from_numpy(np.ascontiguousarray(trained))
    torch.set_num_threads(arguments.threads)  # after SPAMS, which sets those of the whole process
    result: dict[str, Any] = {"samples": len(x), "units": arguments.units, "machine": machine("numba", "spams-bin")}
    few = x[: max(1, len(x) // 5)]
    only = arguments.only
    for weight, accuracy in ((1.2, 2e-8), (0.55, 1e-8)) if only in (None, "trees") else ():
        result[f"tree groups, λ = {weight:g}"] = trees(few, dictionary, weight, accuracy, arguments.repeats)
    for weight in (0.3, 0.2) if only in (None, "overlapping") else ():
        fewest = x[: max(1, len(x) // 50)]  # the generic solver takes half a second each
        result[f"overlapping pools, λ = {weight:g}"] = overlapping(fewest, dictionary, weight, arguments.repeats)
    for sparsity, strength in ((0.2, 0.05), (0.2, 0.005)) if only in (None, "inhibition") else ():
        name = f"inhibition, α = {sparsity:g}, S = {strength:g}"
        result[name] = inhibition(x, dictionary, sparsity, strength, arguments.repeats)
    if only in (None, "pursuit"):
        result[f"matching pursuit, {ATOMS} atoms"] = pursuit(patches, dictionary, arguments.repeats)
    save("_".join(["structured_codes", only or "all", str(arguments.units)]), result)


if __name__ == "__main__":
    main()
