"""Memory: what the C library does with what tensors give back, and the errors that say there is no more."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache

import torch

TRIM, MMAP = -1, -3
"""mallopt's parameters M_TRIM_THRESHOLD and M_MMAP_THRESHOLD."""
KEPT = 256 * 2**20
"""Bytes of freed memory that stay with the process."""
MAPPED = 32 * 2**20
"""From this many bytes on, a tensor has pages of its own, which it gives back at once; the largest that glibc takes."""


@cache
def keep_freed_memory() -> None:
    """Let glibc keep up to 256 MiB of freed memory, once in a process.

    By default it gives back whatever is freed above some hundred kB, and every tensor of that size then costs a page
    fault per 4 kB: as much as the arithmetic on it. Does nothing with another C library, or where the environment
    says how (MALLOC_TRIM_THRESHOLD_, MALLOC_MMAP_THRESHOLD_).
    """
    if not sys.platform.startswith("linux") or any(name.startswith("MALLOC_") for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(TRIM, KEPT)
        mallopt(MMAP, MAPPED)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a tensor or an array found no room."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    # what PyTorch's allocator on a processor raises has no class of its own
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
