"""The processors this process may use."""

import os


def usable_cores() -> int:
    """Return how many there are: a container or `taskset` may leave fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
