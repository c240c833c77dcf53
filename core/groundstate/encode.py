"""Encode a file of inputs to a file of codes in constant memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from groundstate.data import require_finite
from groundstate.errors import InputError
from groundstate.files import replacing
from groundstate.model import Model


def encode_file(
    model: Model,
    source: Path,
    target: Path,
    *,
    batch_size: int = 1000,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[int, ...]:
    """Codes of the inputs in ``source`` (.npy, (samples, *input_shape)) as ``target`` (.npy, float); their shape.

    The inputs are memory-mapped and the codes written as they come. progress(done, samples) is called after
    each batch. The target appears only when it is whole.
    """
    if source.suffix != ".npy" or target.suffix != ".npy":
        raise InputError(f"encode reads and writes .npy files, not {source.name} → {target.name}")
    try:
        inputs = np.load(source, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise InputError(f"{source} cannot be read as .npy: {error}") from error
    expected = model.shapes.input_shape
    if inputs.ndim < 2 or tuple(inputs.shape[1:]) != expected:
        raise InputError(
            f"{source} has shape {inputs.shape}; this model takes (samples, {', '.join(map(str, expected))})"
        )
    if not target.parent.is_dir():
        raise InputError(f"the folder {target.parent} does not exist")
    shape = (len(inputs), *model.shapes.code_shape)
    dtype = np.float64 if model.dtype == torch.float64 else np.float32
    with replacing(target) as temporary:
        codes = np.lib.format.open_memmap(temporary, mode="w+", dtype=dtype, shape=shape)
        for first in range(0, len(inputs), batch_size):
            x = torch.from_numpy(np.array(inputs[first : first + batch_size], dtype=dtype))
            require_finite(x, str(source), first)
            codes[first : first + len(x)] = model.encode(x).cpu().numpy()
            if progress is not None:
                progress(min(first + batch_size, len(inputs)), len(inputs))
        codes.flush()
    return shape
