"""Work beside the main thread, in order: items made ahead of their use, results written behind it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self, TypeVar

T = TypeVar("T")


def made_ahead(items: Iterable[T], ahead: int = 1) -> Iterator[T]:
    """The same items in the same order; while one is used, up to ``ahead`` more are made in a thread.

    What making one raises is raised in its place. When the caller stops early, the thread ends with the item it
    is at.
    """
    iterator, end = iter(items), object()
    with ThreadPoolExecutor(1, "ahead") as pool:
        pending: deque[Future[Any]] = deque(pool.submit(next, iterator, end) for _ in range(ahead))
        while (item := pending.popleft().result()) is not end:
            pending.append(pool.submit(next, iterator, end))
            yield item


class Behind:
    """Calls made one after another in a thread, at most ``waiting`` of them not begun yet.

    What a call raises is raised by a later one, or at the end of the ``with`` block, which waits for all of them;
    when the block itself fails, those that have not begun are dropped.
    """

    def __init__(self, waiting: int = 2) -> None:
        self._pool = ThreadPoolExecutor(1, "behind")
        self._pending: deque[Future[Any]] = deque()
        self._waiting = waiting

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            while kind is None and self._pending:
                self._pending.popleft().result()
        finally:
            self._pool.shutdown(cancel_futures=True)

    def __call__(self, function: Callable[..., object], *arguments: Any) -> None:
        while len(self._pending) >= self._waiting:
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(function, *arguments))
