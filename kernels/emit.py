"""Turn the change records of a step into columns, in order of time.

Source: docs/semantics.md 6.
"""

import numpy as np

from rfmstream.kernels._jit import borrow, jit
from rfmstream.kernels.ids import copy_customer_id, copy_id
from rfmstream.kernels.outputs import put_valid
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
def write_changes(changes, order, key_data, order_offset, order_data, out, valid, customer_ids, order_ids):
    """Write changes as columns.

    In      changes  CHANGE[n]; order i64[n], the change of each output row
            key_data  of the shard: bytes of long ids
            order_offset, order_data  the batch's order ids; not looked at for changes by time
    Out     out      outputs.ChangeColumns, arrays of n; valid: outputs.ChangeValidity, u8[ceil(n / 8)] each
            customer_ids, order_ids  (offsets i32[n + 1], bytes u8 with SPARE_BYTES at their end)
    """
    changes, key_data, order_data = borrow(changes), borrow(key_data), borrow(order_data)
    customer_offset, customer_data = borrow(customer_ids[0]), borrow(customer_ids[1])
    id_offset, id_data = borrow(order_ids[0]), borrow(order_ids[1])
    customer_end = np.int64(0)
    id_end = np.int64(0)
    for i in range(order.size):
        change = changes[order[i]]
        out.seq[i] = change.seq
        out.effective_at[i] = change.effective_us
        out.from_tier[i] = change.from_tier
        put_valid(valid.from_tier, i, change.from_tier >= 0)
        out.to_tier[i] = change.to_tier
        put_valid(valid.to_tier, i, change.to_tier >= 0)
        out.reason[i] = change.reason
        out.r_band[i] = change.r_band
        out.f_band[i] = change.f_band
        out.m_band[i] = change.m_band
        out.last_paid_at[i] = change.last_paid_us
        put_valid(valid.last_paid_at, i, change.last_paid_us != NEVER_US)
        out.frequency[i] = change.frequency
        out.monetary_minor[i] = change.monetary_minor
        out.next_change_at[i] = change.next_change_us
        put_valid(valid.next_change_at, i, change.next_change_us != FOREVER_US)
        out.next_tier[i] = change.next_tier
        put_valid(valid.next_tier, i, change.next_tier >= 0)
        customer_offset[i] = customer_end
        copy_customer_id(change, key_data, customer_data, customer_end)
        customer_end += np.int64(change.key_size) + 1
        id_offset[i] = id_end
        row = np.int64(change.row)
        names_order = row >= 0 and change.reason != ERASED
        put_valid(valid.order_id, i, names_order)
        if names_order:
            source = np.int64(order_offset[row])
            size = np.int64(order_offset[row + 1]) - source
            copy_id(order_data, source, size, id_data, id_end)
            id_end += size
    customer_offset[order.size] = customer_end
    id_offset[order.size] = id_end
