"""Rebuild a shard's memory from the columns of a checkpoint: tables and timers follow from them."""

import numpy as np

from rfmstream.kernels._jit import borrow, inline, jit, prefetch
from rfmstream.kernels.entries import hash_about, hash_instant, kind_of
from rfmstream.kernels.erase import is_given_up, is_hidden
from rfmstream.kernels.ids import hash_bytes, hash_pair, set_customer_id
from rfmstream.kernels.layout import (
    ADJUSTMENT,
    ERASURE,
    GONE,
    GROUP,
    HAS_EVENT_ID,
    KIND_MASK,
    ORDER,
    ORIGINAL,
    REFUND,
)
from rfmstream.kernels.memory import (
    customers_of,
    entries_of,
    id_base_of,
    id_data_of,
    index_of,
    key_data_of,
    orders_of,
    seeds_of,
)
from rfmstream.kernels.table import insert, prefetch_homes, settle, tag_of

BLOCK = 256


@jit
def load_customer_ids(states, offset, data, hashes):
    """Give the next customers of a shard their ids and put them in the index.

    In      offset  i32[n + 1], data u8[]: their ids, in order of handles
    State   room for n customers and their long ids must have been made; the other fields are already written
    Out     hashes  u64[handles], at the handles of these customers
    """
    state = states[0]
    offset, data, hashes = borrow(offset), borrow(data), borrow(hashes)
    first = state.n_customers
    for i in range(offset.size - 1):
        start = np.int64(offset[i])
        hashes[first + i] = hash_bytes(data, start, np.int64(offset[i + 1]) - start, seeds_of(state))
    index = index_of(state)
    for i in range(offset.size - 1):
        if i % BLOCK == 0:
            settle(index)
        if i + 16 < offset.size - 1:
            prefetch_homes(index, tag_of(hashes[first + i + 16]))
        start = np.int64(offset[i])
        size = np.int64(offset[i + 1]) - start
        customer = customers_of(state)[first + i]
        state.key_bytes = set_customer_id(customer, key_data_of(state), state.key_bytes, data, start, size)
        state.n_erased += is_hidden(customer)
        if not is_given_up(customer):
            insert(index, tag_of(hashes[first + i]), first + i)
    state.n_customers = first + offset.size - 1


@inline
def _hash_entry(state, handle, start, size, customer_hashes):
    entry = entries_of(state)[handle]
    kind = kind_of(entry)
    seeds = seeds_of(state)
    if kind in (REFUND, ORIGINAL):
        return hash_about(np.int64(entry.previous), kind, entry.at_us, seeds)
    if kind == ERASURE:
        return hash_about(np.int64(entry.customer), kind, 0, seeds)
    value = hash_pair(
        customer_hashes[np.int64(entry.customer)], hash_bytes(id_data_of(state), start, size, seeds), seeds
    )
    if kind == ADJUSTMENT:
        return hash_instant(value, ADJUSTMENT, entry.at_us, seeds)
    return value


@jit
def load_entry_ids(states, offset, data, customer_hashes, scratch):
    """Give the next entries of a shard their ids and put them in the table.

    In      offset  i32[n + 1], data u8[]: their ids, in order of handles; none for a REFUND or ORIGINAL
            customer_hashes  u64[handles of customers]
    State   room for n entries and their ids must have been made; the other fields are already written
    Scratch scratch  u64[BLOCK]
    """
    state = states[0]
    offset, customer_hashes, scratch = borrow(offset), borrow(customer_hashes), borrow(scratch)
    base = np.int64(offset[0])
    total = np.int64(offset[offset.size - 1]) - base
    id_data = id_data_of(state)
    id_data[state.id_bytes : state.id_bytes + total] = data[base : base + total]
    table = orders_of(state)
    count = offset.size - 1
    for block in range(0, count, BLOCK):
        end = min(block + BLOCK, count)
        settle(table)
        for i in range(block, end):
            prefetch(customer_hashes, np.int64(entries_of(state)[state.n_entries + i].customer), 0)
        for i in range(block, end):
            handle = state.n_entries + i
            start = state.id_bytes + np.int64(offset[i]) - base
            size = np.int64(offset[i + 1]) - np.int64(offset[i])
            if handle % GROUP == 0 or handle == 1:
                id_base_of(state)[handle // GROUP] = start
            entry = entries_of(state)[handle]
            entry.id_start = start - id_base_of(state)[handle // GROUP]
            entry.id_size = max(size - 1, 0)
            if kind_of(entry) == ORDER:
                state.n_orders += 1
            scratch[i - block] = _hash_entry(state, handle, start, size, customer_hashes)
            prefetch_homes(table, tag_of(scratch[i - block]))
        for i in range(block, end):
            marks = np.int64(entries_of(state)[state.n_entries + i].marks)
            # Adjustments with an event_id have no identity here, and what is gone has none at all.
            if marks & (KIND_MASK | HAS_EVENT_ID) != ADJUSTMENT | HAS_EVENT_ID and marks & KIND_MASK != GONE:
                tag = tag_of(scratch[i - block])
                insert(table, tag, state.n_entries + i)
    state.n_entries += count
    state.id_bytes += total
