"""Restoration: noise removed from an image, or missing pixels filled in, by sparse codes of its patches.

Every patch of the image is coded with a dictionary, and each pixel becomes the mean of what the patches that cover it
say (Elad & Aharon 2006). Without a dictionary, one is learned from the image's own patches. What the energy is, how
codes are found and how the dictionary learns is a config's matter.

This is done several times, each time with less noise assumed, and before each time the image gets back what is known of
it: known pixels where others are missing (Guleryuz 2006), a part of what was removed as noise where there is noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from groundstate.api import FixedDictionary
from groundstate.config import LoadedConfig, assemble, load_config
from groundstate.config.layers import PUBLISHED
from groundstate.data import TensorSource
from groundstate.errors import InputError
from groundstate.interpolation import smooth_fill
from groundstate.learning import Learning, check_finite
from groundstate.model import Model
from groundstate.registry import Registry, system_config

DENOISING, INPAINTING = "groundstate:denoising", "groundstate:inpainting"
TRAINING = 20_000
"""Patches that a dictionary is learned from, at most."""
BLOCK = 8192
"""Patches that are coded together, about."""
FILLING = tuple(0.2 * 0.5 ** (past / 3) for past in range(10))
"""Noise assumed round by round where pixels are missing, over the range of the known ones: a fifth to a fortieth."""
AGAIN, RETURNED = 0.3, 0.2
"""Where there is noise, a last round assumes this part of it, and gets this part of what the others removed."""

Progress = Callable[[str, int, int], None]
"""(what is going on, done, of how many)"""


@dataclass(frozen=True)
class Restored:
    """image: like the one given, in its units. dictionaries: one per channel, (size², units). active: mean number of
    units that are not zero in a patch's code.
    """

    image: Tensor
    dictionaries: tuple[Tensor, ...]
    active: float


def restore(
    image: Tensor,
    *,
    noise: float | None = None,
    mask: Tensor | None = None,
    size: int = 8,
    dictionary: Tensor | None = None,
    config: str | Path | Mapping[str, Any] | None = None,
    changes: Mapping[str, Any] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Restored:
    """The image without its noise, its missing pixels filled in.

    image: (height, width), or (3, height, width) red, green, blue; NaN is a missing pixel. noise: its standard
    deviation in the image's units. mask: (height, width), true where a pixel is known. size: of a patch, pixels.
    dictionary: (size², units), instead of one learned here. config: a run's config, of which the model, the energy,
    the inference, the learning and the phases are used; by default ``groundstate:denoising``, or
    ``groundstate:inpainting`` where pixels are missing. changes: to the config, by key.

    Patches lose their mean and are divided by the noise assumed, so that the weights of an energy do not depend on it.
    Missing pixels start from a smooth surface through the known ones; these keep their value where no noise is given. A
    colour image is restored in three orthonormal channels, one of them its grey, each with a dictionary of its own.
    Raises InputError.
    """
    image, known = _checked(image, noise, mask, size)
    if dictionary is not None and (dictionary.dim() != 2 or dictionary.shape[0] != size * size):
        raise InputError(
            f"the dictionary has shape {tuple(dictionary.shape)}; for patches of {size}×{size} it is "
            f"({size * size}, units)"
        )
    complete = bool(known.all())
    loaded = _load(config if config is not None else DENOISING if complete else INPAINTING, changes)
    planes, turn = _planes(image)
    rounds = _rounds(image[..., known], noise, complete)
    results, dictionaries, active = [], [], []
    for number, plane in enumerate(planes):
        estimate = plane if complete else smooth_fill(plane, known)
        for past, (level, back) in enumerate(rounds):
            say = _named(progress, f" {number * len(rounds) + past + 1}/{len(planes) * len(rounds)}")
            given = torch.where(known, estimate + back * (plane - estimate), estimate)
            task = _Plane(given / level, size)
            model = _model(loaded, task, dictionary, seed, say)
            found, count = task.restored(model, say)
            estimate = found * level
        results.append(estimate)
        active.append(count)
        assert model.decoder is not None
        matrix = model.decoder.structure()
        assert matrix is not None
        dictionaries.append(matrix.matrix.detach().clone())
    result = torch.einsum("cd,chw->dhw", turn, torch.stack(results)).view(image.shape)
    if noise is None:
        result = torch.where(known, image, result)
    return Restored(result, tuple(dictionaries), sum(active) / len(active))


def psnr(image: Tensor, truth: Tensor, peak: float = 255.0) -> float:
    """Peak signal-to-noise ratio in decibels."""
    error = float((image.double() - truth.double()).square().mean())
    return math.inf if error == 0 else 10 * math.log10(peak**2 / error)


def _checked(image: Tensor, noise: float | None, mask: Tensor | None, size: int) -> tuple[Tensor, Tensor]:
    """The image with 0 where it is missing, and where it is known, (height, width)."""
    if not (image.dim() == 2 or (image.dim() == 3 and len(image) == 3)):
        raise InputError(f"the image has shape {tuple(image.shape)}; it must be (height, width) or (3, height, width)")
    height, width = image.shape[-2:]
    if size < 2:
        raise InputError(f"a patch of {size}×{size} pixels holds no structure; give at least 2")
    if min(height, width) < size:
        raise InputError(f"the image has {height}×{width} pixels, fewer than a patch of {size}×{size}")
    if noise is not None and not (math.isfinite(noise) and noise > 0):
        raise InputError(f"the noise is {noise:g}; its standard deviation is a finite number above 0")
    image = image.double()
    if bool(image.isinf().any()):
        raise InputError("the image holds infinity; a pixel is a finite number, or NaN where it is missing")
    known = ~image.isnan() if image.dim() == 2 else ~image.isnan().any(0)
    if mask is not None:
        if tuple(mask.shape) != (height, width):
            shape = "×".join(map(str, mask.shape))
            raise InputError(f"the mask has {shape} pixels, the image {height}×{width}; they must be alike")
        known &= mask.bool()
    if not bool(known.any()):
        raise InputError("every pixel of the image is missing; some must be known")
    if noise is None and bool(known.all()):
        raise InputError("nothing is to be done: give the noise's standard deviation, or say which pixels are missing")
    return torch.where(known, image, 0.0), known


def _rounds(known: Tensor, noise: float | None, complete: bool) -> list[tuple[float, float]]:
    """Round by round the noise assumed, and the part of what is known that the image gets back before it.

    known: values of known pixels, of any shape.
    """
    extent = float(known.max() - known.min()) or 1.0
    filling = [] if complete else [(part * extent, 1.0) for part in FILLING]
    if noise is None:
        return filling
    return [one for one in filling if one[0] > noise] + [(noise, 1.0), (AGAIN * noise, RETURNED)]


def _load(config: str | Path | Mapping[str, Any], changes: Mapping[str, Any] | None) -> LoadedConfig:
    if isinstance(config, str) and config.startswith(PUBLISHED):
        config = system_config(Registry.discover(), config)
    return load_config(config, changes)


def _planes(image: Tensor) -> tuple[Tensor, Tensor]:
    """(channels, height, width) whose noise is white and alike, and the orthonormal matrix that made them of the image:
    grey, red − blue, and green against both.
    """
    if image.dim() == 2:
        return image[None], torch.ones(1, 1, dtype=image.dtype)
    turn = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]], dtype=image.dtype)
    turn = turn / turn.norm(dim=1, keepdim=True)
    return torch.einsum("cd,dhw->chw", turn, image), turn


def _named(progress: Progress | None, suffix: str) -> Progress:
    return (lambda *_: None) if progress is None else lambda what, done, of: progress(what + suffix, done, of)


class _Plane:
    """One channel and its patches. image: (height, width)."""

    def __init__(self, image: Tensor, size: int) -> None:
        self.image, self.size = image, size
        self.rows, self.columns = (side - size + 1 for side in image.shape)

    def __len__(self) -> int:
        return self.rows * self.columns

    def read(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """These patches, (m, size²), in reading order of their corners, and the means that they lost, (m, 1)."""
        windows = self.image.unfold(0, self.size, 1).unfold(1, self.size, 1)
        x = windows[rows // self.columns, rows % self.columns].flatten(1)
        mean = x.mean(1, keepdim=True)
        return (x - mean).float(), mean

    def some(self, generator: torch.Generator) -> Tensor:
        """The patches that a dictionary is learned from."""
        x, _ = self.read(torch.randperm(len(self), generator=generator)[:TRAINING])
        told = x.square().sum(1) > 0  # a flat patch tells nothing
        return x[told] if bool(told.any()) else x

    def blocks(self) -> Iterator[Tensor]:
        """The numbers of all patches, some rows of them at a time."""
        step = self.columns * max(1, BLOCK // self.columns)
        for first in range(0, len(self), step):
            yield torch.arange(first, min(first + step, len(self)))

    def restored(self, model: Model, progress: Progress) -> tuple[Tensor, float]:
        """(height, width), and the mean number of active units."""
        height, width = self.image.shape
        total, weight = self.image.new_zeros(2, height * width)
        corner = torch.arange(self.size)
        offsets = (corner[:, None] * width + corner).flatten()
        active = 0.0
        for rows in self.blocks():
            x, mean = self.read(rows)
            with torch.no_grad():
                code = model.encode(x)
                patches = model.decode(code).cpu().double() + mean
            count = (code != 0).flatten(1).sum(1).cpu()
            active += float(count.sum())
            trust = 1 / (1.0 + count.double())  # noise enters with every active unit
            place = ((rows // self.columns) * width + rows % self.columns)[:, None] + offsets
            total.index_add_(0, place.flatten(), (patches * trust[:, None]).flatten())
            weight.index_add_(0, place.flatten(), trust[:, None].expand_as(patches).flatten())
            progress("coding", int(rows[-1]) + 1, len(self))
        return (total / weight).view(height, width), active / len(self)


def _model(loaded: LoadedConfig, plane: _Plane, dictionary: Tensor | None, seed: int, progress: Progress) -> Model:
    """The config's model on this plane's patches, with the dictionary given or one that is learned from them."""
    parts = assemble(loaded)
    if len(parts.layers) > 1:
        raise InputError("restoration is by one layer's dictionary; the config has several layers")
    (layer,) = parts.layers
    (table,) = loaded.config.stack.values()
    shape = (plane.size**2,)
    if dictionary is not None:
        columns = dictionary.detach().float()
        columns = columns / columns.norm(dim=0).clamp_min(torch.finfo(columns.dtype).tiny)
        model = Model(terms=layer.terms, solver=layer.solver, decoder=FixedDictionary(columns), backend=parts.backend)
        return model.build(shape, seed=seed)
    model = Model(
        terms=layer.terms, solver=layer.solver, encoder=layer.encoder, decoder=layer.decoder, backend=parts.backend
    )
    generator = torch.Generator().manual_seed(seed)
    source = TensorSource(x=plane.some(generator))
    model.build(shape, sample=source.fields["x"][: layer.learner.config.sample], seed=seed)
    if model.dictionary is None:
        raise InputError("restoration needs a linear decoder on flat codes, e.g. [model.decoder] type = 'linear'")
    learning = Learning(model, layer.learner)
    size = layer.learner.config.batch_size
    batches = -(-len(source) // size)
    steps, total = 0, batches * sum(phase.epochs for phase in table.phases.values())
    for phase in table.phases.values():
        learning.start_phase(phase)
        learning.start_average()
        for epoch in range(phase.epochs):
            order = torch.randperm(len(source), generator=generator)
            for number, batch in enumerate(source.batches(size, order=order)):
                done = epoch + number / batches
                rate = learning.rate(done / phase.epochs, done)
                result = learning.step(batch.to(model.device, model.dtype), rate=rate, generator=generator)
                steps += 1
                check_finite(result.energies, steps)
                progress("learning", steps, total)
        learning.adopt_average()
    return model
