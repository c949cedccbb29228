"""The threads that work on an engine's shards and on spans of its batches.

Whoever waits for them may be interrupted between any two of its instructions. So what the two sides share is locked and
queued by C code alone: concurrent.futures keeps locks in Python code, which an interrupt can leave locked for good.
"""

import weakref
from collections.abc import Callable
from itertools import pairwise
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Any, Final, Generic, TypeVar

from rfmstream.engine.core.processors import this_process

_T = TypeVar("_T")

_SPAN_ROWS_MIN: Final = 1 << 13
_LOOK_AGAIN_S: Final = 0.05
"""After which a wait looks by itself, where an interrupt has taken the word that it was waiting for."""

_Task = Callable[[], None]


class Workers:
    """Threads that do what they are given, in order; they end when nobody refers to this any more."""

    def __init__(self, count: int, name: str) -> None:
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        for number in range(count):
            Thread(target=_serve, args=(self._tasks,), name=f"{name}-{number}", daemon=True).start()
        weakref.finalize(self, _dismiss, self._tasks, count)

    def give(self, task: _Task) -> None:
        """Have a task done, which raises nothing."""
        self._tasks.put(task)


def _serve(tasks: "SimpleQueue[_Task | None]") -> None:
    while (task := tasks.get()) is not None:
        task()
        del task  # it may hold memory, and the next one may be far away


def _dismiss(tasks: "SimpleQueue[_Task | None]", count: int) -> None:
    for _ in range(count):
        tasks.put(None)


class Waited:
    """Waits, in one thread, for what others say; neither is lost by an interrupt."""

    def __init__(self) -> None:
        self._said: SimpleQueue[None] = SimpleQueue()

    def say(self) -> None:
        """Wake whoever waits."""
        self._said.put(None)

    def until(self, condition: Callable[[], bool]) -> None:
        """Return once the condition holds, which nobody makes false again."""
        while not condition():
            try:
                self._said.get(timeout=_LOOK_AGAIN_S)
            except Empty:
                continue


class _Round(Generic[_T]):
    """One call of a function for each of several items."""

    def __init__(self, function: Callable[[Any], _T], items: list[Any]) -> None:
        self._function = function
        self._items = items
        self._results: dict[int, _T] = {}
        self._errors: dict[int, BaseException] = {}
        self._lock = Lock()
        self._is_closed = False
        self._begun = 0
        self._ended: list[int] = []
        self._waited = Waited()

    def task(self, number: int) -> _Task:
        """Return what calls the function for an item, unless the round is closed by then."""

        def call() -> None:
            with self._lock:
                if self._is_closed:
                    return
                self._begun += 1
            try:
                self._results[number] = self._function(self._items[number])
            except BaseException as error:  # noqa: BLE001 - told to the thread that waits
                self._errors[number] = error
            self._ended.append(number)
            self._waited.say()

        return call

    def results(self) -> list[_T]:
        """Wait for all, and return the results in the order of the items; else raise the first item's error."""
        count = len(self._items)
        self._waited.until(lambda: len(self._ended) == count)
        for number in sorted(self._errors):
            raise self._errors[number]
        return [self._results[number] for number in range(count)]

    def close(self) -> None:
        """Let no call begin any more, and wait for those that have: an interrupt, too, waits for them."""
        late: BaseException | None = None
        while True:
            try:
                with self._lock:
                    self._is_closed = True
                self._waited.until(lambda: len(self._ended) == self._begun)
                break
            except BaseException as error:  # noqa: BLE001 - raised below
                late = error
        if late is not None:
            raise late


class Threads:
    """Calls a function for each of several items, on so many threads.

    Fields  count  threads; 1: the caller's own
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._start()

    def _start(self) -> None:
        self._process = this_process()
        self._workers = Workers(self.count, "shard") if self.count > 1 else None

    def spans(self, rows: int) -> list[tuple[int, int]]:
        """Cut rows into spans [first, end) to share among the threads, each large enough to be worth it."""
        parts = max(min(self.count, rows // _SPAN_ROWS_MIN), 1)
        edges = [rows * i // parts for i in range(parts + 1)]
        return list(pairwise(edges))

    def for_each(self, function: Callable[[Any], _T], items: list[Any]) -> list[_T]:
        """Call a function for each item and return the results in the order of the items.

        Whatever leaves here, an interrupt included: nobody is still at work then.
        """
        if self._workers is not None and this_process() != self._process:
            self._start()  # a process that was forked has none of its parent's threads
        if self._workers is None or len(items) < 2:
            return [function(item) for item in items]
        calls = _Round(function, items)
        try:
            for number in range(len(items)):
                self._workers.give(calls.task(number))
            return calls.results()
        finally:
            calls.close()
