"""Arrow columns as the numpy arrays kernels read, without copying."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rfmstream.engine.core.touch import LARGE_PAGE, Touching, touch


def offsets_and_data(column: pa.StringArray) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Return the offsets i32[n + 1] and bytes u8[] of a string column, where it begins and ends."""
    _, offset_buffer, data_buffer = column.buffers()
    offsets = np.frombuffer(offset_buffer, dtype=np.int32, count=len(column) + 1, offset=4 * column.offset)
    data = np.frombuffer(data_buffer, dtype=np.uint8) if data_buffer else np.empty(0, dtype=np.uint8)
    return offsets, data


def values_of(column: pa.Array, dtype: Any) -> NDArray[Any]:  # noqa: ANN401 - any numpy dtype
    """Return the values of a column of fixed width without nulls as `dtype`."""
    size = np.dtype(dtype).itemsize
    return np.frombuffer(column.buffers()[1], dtype=dtype, count=len(column), offset=size * column.offset)


class Slab:
    """One block of memory from which the columns of a batch are cut.

    Fresh memory costs a page fault for every page, and most of what writing a batch of columns costs is that.
    A block of 4 MiB and more gets large pages from numpy, of which there are 512 times fewer.
    """

    def __init__(self, memory: NDArray[np.uint8]) -> None:
        self._memory = memory
        self._used = 0

    @staticmethod
    def room(*sizes: int) -> int:
        """Return the bytes that arrays of these many bytes take in a slab."""
        return sum(_aligned(size) for size in sizes)

    def take(self, count: int, length: int, dtype: Any) -> list[NDArray[Any]]:  # noqa: ANN401 - any numpy dtype
        """Cut off so many arrays of a length, not initialised, each aligned to a cache line within the block."""
        first = self._used
        self._used += count * _aligned(length * np.dtype(dtype).itemsize)
        # A few rows of one array take a fraction of the time that as many arrays do.
        return [*self._memory[first : self._used].view(dtype).reshape(count, -1)[:, :length]]


class Slabs:
    """Makes slabs of much the same size one after the other, and has the next one made resident ahead of its use."""

    def __init__(self) -> None:
        self._next = np.empty(0, dtype=np.uint8)
        self._touching: Touching | None = None

    def take(self, size: int, *, touch_ahead: bool) -> Slab:
        """Return a slab of at least `size` bytes."""
        if self._touching is not None:
            self._touching.cancel()
        memory, self._next = self._next, np.empty(0, dtype=np.uint8)
        if not size <= memory.size <= 2 * size:
            memory = np.empty(size, dtype=np.uint8)
        if touch_ahead and size >= 2 * LARGE_PAGE:
            self._next = np.empty(size + size // 16, dtype=np.uint8)
            self._touching = touch(self._next, self._next.__array_interface__["data"][0], self._next.size)
        return Slab(memory)


def _aligned(size: int) -> int:
    return -(-size // 64) * 64
