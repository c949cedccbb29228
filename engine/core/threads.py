"""The threads that work on an engine's shards and on spans of its batches."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import pairwise
from typing import Any, Final, TypeVar

from rfmstream.engine.core.processors import this_process

_T = TypeVar("_T")

_SPAN_ROWS_MIN: Final = 1 << 13


class Threads:
    """Calls a function for each of several items, on so many threads.

    Fields  count  threads; 1: the caller's own
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._start()

    def _start(self) -> None:
        self._process = this_process()
        self._pool = ThreadPoolExecutor(self.count) if self.count > 1 else None

    def spans(self, rows: int) -> list[tuple[int, int]]:
        """Cut rows into spans [first, end) to share among the threads, each large enough to be worth it."""
        parts = max(min(self.count, rows // _SPAN_ROWS_MIN), 1)
        edges = [rows * i // parts for i in range(parts + 1)]
        return list(pairwise(edges))

    def for_each(self, function: Callable[[Any], _T], items: list[Any]) -> list[_T]:
        """Call a function for each item and return the results in the order of the items."""
        if self._pool is not None and this_process() != self._process:
            self._start()  # a process that was forked has none of its parent's threads
        if self._pool is None or len(items) < 2:
            return [function(item) for item in items]
        futures = [self._pool.submit(function, item) for item in items]
        try:
            wait(futures)
        finally:
            wait(futures)  # nobody may still be at work when an error leaves here, or an interrupt
        return [future.result() for future in futures]
