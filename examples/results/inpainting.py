"""Inpainting of photographs: half and four fifths of the pixels missing, against scikit-image's biharmonic surface.

The same photographs and crops as in the protocol ``denoising`` (PHOTOS and CROP in the environment), pixels missing at
random, the same ones for both. The dictionary is learned from the image alone. The noise assumed round by round was
chosen on 96×96 pixels of scikit-image's coins, which is not reported.
"""

from __future__ import annotations

import os

import numpy as np
import torch
from denoising import Floats, photographs
from lab import Lab
from matplotlib.figure import Figure
from numpy.typing import NDArray
from skimage.restoration import inpaint_biharmonic

from groundstate.restoration import psnr, restore

MISSING = (0.5, 0.8)
SHOWN = 96
"""Side of the part in the picture, pixels."""


def ours(image: Floats, known: NDArray[np.bool_]) -> Floats:
    return restore(torch.from_numpy(image), mask=torch.from_numpy(known)).image.numpy().clip(0, 255)


def biharmonic(image: Floats, known: NDArray[np.bool_]) -> Floats:
    found: Floats = 255 * inpaint_biharmonic(np.where(known, image, 0) / 255, ~known)
    return found.clip(0, 255)


def measure(lab: Lab) -> None:
    pictures = photographs(lab)
    size = f", the middle {crop}×{crop} pixels" if (crop := os.environ.get("CROP")) else ""
    note = f"each value an image{size}: {', '.join(pictures)}"
    shown: list[tuple[str, Floats]] = []
    for missing in MISSING:
        found: dict[str, list[float]] = {"groundstate": [], "biharmonic": []}
        for number, (name, clean) in enumerate(pictures.items()):
            known = np.random.default_rng(number).random(clean.shape) >= missing
            images = {"groundstate": ours(clean, known), "biharmonic": biharmonic(clean, known)}
            for method, image in images.items():
                found[method].append(psnr(torch.from_numpy(image), torch.from_numpy(clean)))
            line = ", ".join(f"{method} {values[-1]:.2f}" for method, values in found.items())
            print(f"{name}, {missing:.0%} missing: {line} dB", flush=True)
            if name == "camera":
                shown.append((f"{missing:.0%} missing", np.where(known, clean, 0)))
                shown += images.items()
        rival = float(np.mean(found["biharmonic"]))
        lab.row(
            f"PSNR, dB: {missing:.0%} missing",
            found["groundstate"],
            must=f"≥ {rival:.2f} (biharmonic)",
            note=note,
        )
        lab.row(f"PSNR, dB: biharmonic, {missing:.0%} missing", found["biharmonic"], note=note)
    figure = Figure(figsize=(6, 4.2), layout="constrained")
    for axes, (name, image) in zip(figure.subplots(2, 3).flat, shown, strict=True):
        top, left = (max(0, length // 2 - SHOWN // 2) for length in image.shape)
        axes.imshow(image[top : top + SHOWN, left : left + SHOWN], cmap="gray", vmin=0, vmax=255)
        axes.set_title(name, fontsize=8)
        axes.set_axis_off()
    lab.picture(
        figure,
        "scikit-image's camera with pixels missing (black, left), filled in by sparse codes of patches (middle) and by "
        "the biharmonic surface (right): edges are straighter in the middle.",
    )
