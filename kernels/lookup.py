"""Find customers by id, without changing anything."""

import numpy as np

from rfmstream.kernels._jit import borrow, jit, prefetch
from rfmstream.kernels.erase import is_hidden
from rfmstream.kernels.ids import hash_bytes, is_customer
from rfmstream.kernels.memory import customers_of, index_of, key_data_of, seeds_of
from rfmstream.kernels.table import find_next, prefetch_homes, tag_of

_BLOCK = 64
"""Ids whose cache lines are fetched at the same time."""


@jit
def find_customers(states, offset, data, handles):
    """Find the records of ids in a shard.

    In      states   STATE[1]; offset i32[n + 1], data u8[]: the ids
    Out     handles  i64[n], 0 where the shard has no such customer, or has erased it
    Cost    O(n), two cache lines an id, those of a block at the same time
    """
    state = states[0]
    offset, data = borrow(offset), borrow(data)
    table = index_of(state)
    tags, cursors = np.empty(_BLOCK, np.int64), np.empty(_BLOCK, np.int64)
    for first in range(0, handles.size, _BLOCK):
        count = min(handles.size - first, _BLOCK)
        for k in range(count):
            start = np.int64(offset[first + k])
            size = np.int64(offset[first + k + 1]) - start
            tags[k] = tag_of(hash_bytes(data, start, size, seeds_of(state)))
            prefetch_homes(table, tags[k])
        for k in range(count):
            handles[first + k], cursors[k] = find_next(table, tags[k], np.int64(0))
            prefetch(customers_of(state), handles[first + k], 0)
        for k in range(count):
            start = np.int64(offset[first + k])
            size = np.int64(offset[first + k + 1]) - start
            handle, cursor = handles[first + k], cursors[k]
            while handle != 0 and (
                is_hidden(customers_of(state)[handle])
                or not is_customer(customers_of(state)[handle], key_data_of(state), data, start, size)
            ):
                handle, cursor = find_next(table, tags[k], cursor)
            handles[first + k] = handle
