"""The process itself, and the processors it may use."""

import os
from collections.abc import Callable


def usable_cores() -> int:
    """Return how many there are: a container or `taskset` may leave fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def this_process() -> int:
    """Return its number: a fork has another one."""
    return os.getpid()


def call_after_fork(function: Callable[[], None]) -> None:
    """Call a function in each process that is forked from this one, before anything else there."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=function)
