"""What customers are at an instant, as kernels write it: the columns of a snapshot, before they are Arrow's."""

from typing import Final

import numpy as np

from rfmstream.kernels.layout import CHANGE, CUSTOMER
from rfmstream.kernels.outputs import SNAPSHOT_OUTPUTS, SnapshotColumns, SnapshotValidity
from rfmstream.kernels.snapshot import BLOCK

_BITMAPS: Final = len(SnapshotValidity._fields)


class Measured:
    """Rows of customers of one or several shards, one behind the other.

    In      room  rows there is memory for; more is taken where more is needed
    Fields  rows  how many there are
            out, valid  outputs.SnapshotColumns and SnapshotValidity of the room
            scratch     what the kernel needs besides
            scratch_at  the address of a CHANGE that is thrown away
    """

    def __init__(self, room: int) -> None:
        self.rows = 0
        self._room = room
        self.out = SnapshotColumns(*(np.empty(room, column.dtype) for column in SNAPSHOT_OUTPUTS))
        self.valid = SnapshotValidity(*np.empty((_BITMAPS, (room + 7) // 8), np.uint8))
        self.scratch = np.zeros(1, CUSTOMER), np.empty(BLOCK, np.int64)
        self._change = np.zeros(1, CHANGE)
        self.scratch_at: int = self._change.ctypes.data

    def grow(self, rows: int) -> int:
        """Add rows, to be written by the caller; return the first of them."""
        first, self.rows = self.rows, self.rows + rows
        if self.rows > self._room:
            self._room = max(self.rows, 2 * self._room)
            self.out = SnapshotColumns(*(_longer(column, self._room) for column in self.out))
            bits = (self._room + 7) // 8
            self.valid = SnapshotValidity(*(_longer(bitmap, bits) for bitmap in self.valid))
        return first

    def trim(self) -> tuple[SnapshotColumns, SnapshotValidity]:
        """Return the columns and bitmaps of the rows there are."""
        rows, bits = self.rows, (self.rows + 7) // 8
        if rows == self._room:
            return self.out, self.valid
        return (
            SnapshotColumns(*(column[:rows] for column in self.out)),
            SnapshotValidity(*(bitmap[:bits] for bitmap in self.valid)),
        )


def _longer(array: np.ndarray, size: int) -> np.ndarray:
    longer = np.empty(size, array.dtype)
    longer[: array.size] = array
    return longer
