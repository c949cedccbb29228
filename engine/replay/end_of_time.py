"""The instant to which parts of one history let time pass: the newest event that any of them applies.

Only folding tells which events are applied. A part with the newest event is folded first, and as a rule applies it:
then all parts know where time ends before they get there.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition

import numpy as np
from numpy.typing import NDArray

_LOOK_AGAIN_S = 0.05


class EndOfTime:
    """Lets the parts agree; each of them is folded by some thread.

    In      clock_us   before the first part; NEVER_US: at the beginning
            newest_us  i64[parts], of each part's events
    """

    def __init__(self, clock_us: int, newest_us: NDArray[np.int64]) -> None:
        self._known_us = clock_us
        self._newest_us = newest_us
        self._unfolded = set(range(len(newest_us)))
        self._in_work: set[int] = set()
        self._changed = Condition()
        self._is_over = False

    def order(self) -> list[int]:
        """Return the parts, that of the newest event first."""
        parts: list[int] = np.argsort(-self._newest_us, kind="stable").tolist()
        return parts

    @contextmanager
    def folding(self, part: int) -> Iterator[None]:
        """Be at work on a part."""
        with self._changed:
            self._in_work.add(part)
        try:
            yield
        finally:
            with self._changed:
                self._in_work.discard(part)
                self._changed.notify_all()

    def folded(self, part: int, clock_us: int) -> None:
        """Tell a part's clock after all of its events."""
        with self._changed:
            self._known_us = max(self._known_us, clock_us)
            self._unfolded.discard(part)
            self._changed.notify_all()

    def agreed_us(self) -> int | None:
        """Return the instant; None: it depends on parts that nobody is at work on yet."""
        with self._changed:
            while not self._is_settled():
                if self._is_over or not self._in_work:
                    return None
                self._changed.wait(_LOOK_AGAIN_S)
            return self._known_us

    def give_up(self) -> None:
        """Let nobody wait any more."""
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def _is_settled(self) -> bool:
        return all(self._newest_us[part] <= self._known_us for part in self._unfolded)
