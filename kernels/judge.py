"""What becomes of an event: applied, a duplicate, or rejected by what is known of its customer.

Source: docs/semantics.md 1 (event_id) and 3; oracle tests/support/oracle.py.
"""

import numpy as np

from rfmstream.kernels._jit import inline, keep_apart, part
from rfmstream.kernels.entries import (
    add_note,
    find_about,
    find_adjustment,
    find_by_id,
    has_id,
    hash_about,
    hash_instant,
    original_amount,
    refunded_minor,
)
from rfmstream.kernels.ids import hash_bytes, hash_pair, same_bytes
from rfmstream.kernels.layout import (
    ADJUSTMENT,
    EVENT,
    HAS_EVENT_ID,
    IS_CANCELLED,
    IS_REFUNDED,
    IS_VOID,
    ORDER,
    REFUND,
)
from rfmstream.kernels.memory import (
    amount_minor_of,
    at_us_of,
    customer_hash_of,
    entries_of,
    event_data_of,
    event_offset_of,
    kind_of,
    order_data_of,
    order_offset_of,
    seeds_of,
)
from rfmstream.schemas.codes import OrderType, Outcome

PAID, REFUNDED, CANCELLED, ADJUSTED, REFUNDED_TOTAL, ERASED = (
    int(OrderType.PAID),
    int(OrderType.REFUNDED),
    int(OrderType.CANCELLED),
    int(OrderType.ADJUSTED),
    int(OrderType.REFUNDED_TOTAL),
    int(OrderType.ERASED),
)
APPLIED = int(Outcome.APPLIED)
DUPLICATE = int(Outcome.DUPLICATE)
FUTURE_TIME = int(Outcome.FUTURE_TIME)
UNKNOWN_ORDER = int(Outcome.UNKNOWN_ORDER)
CONFLICTING = int(Outcome.CONFLICTING_DUPLICATE)
ERASED_CUSTOMER = int(Outcome.ERASED_CUSTOMER)
EXCEEDS = int(Outcome.REFUND_EXCEEDS_ORDER)


@part
def _same_event(state, batch, i, note, order):
    """Tell whether the event remembered under an event_id is the event of row i, word for word."""
    keep_apart()
    entry = entries_of(state)[note]
    about = np.int64(entry.previous)
    kind = np.int64(kind_of(batch)[i])
    noted_kind = np.int64(entry.next)  # a note is in no list, so `next` holds its OrderType
    if noted_kind != kind or entry.at_us != at_us_of(batch)[i]:
        return False
    if kind != CANCELLED and entry.amount_minor != amount_minor_of(batch)[i]:
        return False
    if kind != ADJUSTED:
        return about == order
    start = np.int64(order_offset_of(batch)[i])
    size = np.int64(order_offset_of(batch)[i + 1]) - start
    return has_id(state, about, np.int64(entry.customer), order_data_of(batch), start, size)


@part
def _check_event_id(state, batch, i, handle, order, known_us):
    """Return what an event's own event_id makes of row i: APPLIED (never seen), DUPLICATE or CONFLICTING."""
    keep_apart()
    start = np.int64(event_offset_of(batch)[i])
    size = np.int64(event_offset_of(batch)[i + 1]) - start
    value = hash_pair(
        customer_hash_of(batch)[i],
        hash_bytes(event_data_of(batch), start, size, seeds_of(state)),
        seeds_of(state),
    )
    note = find_by_id(state, value, handle, event_data_of(batch), start, size, EVENT, known_us)
    if note != 0:
        return DUPLICATE if _same_event(state, batch, i, note, order) else CONFLICTING
    named = find_by_id(state, value, handle, event_data_of(batch), start, size, ORDER, known_us)
    if named != 0 and np.int64(entries_of(state)[named].marks) & HAS_EVENT_ID == 0:
        return CONFLICTING
    return APPLIED


@part
def remember_event_id(state, batch, i, about):
    """Remember the event_id of row i, and which event it was, beside the entry the event speaks of."""
    keep_apart()
    start = np.int64(event_offset_of(batch)[i])
    size = np.int64(event_offset_of(batch)[i + 1]) - start
    value = hash_pair(
        customer_hash_of(batch)[i],
        hash_bytes(event_data_of(batch), start, size, seeds_of(state)),
        seeds_of(state),
    )
    kind = np.int64(kind_of(batch)[i])
    note = add_note(
        state,
        value,
        EVENT,
        about,
        at_us_of(batch)[i],
        amount_minor_of(batch)[i],
        event_data_of(batch),
        start,
        size,
    )
    entries_of(state)[note].next = kind


@inline
def has_event_id(batch, i):
    """Tell whether row i has an event_id of its own: for a paid order its order_id is none."""
    if batch.event_offset_size == 0 or event_offset_of(batch)[i + 1] == event_offset_of(batch)[i]:
        return False
    if kind_of(batch)[i] != PAID:
        return True
    start, order_start = np.int64(event_offset_of(batch)[i]), np.int64(order_offset_of(batch)[i])
    size = np.int64(event_offset_of(batch)[i + 1]) - start
    return size != np.int64(order_offset_of(batch)[i + 1]) - order_start or not same_bytes(
        event_data_of(batch), start, order_data_of(batch), order_start, size
    )


@part
def judge_known(state, batch, i, handle, value, order, own_event_id, known_us):
    """Return what becomes of row i where its customer, and perhaps its order, is known.

    In      known_us  events of entries dated before it are forgotten, see `kernels.horizon`

    APPLIED means: apply it. Source: docs/semantics.md 1 (event_id) and 3.
    """
    keep_apart()
    kind = np.int64(kind_of(batch)[i])
    start = np.int64(order_offset_of(batch)[i])
    size = np.int64(order_offset_of(batch)[i + 1]) - start
    if kind == ERASED:
        return np.int64(APPLIED)
    if kind in (REFUNDED, CANCELLED, REFUNDED_TOTAL) and order == 0:
        return UNKNOWN_ORDER
    at_us, amount_minor = at_us_of(batch)[i], amount_minor_of(batch)[i]
    if kind == PAID and order != 0:
        entry = entries_of(state)[order]
        same = entry.at_us == at_us and original_amount(state, order, seeds_of(state)) == amount_minor
        return DUPLICATE if same else CONFLICTING
    if kind == CANCELLED and np.int64(entries_of(state)[order].marks) & IS_CANCELLED:
        return np.int64(DUPLICATE)
    if kind == REFUNDED_TOTAL and amount_minor <= refunded_minor(state, order, seeds_of(state)):
        return np.int64(DUPLICATE)
    if own_event_id:
        outcome = _check_event_id(state, batch, i, handle, order, known_us)
        if outcome != APPLIED:
            return outcome
    if kind == PAID:
        if (
            not own_event_id
            and find_by_id(state, value, handle, order_data_of(batch), start, size, EVENT, known_us) != 0
        ):
            return CONFLICTING
        return APPLIED
    if kind == ADJUSTED:
        if not own_event_id:
            identity = hash_instant(value, ADJUSTMENT, at_us, seeds_of(state))
            known = find_adjustment(state, identity, handle, at_us, order_data_of(batch), start, size)
            if known != 0:
                return DUPLICATE if entries_of(state)[known].amount_minor == amount_minor else CONFLICTING
        return APPLIED
    if kind == CANCELLED:
        return APPLIED
    if kind == REFUNDED_TOTAL:
        # A larger sum is no conflict with the one before, even at the same instant: exports repeat it as it grows.
        return EXCEEDS if amount_minor > original_amount(state, order, seeds_of(state)) else APPLIED
    entry = entries_of(state)[order]
    if not own_event_id:
        known = find_about(state, hash_about(order, REFUND, at_us, seeds_of(state)), REFUND, order, at_us)
        if known != 0:
            return DUPLICATE if entries_of(state)[known].amount_minor == amount_minor else CONFLICTING
    left = np.int64(0) if np.int64(entry.marks) & IS_VOID else entry.amount_minor
    never_refundable = entry.amount_minor == 0 and np.int64(entry.marks) & IS_REFUNDED == 0
    return EXCEEDS if amount_minor > left or never_refundable else APPLIED
