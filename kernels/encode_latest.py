"""Find the last row of every id of a column.

Source: the compacted topic of current tiers holds the last change of each customer.
"""

import numpy as np

from rfmstream.kernels._jit import borrow, jit
from rfmstream.kernels.ids import hash_bytes, same_bytes


@jit
def mark_latest(offset, data, seeds, table, out):
    """Mark the rows whose id no later row has.

    In      offset  i32[n + 1], data u8[]: a column of ids;  seeds u64[4]
    Scratch table   i32[2^k], zeroed, more than n slots
    Out     out     bool[n]
    Cost    O(n)
    """
    data, seeds, table, out = borrow(data), borrow(seeds), borrow(table), borrow(out)
    mask = np.uint64(table.size - 1)
    for i in range(out.size - 1, -1, -1):
        start = np.int64(offset[i])
        size = np.int64(offset[i + 1]) - start
        slot = np.int64(hash_bytes(data, start, size, seeds) & mask)
        is_latest = True
        while table[slot] != 0:
            other = np.int64(table[slot]) - 1
            other_start = np.int64(offset[other])
            if np.int64(offset[other + 1]) - other_start == size and same_bytes(
                data, start, data, other_start, size
            ):
                is_latest = False
                break
            slot = (slot + 1) & np.int64(mask)
        if is_latest:
            table[slot] = i + 1
        out[i] = is_latest
