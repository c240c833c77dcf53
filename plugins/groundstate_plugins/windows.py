"""Where filters stand on an image: receptive fields of one size, every few pixels."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel, Field

from groundstate.errors import InputError


class WindowFields(BaseModel):
    """Fields of a config for filters that are smaller than the image."""

    size: int = Field(ge=1, description="height and width of a filter, pixels")
    stride: int = Field(1, ge=1, description="pixels between two positions of a filter")
    padding: int = Field(0, ge=0, description="zeros around the image, pixels on each side; less than size")


@dataclass(frozen=True)
class Windows:
    """Receptive fields of ``size`` × ``size`` on images (channels, height, width): ``rows`` × ``columns`` of them."""

    channels: int
    size: int
    stride: int
    padding: int
    rows: int
    columns: int
    left: tuple[int, int]

    @classmethod
    def on(cls, config: WindowFields, input_shape: tuple[int, ...]) -> Windows:
        """InputError where inputs are no images, or images smaller than a receptive field.

        ``left``: rows and columns at the far edges that no window reaches, less than the stride.
        """
        size, stride, padding = config.size, config.stride, config.padding
        if len(input_shape) != 3:
            raise InputError(f"needs images (channels, height, width), not inputs of shape {input_shape}")
        channels, height, width = input_shape
        if padding >= size:
            raise InputError(f"padding: {padding} lets filters of size {size} see zeros alone; it must be less")
        if min(height, width) + 2 * padding < size:
            around = f" with {padding} around them" if padding else ""
            raise InputError(f"size: filters of {size}×{size} are larger than images of {height}×{width}{around}")
        rest = [side + 2 * padding - size for side in (height, width)]
        rows, columns = (room // stride + 1 for room in rest)
        return cls(channels, size, stride, padding, rows, columns, (rest[0] % stride, rest[1] % stride))

    @property
    def pixels(self) -> int:
        """Entries of one filter."""
        return self.channels * self.size**2
