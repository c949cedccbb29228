"""Rates that a destination allows: so many requests in each fixed window, whatever the phase of its windows.

A place in a window is given back a whole window after the answer has come, not after the request has left: the
destination counted it before it answered. So it never counts more than it allows, wherever its own windows begin.
"""

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_RATE: Final = re.compile(r"([0-9]{1,9})/([0-9]{0,6})(ms|s|m|h)")
_UNITS_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Rate:
    """At most `count` requests in any `window_s` seconds."""

    count: int
    window_s: float


def parse_rate(text: str) -> Rate | None:
    """Return the rate that a text such as 350/1s or 3500/m says; None: it says none."""
    found = _RATE.fullmatch(text)
    if not found or int(found[1]) == 0 or found[2] in ("0", "00"):
        return None
    return Rate(int(found[1]), int(found[2] or 1) * _UNITS_S[found[3]])


class _Window:
    """One rate: the requests without an answer, and the instants of the answers that still count."""

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self.answers: deque[float] = deque()

    def free_at_s(self, now_s: float, unanswered: int) -> float | None:
        """Return when one more request may leave, at the earliest `now_s`; None: after an answer only."""
        answers = self.answers
        while answers and answers[0] + self.rate.window_s <= now_s:
            answers.popleft()
        excess = len(answers) + unanswered - self.rate.count
        if excess < 0:
            return now_s
        return answers[excess] + self.rate.window_s if excess < len(answers) else None


class Rates:
    """All rates of a destination. Each must allow a request."""

    def __init__(self, rates: Sequence[Rate]) -> None:
        self._windows = [_Window(rate) for rate in rates]
        self._unanswered = 0

    def free_at_s(self, now_s: float) -> float | None:
        """Return when one more request may leave, at the earliest `now_s`; None: after an answer only."""
        at_s = now_s
        for window in self._windows:
            free_s = window.free_at_s(now_s, self._unanswered)
            if free_s is None:
                return None
            at_s = max(at_s, free_s)
        return at_s

    def take(self) -> None:
        """Count a request that leaves."""
        self._unanswered += 1

    def answered(self, now_s: float) -> None:
        """Count its answer, or that none came."""
        self._unanswered -= 1
        for window in self._windows:
            window.answers.append(now_s)
