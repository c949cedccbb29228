"""Fresh memory, made resident by a thread of its own before the kernels reach it.

The system hands memory out when it is first written to, and that can take longer than what is then done with it: 2.5 ns
a byte where a virtual machine's host has to find the page, 0.05 to 0.4 ns elsewhere. State and columns grow at their
end and by steps much alike, so the pages of the next steps can be asked for while this one is computed. That takes a
processor which would be idle; where there is none, pages come when they come.
"""

from functools import cache
from threading import Lock
from typing import Final

from rfmstream.engine.core.processors import this_process, usable_cores
from rfmstream.engine.core.threads import Waited, Workers
from rfmstream.kernels.memory import touch_pages

LARGE_PAGE: Final = 1 << 21


class Touching:
    """Memory that is made resident some time soon.

    In      owner  keeps the memory alive until then
    """

    def __init__(self, owner: object, address: int, size: int) -> None:
        self._memory: tuple[object, int, int] | None = (owner, address, size)
        self._process = this_process()
        self._lock = Lock()
        self._has_begun = self._is_done = False
        self._waited = Waited()

    def run(self) -> None:
        """Touch the memory, unless that was cancelled."""
        with self._lock:
            memory, self._has_begun = self._memory, self._memory is not None
        if memory is not None:
            _, address, size = memory
            touch_pages(address, size)
        self._memory, self._is_done = None, True
        self._waited.say()

    def cancel(self) -> bool:
        """Let it not happen; False: it has begun."""
        with self._lock:
            if not self._has_begun:
                self._memory, self._is_done = None, True
        return not self._has_begun

    def done(self) -> bool:
        """Tell whether it is over; in a process that was forked nobody is at it."""
        return self._is_done or this_process() != self._process

    def wait(self) -> None:
        """Wait until it is over."""
        self._waited.until(self.done)


def has_idle_processor(threads: int) -> bool:
    """Tell whether this process may use more processors than so many threads keep busy."""
    return usable_cores() > threads


@cache
def _workers(_: int) -> Workers:
    return Workers(1, "touch-ahead")


def touch(owner: object, address: int, size: int) -> Touching:
    """Make `size` bytes at an address resident, some time soon; their content stays, whoever writes to them meanwhile.

    owner  keeps the memory alive until then
    """
    touching = Touching(owner, address, size)
    # Those of this process: one that was forked has none of its parent's threads.
    _workers(this_process()).give(touching.run)
    return touching
