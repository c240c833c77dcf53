"""Patches of photographs, whitened or not, as in the sparse-coding literature."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from pydantic import Field
from torch import Tensor

from groundstate.components import ConfigPath, Data
from groundstate.data import Batch, DataInfo, Source, Splits, fingerprint
from groundstate.errors import Fault, InputError, relative
from groundstate_plugins.data.images import Pixels, find_photographs, intensity, picture_size, read_pixels, whiten
from groundstate_plugins.data.rows import SPLIT_SEED, as_bytes

BUNDLED = {"china.jpg": (427, 640), "flower.jpg": (427, 640)}  # scikit-learn's, CC BY 2.0
FLAT = 1e-6  # norm below which a patch has no contrast, only rounding
HELD_OUT = 6  # one image in so many, or one part of an image in so many, goes to validation; the same to test


@dataclass(frozen=True)
class Region:
    """The pixels of one image that patches of one part may cover; ``image`` counts from 0."""

    image: int
    top: int
    left: int
    height: int
    width: int

    def positions(self, size: int) -> int:
        """How many patches of size × size fit."""
        return max(0, self.height - size + 1) * max(0, self.width - size + 1)


@dataclass(frozen=True)
class PatchSource(Source):
    """Patches cut from images when they are read: 16 bytes a patch, beside the images.

    pixels: all images' pixels in one row, float32. start: (m,) int64, number of each patch's first pixel in
    it. image: (m,) int64, the image it is from. offsets: (images, size²) int64, from a patch's first pixel to
    each of its pixels, which an image's width decides. shape: of one input. remove_mean: subtract each patch's
    mean. factor: multiplies the patches. unit_norm: divide each by its norm, but those without contrast.
    """

    pixels: Tensor
    start: Tensor
    image: Tensor
    offsets: Tensor
    shape: tuple[int, ...]
    remove_mean: bool
    factor: float = 1.0
    unit_norm: bool = False

    def __len__(self) -> int:
        return len(self.start)

    @property
    def names(self) -> tuple[str, ...]:
        return ("x",)

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.shape

    def read(self, rows: Tensor) -> Batch:
        # index_select rather than indexing: several times as fast on small batches.
        offsets = self.offsets.index_select(0, self.image[rows])
        index = offsets.add_(self.start[rows, None])
        x = self.pixels.index_select(0, index.flatten()).view(index.shape)
        if self.remove_mean:
            x -= x.mean(1, keepdim=True)
        if self.factor != 1.0:
            x *= self.factor
        if self.unit_norm:
            norm = x.norm(dim=1, keepdim=True)
            x /= torch.where(norm > FLAT, norm, 1.0)
        return Batch({"x": x.reshape(-1, *self.shape)})


class ImagePatches(Data):
    """Square patches at random places of photographs: grey, log intensity, Olshausen–Field whitening.

    x: (size²,) or (1, size, size), by ``flat``; no labels. Each whitened photograph has unit standard
    deviation; without whitening its values are intensities from 0 to 1. From three photographs on, training,
    validation and test take different ones (a sixth of them, one at least, for each of the last two); of one or
    two, they take separate bands along the longer side (the last sixths for validation and test). Places are
    drawn evenly over all that a part may cover. Images may differ in size.
    """

    class Config(Data.Config):
        path: ConfigPath | None = Field(
            None, description="folder of images, or one image; without it, the two that scikit-learn bundles"
        )
        size: int = Field(12, ge=2, description="height and width of a patch, pixels")
        train: int = Field(20_000, ge=1, description="patches for training")
        validation: int = Field(2_000, ge=0, description="patches for validation")
        test: int = Field(2_000, ge=0, description="patches for the test")
        split_seed: int = Field(0, ge=0, lt=2**32, description=SPLIT_SEED)
        whiten: bool = Field(True, description="take the logarithm of the intensity and whiten it; else the intensity")
        cutoff: float = Field(0.4, gt=0, allow_inf_nan=False, description="of the whitening filter, cycles per pixel")
        border: int = Field(
            8, ge=0, description="pixels at each border that no patch covers; whitening is not exact there"
        )
        remove_mean: bool = Field(True, description="subtract each patch's own mean")
        unit_variance: bool = Field(
            False, description="divide all patches by the root mean square of the training patches' entries"
        )
        unit_norm: bool = Field(False, description="divide each patch by its own L2 norm")
        flat: bool = Field(True, description="inputs are (size²,) instead of (1, size, size)")

    def describe(self) -> DataInfo:
        """Sizes from the images' headers."""
        path = self.config.path
        files = [] if path is None else find_photographs(path)
        self._regions({relative(file): picture_size(file) for file in files} or BUNDLED)
        return DataInfo(self._shape(), ("x",), self._counts())

    def load(self, seed: int) -> Splits:
        """Read all images, and whiten them; ``split_seed`` alone draws the patches, the run's seed changes nothing."""
        config = self.config
        photographs = self._read()
        regions = self._regions({name: pixels.shape[:2] for name, pixels in photographs.items()})
        grey = (intensity(pixels, name) for name, pixels in photographs.items())
        images = [
            torch.from_numpy(whiten(image, config.cutoff) if config.whiten else image).to(torch.float32)
            for image in grey
        ]
        first = torch.tensor([0, *(image.numel() for image in images)]).cumsum(0)
        widths = torch.tensor([image.shape[1] for image in images])
        side = torch.arange(config.size)
        offsets = (widths[:, None, None] * side[:, None] + side).flatten(1)
        pixels = torch.cat([image.flatten() for image in images])
        # Held-out patches are drawn first: how many there are for training does not move them.
        generator = torch.Generator().manual_seed(config.split_seed)
        places = {name: self._draw(regions[name], self._counts()[name], generator) for name in reversed(regions)}
        sources = {
            name: PatchSource(
                pixels,
                start=first[image] + row * widths[image] + column,
                image=image,
                offsets=offsets,
                shape=self._shape(),
                remove_mean=config.remove_mean,
                unit_norm=config.unit_norm,
            )
            for name, (image, row, column) in places.items()
        }
        if config.unit_variance:
            factor = 1 / _root_mean_square(sources["train"])
            sources = {name: replace(source, factor=factor) for name, source in sources.items()}
        settings = [config.size, config.cutoff, config.remove_mean, config.unit_variance, config.flat, list(places)]
        settings += [name for name, said in (("intensity", not config.whiten), ("unit_norm", config.unit_norm)) if said]
        return Splits(
            train=sources["train"],
            validation=sources.get("validation"),
            test=sources.get("test"),
            # The pixels as read rather than whitened: rounding of the transform may differ between machines.
            fingerprint=fingerprint(
                as_bytes(*settings),
                *(torch.from_numpy(picture) for picture in photographs.values()),
                *(torch.stack(place) for place in places.values()),
            ),
            picture_shape=(config.size, config.size),
        )

    def _shape(self) -> tuple[int, ...]:
        size = self.config.size
        return (size * size,) if self.config.flat else (1, size, size)

    def _counts(self) -> dict[str, int]:
        counts = {"train": self.config.train, "validation": self.config.validation, "test": self.config.test}
        return {name: count for name, count in counts.items() if count}

    def _read(self) -> dict[str, Pixels]:
        if self.config.path is not None:
            return {relative(file): read_pixels(file) for file in find_photographs(self.config.path)}
        # Imported here: scikit-learn takes a second, and most have photographs of their own.
        from sklearn.datasets import load_sample_images

        return {name: image.copy() for name, image in zip(BUNDLED, load_sample_images().images, strict=True)}

    def _regions(self, sizes: Mapping[str, tuple[int, int]]) -> dict[str, list[Region]]:
        """What each part may cover. sizes: (height, width) by file. Raises InputError on each image too small."""
        size, border, parts = self.config.size, self.config.border, list(self._counts())
        whole = [
            Region(image, border, border, height - 2 * border, width - 2 * border)
            for image, (height, width) in enumerate(sizes.values())
        ]
        apart = len(parts) == 1 or len(whole) >= 3
        regions = _by_image(whole, parts, self.config.split_seed) if apart else _by_band(whole, parts)
        faults = {}
        for region in (region for part in regions.values() for region in part if not region.positions(size)):
            name, (height, width) = list(sizes.items())[region.image]
            why = f"with a border of {border}" + ("" if apart else " and a sixth of it to hold out")
            message = f"{height}×{width} pixels are too few for patches of {size}×{size} {why}"
            faults[region.image] = Fault(message, where=name)
        if faults:
            raise InputError(faults[image] for image in sorted(faults))
        return regions

    def _draw(self, regions: Sequence[Region], count: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Image, row and column of each patch's first pixel, (count,) each; every place equally likely."""
        size = self.config.size
        last = torch.tensor([region.positions(size) for region in regions]).cumsum(0)
        place = torch.randint(int(last[-1]), (count,), generator=generator)
        chosen = torch.searchsorted(last, place, right=True)
        image, top, left, columns = torch.tensor(
            [(region.image, region.top, region.left, region.width - size + 1) for region in regions]
        )[chosen].T
        place -= torch.cat([last.new_zeros(1), last])[chosen]
        return image, top + place // columns, left + place % columns


def _by_image(whole: Sequence[Region], parts: Sequence[str], seed: int) -> dict[str, list[Region]]:
    """Different images for each part, drawn with the seed; all of them where there is one part."""
    order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(seed)).tolist()
    held = max(1, len(whole) // HELD_OUT)
    regions = {name: [whole[order.pop()] for _ in range(held)] for name in reversed(parts) if name != "train"}
    return {"train": [whole[image] for image in sorted(order)], **dict(reversed(regions.items()))}


def _by_band(whole: Sequence[Region], parts: Sequence[str]) -> dict[str, list[Region]]:
    """A band of every image for each part, along its longer side, without a shared pixel."""
    regions: dict[str, list[Region]] = {name: [] for name in parts}
    for region in whole:
        long = max(region.height, region.width)
        held = max(0, long) // HELD_OUT
        ends = {"train": long - held * (len(parts) - 1)}
        for name in parts[1:]:
            ends[name] = list(ends.values())[-1] + held
        begin = 0
        for name, end in ends.items():
            tall, depth = region.height >= region.width, end - begin
            regions[name].append(
                Region(region.image, region.top + begin, region.left, depth, region.width)
                if tall
                else Region(region.image, region.top, region.left + begin, region.height, depth)
            )
            begin = end
    return regions


def _root_mean_square(source: PatchSource) -> float:
    total = sum(float(batch.x.double().square().sum()) for batch in source.batches(10_000))
    if total == 0:
        message = "every training patch is zero; there is no variance to divide by"
        raise InputError(Fault(message, "data.unit_variance"))
    return math.sqrt(total / (len(source) * math.prod(source.shape)))
