"""What benchmarks of codes encode: whitened patches of photographs, with a dictionary SPAMS trains on others."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import spams
import torch
from torch import Tensor

from groundstate_plugins.data.image_patches import ImagePatches


def arguments(description: str | None, samples: int) -> argparse.ArgumentParser:
    """The options that these benchmarks share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="a folder of photographs; scikit-learn's two by default")
    parser.add_argument("--samples", type=int, default=samples)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dictionary", type=Path, help="(inputs, units) .npy; a short SPAMS training by default")
    return parser


def patches_and_dictionary(options: argparse.Namespace, units: int) -> tuple[Tensor, Tensor]:
    """Float64 patches (samples, 144) and a dictionary (144, units) with atoms of length one, for the options given."""
    data = ImagePatches(path=options.photos, train=options.samples + 20_000, validation=0, test=0, unit_variance=True)
    source = data.load(0).train
    patches = source.read(torch.arange(len(source))).x.double()
    x, rest = patches[: options.samples], patches[options.samples :]
    if options.dictionary is not None:
        return x, torch.from_numpy(np.load(options.dictionary)).double()
    trained = spams.trainDL(
        np.asfortranarray(rest.numpy().T), K=units, lambda1=3.0, mode=2, iter=60, batchsize=128,
        numThreads=options.threads, verbose=False,
    )  # fmt: skip
    return x, torch.nn.functional.normalize(torch.from_numpy(trained), dim=0)
