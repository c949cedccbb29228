"""The process itself, and the processors it may use."""

import os


def usable_cores() -> int:
    """Return how many there are: a container or `taskset` may leave fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def this_process() -> int:
    """Return its number: a fork has another one."""
    return os.getpid()
