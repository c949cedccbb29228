"""Turn the change records of a step into columns, in order of time.

Source: docs/semantics.md 6.
"""

import numpy as np

from rfmstream.kernels._jit import borrow, jit
from rfmstream.kernels.ids import copy_customer_id, copy_id
from rfmstream.schemas.codes import FOREVER_US, NEVER_US, ChangeReason

ERASED = int(ChangeReason.ERASED)


@jit
def order_keys(changes, order_offset, out, reasons):
    """Write the sort key of each change: its instant, time before events.

    In      changes      CHANGE[n]
            order_offset i32[rows + 1] of the batch's order ids; i32[0] where there was no batch
    Out     out          i64[n]
    State   reasons      i64[reasons there are]: each change is counted under its reason
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
        if row >= 0 and change.reason != ERASED:
            order_bytes += np.int64(order_offset[row + 1]) - np.int64(order_offset[row])
        reasons[change.reason] += 1
        ascending &= key >= before
        before = key
        out[i] = key
    return ascending, customer_bytes, order_bytes


@jit
def write_changes(
    changes,
    order,
    key_data,
    order_offset,
    order_data,
    words,
    numbers,
    codes,
    valid,
    customer_ids,
    order_ids,
):
    """Write changes as columns.

    In      changes  CHANGE[n]; order i64[n], the change of each output row
            key_data  of the shard: bytes of long ids
            order_offset, order_data  the batch's order ids; not looked at for changes by time
    Out     words    i64[6, n]: seq, effective_us, last_paid_us, frequency, monetary, next_change_us
            numbers  i16[3, n]: r_band, f_band, m_band
            codes    i8[4, n]: from_tier, to_tier, next_tier, reason
            valid    u8[6, ceil(n / 8)]: Arrow validity of from_tier, to_tier, next_tier, order_id, last_paid_us,
                     next_change_us
            customer_ids, order_ids  (offsets i32[n + 1], bytes u8 with SPARE_BYTES at their end)
    """
    changes, key_data, order_data = borrow(changes), borrow(key_data), borrow(order_data)
    words, numbers, codes, valid = borrow(words), borrow(numbers), borrow(codes), borrow(valid)
    customer_offset, customer_data = borrow(customer_ids[0]), borrow(customer_ids[1])
    id_offset, id_data = borrow(order_ids[0]), borrow(order_ids[1])
    customer_end = np.int64(0)
    id_end = np.int64(0)
    bits = np.zeros(6, dtype=np.uint8)
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
        customer_offset[i] = customer_end
        copy_customer_id(change, key_data, customer_data, customer_end)
        customer_end += np.int64(change.key_size) + 1
        id_offset[i] = id_end
        row = np.int64(change.row)
        names_order = row >= 0 and change.reason != ERASED
        if names_order:
            source = np.int64(order_offset[row])
            size = np.int64(order_offset[row + 1]) - source
            copy_id(order_data, source, size, id_data, id_end)
            id_end += size
        bit = np.uint8(i & 7)
        bits[0] |= np.uint8(change.from_tier >= 0) << bit
        bits[1] |= np.uint8(change.to_tier >= 0) << bit
        bits[2] |= np.uint8(change.next_tier >= 0) << bit
        bits[3] |= np.uint8(names_order) << bit
        bits[4] |= np.uint8(change.last_paid_us != NEVER_US) << bit
        bits[5] |= np.uint8(change.next_change_us != FOREVER_US) << bit
        if bit == 7 or i + 1 == order.size:
            for k in range(6):
                valid[k, i >> 3] = bits[k]
                bits[k] = 0
    customer_offset[order.size] = customer_end
    id_offset[order.size] = id_end
