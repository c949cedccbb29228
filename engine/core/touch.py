"""Fresh memory, made resident by a thread of its own before the kernels reach it.

The system hands memory out when it is first written to, and that can take longer than what is then done with it: 2.5 ns
a byte where a virtual machine's host has to find the page, 0.05 to 0.4 ns elsewhere. State and columns grow at their
end and by steps much alike, so the pages of the next steps can be asked for while this one is computed. That takes a
processor which would be idle; where there is none, pages come when they come.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Final

from rfmstream.engine.core.processors import usable_cores
from rfmstream.kernels.memory import touch_pages

LARGE_PAGE: Final = 1 << 21

Touching = Future[None]


def has_idle_processor(threads: int) -> bool:
    """Tell whether this process may use more processors than so many threads keep busy."""
    return usable_cores() > threads


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="touch-ahead")


def touch(owner: object, address: int, size: int) -> Touching:
    """Make `size` bytes at an address resident, some time soon; their content stays, whoever writes to them meanwhile.

    owner  keeps the memory alive until then
    """
    return _pool().submit(_touch, owner, address, size)


def _touch(_: object, address: int, size: int) -> None:
    touch_pages(address, size)
