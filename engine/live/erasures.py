"""Which customers that were erased some checkpoint may still hold, and from when on it must not.

A checkpoint at an offset holds what was erased by a record at that offset or behind it. What is remembered is bounded:
erasures that are close to each other count as one, at the offset of the last and the instant of the first.

Source: docs/semantics.md 3 (`erased`); docs/live.md, Erasure.
"""

from bisect import bisect_left
from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

CLOSE_US: Final = 3_600_000_000
"""Erasures so close to each other count as one."""


class Erasures:
    """Erasures of one partition that older checkpoints know nothing of.

    noted  (offset of the record, its instant) of each, as `noted` returns them
    """

    def __init__(self, noted: Iterable[Iterable[int]] = ()) -> None:
        self._noted = [(int(offset), int(at_us)) for offset, at_us in noted]

    @property
    def noted(self) -> list[tuple[int, int]]:
        """What is to be written down, in order of their offsets."""
        return list(self._noted)

    def note(self, offsets: NDArray[np.int64], at_us: NDArray[np.int64]) -> None:
        """Note erasures by the records at these offsets, at the instants these records have."""
        for offset, instant_us in zip(offsets.tolist(), at_us.tolist(), strict=True):
            if self._noted:
                last_offset, first_us = self._noted[-1]
                if offset <= last_offset:
                    # By another view, or once more after a start.
                    at = bisect_left(self._noted, (offset,))
                    self._noted[at] = self._noted[at][0], min(self._noted[at][1], instant_us)
                    continue
                if instant_us < first_us + CLOSE_US:
                    self._noted[-1] = offset, min(first_us, instant_us)
                    continue
            self._noted.append((offset, instant_us))

    def overdue(self, now_us: int, within_us: int) -> int | None:
        """Return the offset up to which checkpoints have to go by now; None: none has to.

        An instant in the future counts as now from here on: the clock of whoever wrote the record is wrong.
        """
        self._noted = [(offset, min(at_us, now_us)) for offset, at_us in self._noted]
        late = [offset for offset, at_us in self._noted if at_us + within_us <= now_us]
        return max(late, default=None)

    def settle(self, oldest: int | None) -> None:
        """Forget what the oldest checkpoint that is there, at an offset, knows of; None: it is not known which is."""
        if oldest is not None:
            self._noted = [(offset, at_us) for offset, at_us in self._noted if offset >= oldest]

    def clear(self) -> None:
        """Forget all: there is no older checkpoint."""
        self._noted = []
