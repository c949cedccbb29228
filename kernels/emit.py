"""Turn the change and signal records of a step into columns, in order of time.

Source: docs/semantics.md 6, 9 and 11.
"""

import numpy as np

from rfmstream.kernels._jit import borrow, inline, jit
from rfmstream.kernels.ids import copy_customer_id, copy_id
from rfmstream.kernels.layout import NO_NUMBER
from rfmstream.kernels.outputs import put_valid
from rfmstream.schemas.codes import FOREVER_US, NEVER_US, ChangeReason

ERASED = int(ChangeReason.ERASED)


@inline
def _sort_key(record):
    """Return what rows are in order by: the instant, at one instant time before events."""
    key = record.effective_us << 1
    return key | 1 if record.row >= 0 else key


@inline
def _order_bytes(row, order_offset):
    return np.int64(order_offset[row + 1]) - np.int64(order_offset[row])


@inline
def _put_customer_id(record, i, end, key_data, offset, data):
    """Write the customer's id of row i; return where the next one begins."""
    offset[i] = end
    copy_customer_id(record, key_data, data, end)
    return end + np.int64(record.key_size) + 1


@inline
def _put_order_id(row, is_there, i, end, order_offset, order_data, offset, data, valid):
    """Write the order's id of row i, that of the batch's row if it is there; return where the next one begins."""
    offset[i] = end
    put_valid(valid, i, is_there)
    if is_there:
        size = _order_bytes(row, order_offset)
        copy_id(order_data, np.int64(order_offset[row]), size, data, end)
        end += size
    return end


@jit
def order_keys(changes, order_offset, out, reasons):
    """Write the sort key of each change.

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
        key = _sort_key(change)
        customer_bytes += np.int64(change.key_size) + 1
        if row >= 0 and change.reason != ERASED:
            order_bytes += _order_bytes(row, order_offset)
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
        customer_end = _put_customer_id(change, i, customer_end, key_data, customer_offset, customer_data)
        row = np.int64(change.row)
        is_there = row >= 0 and change.reason != ERASED
        id_end = _put_order_id(
            row, is_there, i, id_end, order_offset, order_data, id_offset, id_data, valid.order_id
        )
    customer_offset[order.size] = customer_end
    id_offset[order.size] = id_end


@jit
def signal_keys(signals, order_offset, out, kinds):
    """Write the sort key of each signal, as `order_keys` does of changes, and count them by kind."""
    ascending = True
    customer_bytes = np.int64(0)
    order_bytes = np.int64(0)
    before = np.int64(NEVER_US)
    for i in range(out.size):
        signal = signals[i]
        row = np.int64(signal.row)
        key = _sort_key(signal)
        customer_bytes += np.int64(signal.key_size) + 1
        if row >= 0:
            order_bytes += _order_bytes(row, order_offset)
        kinds[signal.kind] += 1
        ascending &= key >= before
        before = key
        out[i] = key
    return ascending, customer_bytes, order_bytes


@jit
def write_signals(signals, order, key_data, order_offset, order_data, out, valid, customer_ids, order_ids):
    """Write signals as columns.

    In      signals  SIGNAL[n]; the others as of `write_changes`
    Out     out      outputs.SignalColumns, arrays of n; valid: outputs.SignalValidity, u8[ceil(n / 8)] each
    """
    signals, key_data, order_data = borrow(signals), borrow(key_data), borrow(order_data)
    customer_offset, customer_data = borrow(customer_ids[0]), borrow(customer_ids[1])
    id_offset, id_data = borrow(order_ids[0]), borrow(order_ids[1])
    customer_end = np.int64(0)
    id_end = np.int64(0)
    for i in range(order.size):
        signal = signals[order[i]]
        out.kind[i] = signal.kind
        out.effective_at[i] = signal.effective_us
        out.tier[i] = signal.tier
        put_valid(valid.tier, i, signal.tier >= 0)
        out.seq[i] = signal.seq
        out.days[i] = signal.days
        put_valid(valid.days, i, signal.days != NO_NUMBER)
        out.count[i] = signal.count
        put_valid(valid.count, i, signal.count != NO_NUMBER)
        out.amount_minor[i] = signal.amount_minor
        put_valid(valid.amount_minor, i, signal.amount_minor != NO_NUMBER)
        out.at[i] = signal.at_us
        put_valid(valid.at, i, signal.at_us != FOREVER_US)
        out.next_tier[i] = signal.next_tier
        put_valid(valid.next_tier, i, signal.next_tier >= 0)
        out.stay_orders[i] = signal.stay_orders
        put_valid(valid.stay_orders, i, signal.stay_orders != NO_NUMBER)
        out.stay_minor[i] = signal.stay_minor
        put_valid(valid.stay_minor, i, signal.stay_minor != NO_NUMBER)
        customer_end = _put_customer_id(signal, i, customer_end, key_data, customer_offset, customer_data)
        row = np.int64(signal.row)
        id_end = _put_order_id(
            row, row >= 0, i, id_end, order_offset, order_data, id_offset, id_data, valid.order_id
        )
    customer_offset[order.size] = customer_end
    id_offset[order.size] = id_end


@inline
def _fnv1a32(value, data, first, end):
    for k in range(first, end):
        value = ((value ^ np.uint64(data[k])) * np.uint64(0x01000193)) & np.uint64(0xFFFFFFFF)
    return value


@jit
def hold_out(offset, data, tiers, parts, seeds, out):
    """Tell of each row whether its customer is held out of its tier's playbook.

    In      offset i32[n + 1], data u8[]: customers' ids; tiers i8[n], NO_TIER for none
            parts  i64[tiers], of 10,000 customers so many are held out; -1: the playbook does not say
            seeds  u64[tiers], fnv1a32 of the playbook's key
    Out     out    i8[n]: 1 held out, 0 not, -1 where the playbook does not say
    Source  docs/semantics.md 11: GrowthBook's hash, version 2
    """
    digits = np.empty(10, dtype=np.uint8)
    for i in range(out.size):
        tier = np.int64(tiers[i])
        out[i] = -1
        if tier < 0 or parts[tier] < 0:
            continue
        value = _fnv1a32(seeds[tier], data, np.int64(offset[i]), np.int64(offset[i + 1]))
        first = np.int64(digits.size)
        while first == digits.size or value > 0:
            first -= 1
            digits[first] = 48 + value % 10
            value //= 10
        bucket = _fnv1a32(np.uint64(0x811C9DC5), digits, first, np.int64(digits.size)) % np.uint64(10_000)
        out[i] = np.int64(bucket) < parts[tier]
