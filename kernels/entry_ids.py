"""Gather the ids of entries, such as the order behind each customer's newest change."""

import numpy as np

from rfmstream.kernels._jit import borrow, jit, prefetch
from rfmstream.kernels.entries import id_start_of
from rfmstream.kernels.ids import copy_id
from rfmstream.kernels.layout import GROUP
from rfmstream.kernels.memory import entries_of, id_base_of, id_data_of

AHEAD = 32


@jit
def size_entry_ids(states, handles, offset, source):
    """Find the ids of entries.

    In      handles  i64[n]; 0: none, an id of no bytes
    Out     offset   i32[n + 1], Arrow's offsets; source i64[n], where each id begins in the shard's `id_data`
    Returns the bytes of all ids
    """
    state = states[0]
    entries, bases = entries_of(state), id_base_of(state)
    handles, source = borrow(handles), borrow(source)
    total = np.int64(0)
    offset[0] = 0
    for i in range(handles.size):
        if i + AHEAD < handles.size:
            prefetch(entries, handles[i + AHEAD], 0)
            prefetch(bases, handles[i + AHEAD] // GROUP, 0)
        source[i] = id_start_of(state, handles[i])
        if handles[i] > 0:
            total += np.int64(entries[handles[i]].id_size) + 1
        offset[i + 1] = total
    return total


@jit
def gather_entry_ids(states, source, offset, out):
    """Write ids that were found to `out` (u8), which has eight bytes to spare at its end."""
    state = states[0]
    source, out = borrow(source), borrow(out)
    data = id_data_of(state)
    for i in range(source.size):
        if i + AHEAD < source.size:
            prefetch(data, source[i + AHEAD], 0)
        target = np.int64(offset[i])
        copy_id(data, source[i], np.int64(offset[i + 1]) - target, out, target)
