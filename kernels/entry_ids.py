"""Gather the ids of entries, such as the order behind each customer's newest change."""

import numpy as np

from kernels._jit import borrow, jit, prefetch, store_word
from kernels.entries import id_start_of
from kernels.ids import word_at
from kernels.memory import entries_of, id_data_of

AHEAD = 16


@jit
def size_entry_ids(states, handles, offset):
    """Write the Arrow offsets (i32[n + 1]) of the ids of entries (i64[n], 0: none, no bytes); return the bytes."""
    entries = entries_of(states[0])
    handles = borrow(handles)
    total = np.int64(0)
    offset[0] = 0
    for i in range(handles.size):
        if i + AHEAD < handles.size:
            prefetch(entries, handles[i + AHEAD], 0)
        if handles[i] > 0:
            total += np.int64(entries[handles[i]].id_size) + 1
        offset[i + 1] = total
    return total


@jit
def gather_entry_ids(states, handles, offset, out):
    """Write the ids of entries to `out` (u8), which has eight bytes to spare at its end."""
    state = states[0]
    handles, out = borrow(handles), borrow(out)
    data = id_data_of(state)
    for i in range(handles.size):
        if i + AHEAD < handles.size:
            prefetch(data, id_start_of(state, handles[i + AHEAD]), 0)
        source = id_start_of(state, handles[i])
        size = np.int64(offset[i + 1]) - np.int64(offset[i])
        target = np.int64(offset[i])
        done = np.int64(0)
        while done < size:
            store_word(out, target + done, word_at(data, source + done, min(size - done, np.int64(8))))
            done += 8
