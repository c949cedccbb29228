"""Exact sums and counts by group: money stays an integer, however many customers there are."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rfmstream.engine.insight.report.local_time import Ints

_PART_BITS: Final = 21
_PART: Final = (1 << _PART_BITS) - 1


def counts(group: NDArray[np.signedinteger[Any]], size: int) -> list[int]:
    """Count the rows of each group 0..size-1."""
    return [int(count) for count in np.bincount(group, minlength=size)[:size]]


def sums(group: NDArray[np.signedinteger[Any]], values: Ints, size: int) -> list[int]:
    """Sum int64 values by group 0..size-1, exactly, for up to 2^32 rows.

    Sums by group come as doubles: three parts of 21 bits each stay exact in them.
    """
    parts = (values & _PART, (values >> _PART_BITS) & _PART, values >> (2 * _PART_BITS))
    totals = [np.bincount(group, weights=part, minlength=size)[:size] for part in parts]
    return [
        int(low) + (int(middle) << _PART_BITS) + (int(high) << 2 * _PART_BITS)
        for low, middle, high in zip(*totals, strict=True)
    ]


def total(values: Ints) -> int:
    """Sum int64 values exactly."""
    return sums(np.zeros(len(values), np.int64), values, 1)[0]


def ratio(part: int, whole: int) -> float | None:
    """Return a share; None of nothing."""
    return part / whole if whole > 0 else None


def running(values: NDArray[Any]) -> NDArray[Any]:
    """Return running sums of int64 values as Python integers where int64 might not hold them."""
    bound = int(np.abs(values).max()) * len(values) if len(values) else 0
    return np.cumsum(values if bound < 2**62 else values.astype(object))
