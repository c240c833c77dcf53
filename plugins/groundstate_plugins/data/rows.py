"""What several data plugins do to samples: hold some out, bring them to one scale, make labelled pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from groundstate.data import Splits, TensorSource, fingerprint, require_usable
from groundstate.errors import Fault, InputError

Scale = Literal["unit-norm", "none", "standard"]
SCALE = (
    "unit-norm: each sample divided by its L2 norm; none: as it is, pixels in [0, 1]; "
    "standard: minus the mean of all training entries, divided by their standard deviation"
)
SPLIT_SEED = "draws the samples that are held out; apart from the run's seed, so that runs stay comparable"


def _count_or_fraction(share: float) -> float:
    if isinstance(share, float) and share >= 1:
        raise ValueError(f"a fraction lies below 1, {share:g} does not; write a count without a decimal point")
    return share


Share = Annotated[int | float, Field(ge=0), AfterValidator(_count_or_fraction)]
"""How much to hold out: a count (an integer), or a fraction of all samples (0 ≤ fraction < 1)."""


def part_sizes(count: int, validation: int | float, test: int | float = 0) -> dict[str, int]:
    """The number of samples in each held-out part, without empty parts; at least one stays for training.

    count: of all samples. Raises InputError where nothing would be left.
    """
    shares = {"validation": validation, "test": test}
    sizes = {name: round(s * count) if isinstance(s, float) else s for name, s in shares.items()}
    if sum(sizes.values()) >= count:
        held = " and ".join(f"{size} for {name}" for name, size in sizes.items() if size)
        asked = ", ".join(f"data.{name}" for name, size in sizes.items() if size)
        raise InputError(Fault(f"{held} leave none of the {count} samples for training; hold out fewer", asked))
    return {name: size for name, size in sizes.items() if size}


def unit_norm_(x: Tensor) -> Tensor:
    """Divide each sample, in place, by its L2 norm over all its entries; a sample of zeros stays zero.

    x: (samples, …) floating point.
    """
    norm = torch.linalg.vector_norm(x.flatten(1), dim=1).clamp_min_(torch.finfo(x.dtype).tiny)
    return x.div_(norm.view(-1, *[1] * (x.dim() - 1)))


@dataclass(frozen=True)
class Standardise:
    """Subtract ``mean`` and divide by ``deviation``, in place; both broadcast against (samples, …)."""

    mean: Tensor
    deviation: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return x.sub_(self.mean).div_(self.deviation)


def as_bytes(*words: object) -> Tensor:
    """Settings as a tensor, so that a fingerprint can cover them beside the content."""
    return torch.tensor(list(repr(words).encode()), dtype=torch.uint8)


def picture_splits(
    parts: Mapping[str, tuple[Tensor, Tensor]],
    *,
    peak: int,
    scale: Scale,
    flat: bool,
    classes: int,
    where: str,
) -> Splits:
    """Splits of labelled grey pictures, scaled, in float32.

    parts: by split, pixels (m, height, width) uint8 in 0…peak and labels (m,) int64. flat: inputs are
    (height · width,) instead of (1, height, width). where: the data set, for messages.
    """
    height, width = parts["train"][0].shape[1:]
    require_usable(parts["train"][0], where)
    shape = (height * width,) if flat else (1, height, width)
    inputs = {name: pixels.to(torch.float32).div_(peak).reshape(-1, *shape) for name, (pixels, _) in parts.items()}
    if scale == "standard":
        deviation, mean = torch.std_mean(inputs["train"], correction=0)
        standardise = Standardise(mean, deviation)
        inputs = {name: standardise(x) for name, x in inputs.items()}
    elif scale == "unit-norm":
        inputs = {name: unit_norm_(x) for name, x in inputs.items()}
    sources = {name: TensorSource(x=x, y=parts[name][1]) for name, x in inputs.items()}
    content = [tensor for name in sorted(parts) for tensor in parts[name]]
    return Splits(
        train=sources["train"],
        validation=sources.get("validation"),
        test=sources.get("test"),
        # The pixels as stored rather than the scaled inputs: a quarter of the bytes, and the same on every machine.
        fingerprint=fingerprint(as_bytes(sorted(parts), peak, scale, shape), *content),
        classes=classes,
        picture_shape=(height, width),
    )
