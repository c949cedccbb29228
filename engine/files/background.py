"""Work beside the main thread: reading ahead of it and writing behind it, each in bounded memory.

Decoding, folding and encoding all run outside the interpreter lock, so three threads overlap for real.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Any, Final, Generic, Self, TypeVar

_DEPTH: Final = 4
"""Items on the way: enough to even out a slow one, few enough to be forgotten beside the state."""

_T = TypeVar("_T")
_R = TypeVar("_R")


def read_ahead(items: Iterator[_T], stop: Callable[[], None]) -> Iterator[_T]:
    """Yield `items`, the next few of which are drawn by another thread meanwhile.

    In      items  closed at the end, where they can be: with what they hold, threads and files
            stop   called when the consumer leaves early; makes an item being drawn end soon
    Errors  those of `items`, where they would have come
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
    end: Any = object()
    drawing = Lock()

    def draw() -> Any:  # noqa: ANN401 - an item, or the end
        with drawing:
            return next(items, end)

    try:
        # One worker takes the calls in order, and an exhausted iterator goes on saying so.
        pending = deque(pool.submit(draw) for _ in range(_DEPTH))
        while (item := pending.popleft().result()) is not end:
            pending.append(pool.submit(draw))
            yield item
    finally:
        stop()
        pool.shutdown(cancel_futures=True)
        # An interrupt may have come when the pool did not know yet of its thread, which is not waited for then.
        with drawing:
            if hasattr(items, "close"):
                items.close()


def map_ahead(
    function: Callable[[_T], _R], items: Sequence[_T], threads: int, stop: Callable[[], None]
) -> Iterator[_R]:
    """Yield what a function makes of each item, in order; so many threads work on the next ones meanwhile.

    In      stop  called when the consumer leaves early; makes calls that have begun end soon
    Errors  those of the function, where its result would have come
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="ahead")
    try:
        pending = deque(pool.submit(function, item) for item in items[:threads])
        for following in range(threads, len(items) + threads):
            if not pending:
                break
            made = pending.popleft().result()
            if following < len(items):
                pending.append(pool.submit(function, items[following]))
            yield made
    except BaseException:  # of a call, or the consumer leaves
        stop()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


class WriteBehind(Generic[_T]):
    """Calls `write` with each item, in order, in another thread.

    As a context manager it waits for what it was given, and on an error drops what has not begun.

    In      finish  what `end` has called in that thread, behind everything else
    """

    def __init__(self, write: Callable[[_T], None], finish: Callable[[], None] = lambda: None) -> None:
        self._write = write
        self._finish = finish
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="write-behind")
        self._pending: deque[Future[None]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.flush()
        finally:
            self._pool.shutdown(cancel_futures=True)

    def put(self, item: _T) -> None:
        """Take an item; waits while too many are on the way, and raises what an earlier write raised."""
        if len(self._pending) >= _DEPTH:
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(self._write, item))

    def end(self) -> None:
        """Have finished what was written, without waiting for that: no more items come."""
        self._pending.append(self._pool.submit(self._finish))

    def flush(self) -> None:
        """Wait until everything is written; raises what a write raised."""
        while self._pending:
            self._pending.popleft().result()
