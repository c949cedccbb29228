"""What an engine counts of all it was ever given."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass
class Counters:
    """What an engine has seen so far.

    Fields  input_rows  of the files that were replayed: with rows that are no orders, and before lines were summed
    Holds   applied + duplicates + sum(rejected) = read
    """

    read: int = 0
    applied: int = 0
    duplicates: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    changes: dict[str, int] = field(default_factory=dict)
    input_rows: int = 0
    signals: dict[str, int] = field(default_factory=dict)

    def apply(self, applied: int, duplicates: int) -> None:
        """Count rows that were read and not rejected."""
        self.read += applied + duplicates
        self.applied += applied
        self.duplicates += duplicates

    def reject(self, reasons: Iterable[str]) -> None:
        """Count rows that were read and rejected."""
        for reason, count in Counter(reasons).items():
            self.read += count
            self.rejected[reason] = self.rejected.get(reason, 0) + count

    def add(self, others: "Counters") -> None:
        """Add what others counted."""
        for field_ in fields(self):
            ours, theirs = getattr(self, field_.name), getattr(others, field_.name)
            both = dict(Counter(ours) + Counter(theirs)) if isinstance(ours, dict) else ours + theirs
            setattr(self, field_.name, both)

    def since(self, before: "Counters") -> "Counters":
        """Return what was counted since these were `before`, without words of which nothing was."""
        less: dict[str, Any] = {}
        for field_ in fields(self):
            now, then = getattr(self, field_.name), getattr(before, field_.name)
            less[field_.name] = dict(Counter(now) - Counter(then)) if isinstance(now, dict) else now - then
        return Counters(**less)


def count_words(counter: dict[str, int], words: tuple[str, ...], counts: NDArray[np.int64]) -> None:
    """Add counts by a word's code to a counter by word."""
    for word, count in zip(words, counts.tolist(), strict=True):
        if count:
            counter[word] = counter.get(word, 0) + count
