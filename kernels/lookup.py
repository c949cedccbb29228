"""Find customers by id, without changing anything."""

import numpy as np

from rfmstream.kernels._jit import borrow, jit
from rfmstream.kernels.erase import is_hidden
from rfmstream.kernels.ids import hash_bytes, is_customer
from rfmstream.kernels.memory import customers_of, index_of, key_data_of, seeds_of
from rfmstream.kernels.table import find_next, tag_of


@jit
def find_customers(states, offset, data, handles):
    """Find the records of ids in a shard.

    In      states   STATE[1]; offset i32[n + 1], data u8[]: the ids
    Out     handles  i64[n], 0 where the shard has no such customer, or has erased it
    Cost    O(n), two cache lines an id
    """
    state = states[0]
    offset, data = borrow(offset), borrow(data)
    table = index_of(state)
    for i in range(handles.size):
        start = np.int64(offset[i])
        size = np.int64(offset[i + 1]) - start
        tag = tag_of(hash_bytes(data, start, size, seeds_of(state)))
        handle, cursor = find_next(table, tag, 0)
        while handle != 0 and (
            is_hidden(customers_of(state)[handle])
            or not is_customer(customers_of(state)[handle], key_data_of(state), data, start, size)
        ):
            handle, cursor = find_next(table, tag, cursor)
        handles[i] = handle
