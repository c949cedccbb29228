"""Fresh memory, made resident by a thread of its own before the kernels reach it.

The system hands memory out when it is first written to, and that can take longer than what is then done with it: 2.5 ns
a byte where a virtual machine's host has to find the page, 0.05 to 0.4 ns elsewhere. State and columns grow at their
end and by steps much alike, so the pages of the next steps can be asked for while this one is computed. That takes a
processor which would be idle; where there is none, pages come when they come.
"""

import mmap
import os
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kernels.memory import touch_pages

LARGE_PAGE: Final = 1 << 21

Touching = Future[None]


def has_idle_processor(threads: int) -> bool:
    """Tell whether this process may use more processors than so many threads keep busy."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return allowed > threads


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="touch-ahead")


def touch(owner: object, address: int, size: int) -> Touching:
    """Make `size` bytes at an address resident, some time soon; their content stays, whoever writes to them meanwhile.

    owner  keeps the memory alive until then
    """
    return _pool().submit(_touch, owner, address, size)


def map_memory(size: int) -> mmap.mmap:
    """Return so many bytes of new memory, zeroed; its pages come when they are first written to."""
    mapping = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    use_large_pages(mapping)
    return mapping


def use_large_pages(mapping: mmap.mmap) -> None:
    """Ask for large pages where there are any: a random access then seldom misses the TLB as well."""
    if hasattr(mmap, "MADV_HUGEPAGE") and len(mapping) >= 2 * LARGE_PAGE:
        mapping.madvise(mmap.MADV_HUGEPAGE)


class Ahead:
    """`size` bytes of new memory, asked for and made resident some time soon.

    The asking is the thread's, too: the system lets it wait while it hands out other pages of the process, up to a
    millisecond at a time.
    """

    def __init__(self, size: int) -> None:
        self._memory: NDArray[np.uint8] | None = None
        self._making = _pool().submit(self._make, size)

    def take(self) -> NDArray[np.uint8] | None:
        """Return the memory, resident as far as that has come; None if it has not begun."""
        self._making.cancel()
        return self._memory

    def _make(self, size: int) -> None:
        memory = self._memory = np.frombuffer(map_memory(size), dtype=np.uint8)
        touch_pages(memory.__array_interface__["data"][0], size)


def _touch(_: object, address: int, size: int) -> None:
    touch_pages(address, size)
