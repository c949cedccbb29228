"""Forget a customer: what it did goes at once, its id, its count of changes and the instant of the erasure stay.

The customer goes on under a new handle. Entries name their customer by its handle, so nothing finds those of the old
one any more; `purge` blanks them, and their ids, once the batch is folded. The old record is given up: no customer, no
id (but the byte 0), in no list. A record that is hidden is a customer that was erased and has not come back.

Source: docs/semantics.md 3 (`erased`); oracle tests/support/oracle.py.
"""

import numpy as np

from rfmstream.kernels._jit import borrow, inline, jit, keep_apart, part
from rfmstream.kernels.entries import (
    append_entry,
    find_erasure,
    hash_about,
    id_start_of,
    kind_of,
    put,
)
from rfmstream.kernels.layout import (
    ERASURE,
    GONE,
    HAS_ADJUSTMENT,
    ORDER,
    REASON_SHIFT,
    SEQ_MASK,
    WAS_ERASED,
)
from rfmstream.kernels.measure import count_band, emit
from rfmstream.kernels.memory import (
    at_us_of,
    customer_hash_of,
    customers_of,
    entries_of,
    extras_of,
    frequency_cuts_of,
    id_data_of,
    index_of,
    monetary_cuts_of,
    seeds_of,
)
from rfmstream.kernels.table import replace, tag_of
from rfmstream.schemas.codes import FOREVER_US, NEVER_US, NO_TIER, ChangeReason

REASON = int(ChangeReason.ERASED)


@inline
def is_hidden(customer):
    """Tell whether a record stands for no customer now: erased and not come back, or given up."""
    marks = np.int64(customer.marks)
    return marks >> REASON_SHIFT == REASON and marks & HAS_ADJUSTMENT == 0


@inline
def is_given_up(customer):
    """Tell whether a hidden record is nobody's: the customer goes on under another handle."""
    return is_hidden(customer) and np.int64(customer.seq) == 0


@inline
def blank(customer):
    """Let a record say nothing but its id."""
    customer.last_paid_us = NEVER_US
    customer.first_paid_us = FOREVER_US
    customer.deadline_us = FOREVER_US
    customer.tier_since_us = NEVER_US
    customer.tier = NO_TIER
    customer.from_tier = NO_TIER
    customer.monetary_minor = 0
    customer.lifetime_monetary_minor = 0
    customer.frequency = 0
    customer.lifetime_orders = 0
    customer.head = 0
    customer.tail = 0
    customer.armed = 0
    customer.seq = 0
    customer.marks = 0
    customer.change_entry = 0


@part
def erased_us(state, handle):
    """Return the instant of a customer's erasure; NEVER_US if there was none."""
    keep_apart()
    if np.int64(customers_of(state)[handle].seq) & WAS_ERASED == 0:
        return np.int64(NEVER_US)
    return np.int64(entries_of(state)[find_erasure(state, handle, seeds_of(state))].at_us)


@part
def _give_up(state, batch, i, handle):
    """Let a customer go on under a new handle, and return that."""
    keep_apart()
    fresh = state.n_customers
    state.n_customers = fresh + 1
    old, new = customers_of(state)[handle], customers_of(state)[fresh]
    blank(new)
    new.key0, new.key1, new.key_size, new.seq = old.key0, old.key1, old.key_size, old.seq
    replace(index_of(state), tag_of(customer_hash_of(batch)[i]), handle, fresh)
    blank(old)
    old.key0, old.key1, old.key_size = np.uint64(0), np.uint64(0), 0
    old.marks = REASON << REASON_SHIFT
    if state.extras_size != 0:
        extra = extras_of(state)[handle]
        extra.warned_us = 0
        extra.spend_minor = 0
        extra.orders = 0
        extra.warned_days = 0
        extra.dwells = 0
    old.head = state.given_up
    state.given_up = handle
    state.n_erased += 1
    return fresh


@part
def erase(state, rules, batch, i, handle, now_us):
    """Erase the customer of row i as of `now_us`, emit the change if it had a tier, and return its handle now.

    State   room for a customer, an entry and a change must have been made before
    """
    keep_apart()
    customer = customers_of(state)[handle]
    at_us = at_us_of(batch)[i]
    seq = np.int64(customer.seq)
    if is_hidden(customer):
        entries_of(state)[find_erasure(state, handle, seeds_of(state))].at_us = at_us
        customer.tier_since_us = now_us
        return handle
    before = np.int64(customer.tier)
    if before != NO_TIER:
        seq += 1
        customer.seq = seq
        customer.last_paid_us = NEVER_US
        customer.monetary_minor = 0
        customer.frequency = 0
        f_band = count_band(frequency_cuts_of(rules), np.int64(0))
        m_band = count_band(monetary_cuts_of(rules), np.int64(0))
        customer.tier = NO_TIER
        emit(
            state,
            customer,
            handle,
            now_us,
            REASON,
            i,
            (np.int64(0), f_band, m_band),
            before,
            np.int64(FOREVER_US),
            np.int64(NO_TIER),
        )
    # Nobody knew a customer whose record is new: it has had no change and no adjustment.
    if seq & SEQ_MASK != 0 or np.int64(customer.marks) & HAS_ADJUSTMENT:
        handle = _give_up(state, batch, i, handle)
    customer = customers_of(state)[handle]
    none = np.int64(0)
    note = append_entry(state, ERASURE, handle, at_us, none, id_data_of(state), none, none)
    put(state, hash_about(handle, ERASURE, 0, seeds_of(state)), note)
    customer.seq = seq | WAS_ERASED
    customer.marks = REASON << REASON_SHIFT
    customer.tier_since_us = now_us
    state.n_erased += 1
    return handle


@jit
def purge(states, given_up):
    """Blank the entries of records given up since the last purge: ids, instants, amounts, links.

    In      given_up  u8[handles], zero
    State   STATE[1]; nothing finds the entries already, their places stay
    Returns how many entries were blanked
    Cost    O(entries)
    """
    state = states[0]
    given_up = borrow(given_up)
    handle = np.int64(state.given_up)
    while handle != 0:
        given_up[handle] = 1
        following = np.int64(customers_of(state)[handle].head)
        customers_of(state)[handle].head = 0
        handle = following
    state.given_up = 0
    state.late_entry = 0
    count = np.int64(0)
    entries, id_data = entries_of(state), id_data_of(state)
    for k in range(1, state.n_entries):
        entry = entries[k]
        if given_up[np.int64(entry.customer)] == 0:
            continue
        kind = kind_of(entry)
        if kind == ORDER:
            state.n_orders -= 1
        start = id_start_of(state, k)
        for at in range(start, start + _id_bytes(state, k)):
            id_data[at] = 0
        entry.at_us = 0
        entry.amount_minor = 0
        entry.customer = 0
        entry.previous = 0
        entry.next = 0
        entry.marks = GONE
        count += 1
    return count


@inline
def _id_bytes(state, handle):
    """Return how many bytes of `id_data` are an entry's own: up to where the next one's begin."""
    if handle + 1 >= state.n_entries:
        return state.id_bytes - id_start_of(state, handle)
    return id_start_of(state, handle + 1) - id_start_of(state, handle)
