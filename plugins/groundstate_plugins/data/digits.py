"""The 1,797 handwritten digits of 8×8 pixels that scikit-learn bundles."""

from __future__ import annotations

import torch
from pydantic import Field

from groundstate.components import Data
from groundstate.data import DataInfo, Splits
from groundstate.errors import Fault, InputError
from groundstate_plugins.data.rows import SCALE, SPLIT_SEED, Scale, Share, part_sizes, picture_splits

SAMPLES, SIDE, PEAK, CLASSES = 1797, 8, 16, 10


class Digits(Data):
    """Optical recognition of handwritten digits (Alpaydin & Kaynak 1998), split so that each part has every digit.

    x: (64,) or (1, 8, 8), by ``flat``; y: the digit. Needs no download.
    """

    class Config(Data.Config):
        scale: Scale = Field("unit-norm", description=SCALE)
        validation: Share = Field(0.2, description="held out for validation: a count, or a fraction below 1")
        test: Share = Field(0.2, description="held out for the test: a count, or a fraction below 1")
        split_seed: int = Field(0, ge=0, lt=2**32, description=SPLIT_SEED)
        flat: bool = Field(True, description="inputs are (64,) instead of (1, 8, 8)")

    def describe(self) -> DataInfo:
        sizes = self._sizes()
        shape = (SIDE * SIDE,) if self.config.flat else (1, SIDE, SIDE)
        return DataInfo(shape, ("x", "y"), {"train": SAMPLES - sum(sizes.values()), **sizes}, CLASSES)

    def load(self, seed: int) -> Splits:
        """The three parts; ``split_seed`` alone draws them, the run's seed changes nothing."""
        return self._splits(self.config.scale)

    def raw(self) -> Splits:
        """The same parts with pixels in [0, 1], whatever the scale: what a baseline on raw pixels sees."""
        return self._splits("none")

    def _splits(self, scale: Scale) -> Splits:
        # Imported here: scikit-learn takes a second, and describe does not need it.
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        bunch = load_digits()
        pixels, labels = torch.from_numpy(bunch.images).to(torch.uint8), torch.from_numpy(bunch.target).long()
        rows = list(range(SAMPLES))
        parts = {}
        for name, size in self._sizes().items():
            rows, parts[name] = train_test_split(
                rows, test_size=size, stratify=labels[rows], random_state=self.config.split_seed
            )
        parts["train"] = rows
        return picture_splits(
            {name: (pixels[sorted(rows)], labels[sorted(rows)]) for name, rows in parts.items()},
            peak=PEAK,
            scale=scale,
            flat=self.config.flat,
            classes=CLASSES,
            where="digits",
        )

    def _sizes(self) -> dict[str, int]:
        sizes = part_sizes(SAMPLES, self.config.validation, self.config.test)
        for name, size in {**sizes, "training": SAMPLES - sum(sizes.values())}.items():
            if size < CLASSES:
                message = f"{size} samples for {name} are too few to hold each of the {CLASSES} digits"
                raise InputError(Fault(message, ", ".join(f"data.{held}" for held in sizes)))
        return sizes
