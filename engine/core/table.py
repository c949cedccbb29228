"""The memory of a hash table that grows piece by piece; what is in it is `kernels.table`'s."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfmstream.engine.core.arena import Arena
from rfmstream.engine.core.kernel_records import KernelRecord
from rfmstream.kernels.layout import DIRECTORY, SEGMENT, TABLE


class Table:
    """An empty table: its spare segment, and one that has every tag at first.

    Fields  record  a `kernels.layout.TABLE`
    """

    def __init__(self) -> None:
        self.record = KernelRecord(TABLE, shift=32, n_segments=2)
        self._arena = Arena(np.int64, 4 * SEGMENT)
        directory = np.zeros(DIRECTORY, dtype=np.uint32)
        directory[0] = 1
        self.record.point(pairs=self._arena.array, directory=directory)

    @property
    def pairs(self) -> NDArray[Any]:
        """The segments in use, i64; hold them no longer than until the next event."""
        return self._arena.array[: self.record.row.n_segments * SEGMENT]

    def touch_ahead(self) -> None:
        """Have the memory of the segments the next steps will add made resident."""
        self._arena.touch_ahead(self.record.row.n_segments * SEGMENT)

    def make_room(self, more: int) -> None:
        """Make room for the segments that so many more pairs can take, and one; what is not used takes no memory."""
        # A longer run means that hash after hash named the same two lines, as random keys of the hash never do.
        assert self._arena.array[SEGMENT // 2] == 0
        least = (self.record.row.n_segments + 1) * SEGMENT + 3 * more
        if self._arena.array.shape[0] < least:
            self.record.release("pairs")
            self._arena.grow(least)
            self.record.point(pairs=self._arena.array)
