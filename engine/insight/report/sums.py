"""Exact sums and counts by group: money stays an integer, however many customers there are."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfmstream.engine.insight.report.columns import fixed
from rfmstream.engine.insight.report.local_time import Ints
from rfmstream.kernels.group_sums import LOW_BITS, sum_bins, sum_groups


def counts(group: NDArray[np.signedinteger[Any]], size: int) -> list[int]:
    """Count the rows of each group 0..size-1."""
    return [int(count) for count in np.bincount(group, minlength=size)[:size]]


def sums(group: NDArray[np.signedinteger[Any]], values: Ints, size: int) -> list[int]:
    """Sum int64 values by group 0..size-1, exactly, for up to 2^31 rows."""
    low, high = np.zeros(size, np.int64), np.zeros(size, np.int64)
    sum_groups(fixed(group.astype(np.int64, copy=False)), fixed(values), low, high)
    return _whole(low, high)


def binned(value: Ints, edges: list[int], values: Ints) -> tuple[list[int], list[int]]:
    """Count and sum, exactly, by the bins between ascending edges; the first lies below the first edge.

    In      value  i64[n], what the bins are of; values  i64[n], what is summed
    Returns of each of the len(edges) + 1 bins how many values lie in it, and the sum
    """
    number, low, high = (np.zeros(len(edges) + 1, np.int64) for _ in range(3))
    sum_bins(fixed(value), fixed(np.array(edges, np.int64)), fixed(values), number, low, high)
    return number.tolist(), _whole(low, high)


def _whole(low: Ints, high: Ints) -> list[int]:
    return [(above << LOW_BITS) + below for above, below in zip(high.tolist(), low.tolist(), strict=True)]


def total(values: Ints) -> int:
    """Sum int64 values exactly, for up to 2^31 of them."""
    low, high = (values & ((1 << LOW_BITS) - 1)).sum(), (values >> LOW_BITS).sum()
    return _whole(np.array([low]), np.array([high]))[0]


def ratio(part: int, whole: int) -> float | None:
    """Return a share; None of nothing."""
    return part / whole if whole > 0 else None


def running(values: NDArray[Any]) -> NDArray[Any]:
    """Return running sums of int64 values as Python integers where int64 might not hold them."""
    bound = int(np.abs(values).max()) * len(values) if len(values) else 0
    return np.cumsum(values if bound < 2**62 else values.astype(object))
