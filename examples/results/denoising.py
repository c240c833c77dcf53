"""Denoising of photographs: σ = 25, against non-local means, K-SVD and BM3D on the same noise.

Grey photographs (BT.709 luma) and scikit-image's camera, noise of the same seed for all, not clipped. The dictionary
is learned from each noisy image alone. The weight of the L0 term was chosen on 192×192 parts of scikit-image's chelsea,
coins and astronaut; what the second round assumes and gets back on 128×128 pixels of these and of the photographs life,
Wine and seeding. None of them is among the first three photographs. K-SVD with the settings of Elad & Aharon 2006
(benchmarks/ksvd.py); non-local means with scikit-image's own recommendation (h = 0.6 σ, patches of 5, distance 6, fast
mode); BM3D by its authors' package.

PHOTOS=3 in the environment takes the first three photographs beside camera, CROP=192 the middle 192×192 pixels of each;
the note says which there were.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from lab import Lab
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from skimage import data, restoration

from groundstate.restoration import psnr, restore

SIGMA = 25.0
Floats = NDArray[np.float64]
LUMA = np.array([0.2126, 0.7152, 0.0722])


def photographs(lab: Lab) -> dict[str, Floats]:
    """Grey levels 0 … 255, by name; camera first."""
    files = sorted(lab.data("photos").glob("*.png"))[: int(os.environ.get("PHOTOS", "100"))]
    found = {file.stem.split("_by_")[0]: np.asarray(Image.open(file).convert("RGB")) @ LUMA for file in files}
    return {name: middle(image) for name, image in {"camera": data.camera().astype(float), **found}.items()}


def middle(image: Floats) -> Floats:
    """The part that CROP asks for; all of it otherwise."""
    side = int(os.environ.get("CROP", "0")) or max(image.shape)
    top, left = (max(0, (length - side) // 2) for length in image.shape)
    return image[top : top + side, left : left + side]


def ours(noisy: Floats) -> Floats:
    return restore(torch.from_numpy(noisy), noise=SIGMA).image.numpy()


def non_local_means(noisy: Floats) -> Floats:
    found: Floats = restoration.denoise_nl_means(
        noisy, patch_size=5, patch_distance=6, h=0.6 * SIGMA, sigma=SIGMA, fast_mode=True
    )
    return found


def k_svd(noisy: Floats) -> Floats:
    import ksvd

    return ksvd.denoise(noisy, SIGMA)


def block_matching(noisy: Floats) -> Floats:
    import bm3d

    found: Floats = bm3d.bm3d(noisy, SIGMA)
    return found


METHODS: dict[str, Callable[[Floats], Floats]] = {
    "groundstate": ours,
    "non-local means": non_local_means,
    "K-SVD": k_svd,
    "BM3D": block_matching,
}


def measure(lab: Lab) -> None:
    sys.path.insert(0, str(Path(lab.root) / "benchmarks"))
    found: dict[str, list[float]] = {name: [] for name in METHODS}
    shown: dict[str, Floats] = {}
    pictures = photographs(lab)
    for number, (name, clean) in enumerate(pictures.items()):
        noisy = clean + SIGMA * np.random.default_rng(number).normal(size=clean.shape)
        line = []
        for method, denoise in METHODS.items():
            image = denoise(noisy)
            found[method].append(psnr(torch.from_numpy(image), torch.from_numpy(clean)))
            line.append(f"{method} {found[method][-1]:.2f}")
            if name == "camera":
                shown[method] = image
        if name == "camera":
            shown = {"noisy": noisy, **shown}
        print(f"{name}: {', '.join(line)} dB", flush=True)
    means = {name: float(np.mean(values)) for name, values in found.items()}
    size = f", the middle {crop}×{crop} pixels" if (crop := os.environ.get("CROP")) else ""
    note = f"each value an image{size}: {', '.join(pictures)}"
    lab.row(
        "PSNR, dB: dictionary of the noisy image's own patches",
        found["groundstate"],
        must=f"≥ {means['K-SVD']:.2f} (K-SVD)",
        goal=f"≥ {means['BM3D']:.2f} (BM3D)",
        note=note,
    )
    for name in list(METHODS)[1:]:
        lab.row(f"PSNR, dB: {name}", found[name], note=note)
    lab.finding = f"In the mean {beside(means)}."
    figure = Figure(figsize=(9, 2.1), layout="constrained")
    for axes, (name, image) in zip(figure.subplots(1, len(shown)), shown.items(), strict=True):
        top, left = (max(0, length // 2 - 96) for length in image.shape)
        axes.imshow(image[top : top + 192, left : left + 192], cmap="gray", vmin=0, vmax=255)
        axes.set_title(name, fontsize=8)
        axes.set_axis_off()
    lab.picture(figure, "The middle of scikit-image's camera with noise of σ = 25, and what each method makes of it.")


def beside(means: dict[str, float]) -> str:
    """How far groundstate is from each of the others, dB."""
    distances = {name: means["groundstate"] - value for name, value in means.items() if name != "groundstate"}
    return ", ".join(f"{abs(d):.2f} dB {'above' if d > 0 else 'below'} {name}" for name, d in distances.items())
