"""How exactly a processor or GPU multiplies: products of float32 may round their factors where that is faster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

MATMUL = {"float32": "highest", "tf32": "high", "bfloat16": "medium"}
"""PyTorch's words for a backend's ``products``."""
COARSE = {"high": 1e-3, "medium": 1e-2}
"""By PyTorch's word: the relative certificate that a code reaches with products rounded so."""


@contextmanager
def exact_products() -> Iterator[None]:
    """Products of float32 in float32, where the process lets them be rounded further."""
    before = torch.get_float32_matmul_precision()
    if before == "highest":
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
