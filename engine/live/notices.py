"""Log lines about events that may come a thousand times a second: the first of a kind at once, then one in a while."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Final

EVERY_S: Final = 60.0


class Notices:
    """Says things, each kind at most once in EVERY_S, with how often it has happened since it was last said.

    In      now_s  a clock that does not go back
    """

    def __init__(self, log: logging.Logger, now_s: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._now_s = now_s
        self._said_s: dict[Hashable, float] = {}
        self._since: Counter[Hashable] = Counter()

    def warn(self, kind: Hashable, message: str, count: int = 1, **extra: object) -> None:
        """Say that something has happened so many times; `extra` describes one of them."""
        self._since[kind] += count
        now_s = self._now_s()
        if now_s - self._said_s.get(kind, -EVERY_S) < EVERY_S:
            return
        self._said_s[kind] = now_s
        self._log.warning(message, extra={"count": self._since.pop(kind), **extra})
