"""Apply an event to its customer's record and entries; measuring it afterwards is kernels/measure.py.

Source: docs/semantics.md 3.
"""

import numpy as np

from rfmstream.kernels._jit import inline, keep_apart, part
from rfmstream.kernels.calendar import leaves_us
from rfmstream.kernels.entries import (
    add_note,
    append_entry,
    complete_list,
    hash_about,
    hash_instant,
    link,
    newest_order_us,
    oldest_order_us,
    put,
    refunded_minor,
    unlink,
)
from rfmstream.kernels.judge import CANCELLED, PAID, REFUNDED, REFUNDED_TOTAL
from rfmstream.kernels.layout import (
    ADJUSTMENT,
    HAS_ADJUSTMENT,
    IS_CANCELLED,
    IS_REFUNDED,
    IS_VOID,
    ORIGINAL,
    REFUND,
)
from rfmstream.kernels.measure import is_counted
from rfmstream.kernels.memory import (
    amount_minor_of,
    at_us_of,
    entries_of,
    id_data_of,
    kind_of,
    order_data_of,
    order_offset_of,
    seeds_of,
)


@part
def _void(state, rules, customer, order):
    """Take an order out of everything it counts in; its entry stays, so that its id stays known."""
    keep_apart()
    entry = entries_of(state)[order]
    if is_counted(state, rules, customer, entry):
        customer.frequency -= 1
        customer.monetary_minor -= entry.amount_minor
    customer.lifetime_orders -= 1
    customer.lifetime_monetary_minor -= entry.amount_minor
    complete_list(state, customer)
    older, newer = np.int64(entry.previous), np.int64(entry.next)
    unlink(state, customer, order)
    entry.marks |= IS_VOID
    if entry.at_us == customer.last_paid_us:
        customer.last_paid_us = newest_order_us(state, rules, customer)
    if entry.at_us == customer.first_paid_us:
        customer.first_paid_us = oldest_order_us(state, rules, older, newer, entry.at_us)


@inline
def count_in(state, rules, customer, handle, now_us, kind):
    """Let a new entry count: link it, and add it to F, M and the lifetime figures."""
    entry = entries_of(state)[handle]
    in_window = leaves_us(rules, entry.at_us) > now_us
    link(state, rules, customer, handle, in_window)
    customer.lifetime_monetary_minor += entry.amount_minor
    if in_window:
        customer.monetary_minor += entry.amount_minor
    if kind == PAID:
        customer.lifetime_orders += 1
        if in_window:
            customer.frequency += 1
        customer.last_paid_us = max(customer.last_paid_us, entry.at_us)
        customer.first_paid_us = min(customer.first_paid_us, entry.at_us)
    else:
        customer.marks |= HAS_ADJUSTMENT


@part
def _refund(state, rules, batch, i, customer, order, own_event_id):
    """Take a refund off its order, or what is new of a sum of refunds; when nothing is left the order is void."""
    keep_apart()
    entry = entries_of(state)[order]
    at_us, amount_minor = at_us_of(batch)[i], amount_minor_of(batch)[i]
    is_total = np.int64(kind_of(batch)[i]) == REFUNDED_TOTAL
    if is_total:
        amount_minor -= refunded_minor(state, order, seeds_of(state))
    none = np.int64(0)
    if np.int64(entry.marks) & IS_REFUNDED == 0:
        add_note(
            state,
            hash_about(order, ORIGINAL, 0, seeds_of(state)),
            ORIGINAL,
            order,
            0,
            entry.amount_minor,
            id_data_of(state),
            none,
            none,
        )
        entry.marks |= IS_REFUNDED
    if not own_event_id and not is_total:  # the order itself tells the sum
        add_note(
            state,
            hash_about(order, REFUND, at_us, seeds_of(state)),
            REFUND,
            order,
            at_us,
            amount_minor,
            id_data_of(state),
            none,
            none,
        )
    if np.int64(entry.marks) & IS_VOID:
        entry.amount_minor -= amount_minor  # of a cancelled order: nothing counts, but the sum is told anew
        return
    if amount_minor == entry.amount_minor:
        _void(state, rules, customer, order)
        entry.amount_minor = 0
        return
    entry.amount_minor -= amount_minor
    customer.lifetime_monetary_minor -= amount_minor
    if is_counted(state, rules, customer, entry):
        customer.monetary_minor -= amount_minor


@part
def apply_other(state, rules, batch, i, customer, handle, value, order, now_us, own_event_id):
    """Apply a refund, a cancellation or an adjustment; return the entry whose id its change names."""
    keep_apart()
    kind = np.int64(kind_of(batch)[i])
    about = order
    if kind in (REFUNDED, REFUNDED_TOTAL):
        _refund(state, rules, batch, i, customer, order, own_event_id)
    elif kind == CANCELLED:
        if np.int64(entries_of(state)[order].marks) & IS_VOID == 0:
            _void(state, rules, customer, order)
        entries_of(state)[order].marks |= IS_CANCELLED
    else:
        start = np.int64(order_offset_of(batch)[i])
        size = np.int64(order_offset_of(batch)[i + 1]) - start
        at_us = at_us_of(batch)[i]
        about = append_entry(
            state, ADJUSTMENT, handle, at_us, amount_minor_of(batch)[i], order_data_of(batch), start, size
        )
        if not own_event_id:  # else it is found by its event_id
            put(state, hash_instant(value, ADJUSTMENT, at_us, seeds_of(state)), about)
        count_in(state, rules, customer, about, now_us, kind)
    return about
