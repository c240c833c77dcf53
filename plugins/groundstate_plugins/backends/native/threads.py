"""Blocks of samples on threads: compiled code that releases the interpreter's lock runs on all of them.

Python's threads instead of numba's own: those may not be entered from two threads at once, or used after a fork.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch


def in_blocks(work: Callable[[int, int], None], samples: int, size: int) -> None:
    """Call work(first, end) for blocks of at most ``size`` samples, on as many threads as PyTorch uses.

    A block must not depend on another: which thread takes it, and when, is open.
    """
    blocks = [(first, min(first + size, samples)) for first in range(0, samples, size)]
    threads = min(torch.get_num_threads(), len(blocks))
    if threads <= 1:
        for first, end in blocks:
            work(first, end)
        return
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(lambda block: work(*block), blocks):
            pass
