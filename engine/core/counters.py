"""What an engine counts of all it was ever given."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

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

    def reject(self, reasons: Iterable[str]) -> None:
        """Count rows that were read and rejected."""
        for reason, count in Counter(reasons).items():
            self.read += count
            self.rejected[reason] = self.rejected.get(reason, 0) + count


def count_words(counter: dict[str, int], words: tuple[str, ...], counts: NDArray[np.int64]) -> None:
    """Add counts by a word's code to a counter by word."""
    for code in np.flatnonzero(counts):
        counter[words[code]] = counter.get(words[code], 0) + int(counts[code])
