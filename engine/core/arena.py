"""Memory that grows in place: a numpy array over an anonymous mapping.

numpy's own growth copies, and its zero-filled resize touches every new page. A mapping is enlarged by the kernel by
moving page tables (mremap), and what has not been written takes no memory, so capacity can double while the resident
size follows what is used. Where the system has no mremap the content is copied.
"""

import mmap
from typing import Any, Final

import numpy as np

from rfmstream.engine.core.touch import LARGE_PAGE, Touching, touch

_STEPS_AHEAD: Final = 4


class Arena:
    """An array of `dtype` with room for `capacity` elements, zeroed.

    Holds   `array` is replaced by `grow`, and nobody else may hold the old one then
    """

    def __init__(self, dtype: Any, capacity: int) -> None:  # noqa: ANN401 - any numpy dtype
        self._dtype = np.dtype(dtype)
        self._mapping = _map(_whole(self._dtype.itemsize * capacity))
        self.array = self._view(capacity)
        self._used = self._touched = 0
        self._touching: Touching | None = None

    def touch_ahead(self, used: int) -> None:
        """Have the memory that the next steps will take made resident, if they take as much as the step before.

        used  elements in use after this step
        """
        end = used * self._dtype.itemsize
        grown, self._used = end - self._used, end
        first, last = max(end, self._touched), min(end + _STEPS_AHEAD * grown, len(self._mapping))
        if last - first >= LARGE_PAGE and (self._touching is None or self._touching.done()):
            self._touched = last
            address = self.array.__array_interface__["data"][0]
            self._touching = touch(self._mapping, address + first, last - first)

    def grow(self, capacity: int, most: int | None = None) -> None:
        """Make room for at least `capacity` elements, or double it, whichever is more; the content stays.

        most  elements from which on it is not doubled

        Who still holds the old array keeps the old memory: the content is copied then. Where there is no memory for
        more, everything stays as it was.
        """
        before = self.array.shape[0]
        doubled = 2 * self.array.shape[0]
        capacity = max(capacity, doubled if most is None else min(doubled, most))
        size = _whole(self._dtype.itemsize * capacity)
        used = self._dtype.itemsize * self.array.shape[0]
        if self._touching is not None and not self._touching.cancel():
            self._touching.wait()
        grown = before
        try:
            del self.array
            try:
                self._mapping.resize(size)
                _advise(self._mapping)
            except (SystemError, OSError, BufferError):
                larger = _map(size)
                _bytes_of(larger)[:used] = _bytes_of(self._mapping)[:used]
                self._mapping = larger
            grown = capacity
        finally:
            self.array = self._view(grown)

    def _view(self, capacity: int) -> np.ndarray[Any, Any]:
        return np.frombuffer(self._mapping, dtype=self._dtype, count=capacity)


def _bytes_of(mapping: mmap.mmap) -> np.ndarray[Any, Any]:
    return np.frombuffer(mapping, dtype=np.uint8)


def _whole(size: int) -> int:
    """Round a size up to whole large pages: only such a mapping is placed, and moved, so that it can have them."""
    return -(-size // LARGE_PAGE) * LARGE_PAGE if size >= 2 * LARGE_PAGE else size


def _map(size: int) -> mmap.mmap:
    mapping = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    _advise(mapping)
    return mapping


def _advise(mapping: mmap.mmap) -> None:
    """Ask for large pages where there are any: a random access then seldom misses the TLB as well."""
    if hasattr(mmap, "MADV_HUGEPAGE") and len(mapping) >= 2 * LARGE_PAGE:
        mapping.madvise(mmap.MADV_HUGEPAGE)
