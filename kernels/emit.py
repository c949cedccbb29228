"""Turn the change records of a step into columns, in order of time.

Source: docs/semantics.md 6.
"""

import numpy as np

from kernels._jit import borrow, inline, jit
from schemas.codes import FOREVER_US, NEVER_US


@jit
def order_keys(changes, order_offset, out):
    """Write the sort key of each change: its instant, time before events.

    In      changes      CHANGE[n]
            order_offset i32[rows + 1] of the batch's order ids; i32[0] where there was no batch
    Out     out          i64[n]
    Returns (whether the keys already ascend, bytes of all customer ids, bytes of all order ids)
    """
    ascending = True
    customer_bytes = np.int64(0)
    order_bytes = np.int64(0)
    before = np.int64(NEVER_US)
    for i in range(out.size):
        change = changes[i]
        row = np.int64(change.row)
        key = change.effective_us << 1
        customer_bytes += np.int64(change.key_size) + 1
        if row >= 0:
            key |= 1
            order_bytes += np.int64(order_offset[row + 1]) - np.int64(order_offset[row])
        ascending &= key >= before
        before = key
        out[i] = key
    return ascending, customer_bytes, order_bytes


@inline
def _set_bit(bits, i, on):
    if on:
        bits[i >> 3] |= np.uint8(1 << (i & 7))


@jit
def split_changes(changes, order, words, numbers, codes, handles, rows, valid):
    """Write changes as columns.

    In      changes  CHANGE[n]; order i64[n], the change of each output row
    Out     words    i64[6, n]: seq, effective_us, last_paid_us, frequency, monetary, next_change_us
            numbers  i16[3, n]: r_band, f_band, m_band
            codes    i8[4, n]: from_tier, to_tier, next_tier, reason
            handles  u32[n], rows i64[n] (-1 for time)
            valid    u8[6, ceil(n / 8)], zeroed: Arrow validity of from_tier, to_tier, next_tier, order_id,
                     last_paid_us, next_change_us
    """
    changes, words, numbers, codes = borrow(changes), borrow(words), borrow(numbers), borrow(codes)
    valid = borrow(valid)
    for i in range(order.size):
        change = changes[order[i]]
        words[0, i] = change.seq
        words[1, i] = change.effective_us
        words[2, i] = change.last_paid_us
        words[3, i] = change.frequency
        words[4, i] = change.monetary_minor
        words[5, i] = change.next_change_us
        numbers[0, i] = change.r_band
        numbers[1, i] = change.f_band
        numbers[2, i] = change.m_band
        codes[0, i] = change.from_tier
        codes[1, i] = change.to_tier
        codes[2, i] = change.next_tier
        codes[3, i] = change.reason
        handles[i] = change.customer
        rows[i] = change.row
        _set_bit(valid[0], i, change.from_tier >= 0)
        _set_bit(valid[1], i, change.to_tier >= 0)
        _set_bit(valid[2], i, change.next_tier >= 0)
        _set_bit(valid[3], i, change.row >= 0)
        _set_bit(valid[4], i, change.last_paid_us != NEVER_US)
        _set_bit(valid[5], i, change.next_change_us != FOREVER_US)
