"""Exact counts and sums by group."""

import numpy as np

from rfmstream.kernels._jit import borrow, inline, jit

LOW_BITS = 32
_LOW = (1 << LOW_BITS) - 1


@inline
def _add(values, i, group, low, high):
    low[group] += values[i] & _LOW
    high[group] += values[i] >> LOW_BITS


@jit
def sum_groups(group, values, low, high):
    """Sum int64 values by group, in two parts that stay exact for up to 2^31 rows: high * 2^32 + low.

    In      group  i64[n]; values i64[n]
    Out     low, high  i64[groups]
    """
    group, values, low, high = borrow(group), borrow(values), borrow(low), borrow(high)
    for i in range(group.size):
        _add(values, i, group[i], low, high)


@jit
def sum_bins(value, edges, values, counts, low, high):
    """Count and sum by the bin that a value lies in: bin k begins at edges[k - 1] and ends before edges[k].

    In      value i64[n], edges i64[b - 1] ascending, values i64[n]: what is summed
    Out     counts i64[b]; low, high i64[b]: see `sum_groups`
    Cost    O(n log b)
    """
    value, edges, values = borrow(value), borrow(edges), borrow(values)
    counts, low, high = borrow(counts), borrow(low), borrow(high)
    for i in range(value.size):
        begin, end = np.int64(0), np.int64(edges.size)
        while begin < end:
            middle = (begin + end) >> 1
            if edges[middle] <= value[i]:
                begin = middle + 1
            else:
                end = middle
        counts[begin] += 1
        _add(values, i, begin, low, high)
