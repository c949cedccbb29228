"""Hold that the records of a checkpoint fit together, before anything follows them.

A right checksum says that a file is as it was written, not that it was written by a friend. What is verified is what a
loop or a look-up relies on: handles and codes in range, links that end, deadlines ahead of the clock. Whether the
figures are right is not.

Source: kernels.layout; kernels.entries (how lists are linked)
"""

import numpy as np

from rfmstream.kernels._jit import borrow, inline, jit, prefetch
from rfmstream.kernels.calendar import is_older
from rfmstream.kernels.entries import kind_of
from rfmstream.kernels.layout import (
    ADJUSTMENT,
    ERASURE,
    EVENT,
    GONE,
    IS_VOID,
    ORDER,
    SLOT_BITS,
    WHEEL_KEY_MAX,
    WHEEL_ORIGIN_US,
)
from rfmstream.kernels.measure import noted_next_tier
from rfmstream.kernels.memory import customers_of, entries_of
from rfmstream.kernels.parse import INSTANT_MAX_US, INSTANT_MIN_US
from rfmstream.schemas.codes import FOREVER_US, NEVER_US, OrderType

AHEAD = 24
KINDS_MAX = int(max(OrderType))


@inline
def _is_listed(entry):
    kind = kind_of(entry)
    return kind == ADJUSTMENT or (kind == ORDER and np.int64(entry.marks) & IS_VOID == 0)


@inline
def _is_instant(at_us):
    return INSTANT_MIN_US <= at_us <= INSTANT_MAX_US


@inline
def _ends_list(state, handle, customer):
    """Tell whether a customer may begin or end a list with an entry."""
    if handle == 0:
        return True
    entry = entries_of(state)[handle]
    return np.int64(entry.customer) == customer and _is_listed(entry)


@jit
def verify_customers(states, tiers):
    """Return the handle of the first customer that does not fit; 0 if all do.

    In      tiers  how many the ruleset has
    Cost    O(customers), two entries looked at for each
    """
    state = states[0]
    customers, entries = customers_of(state), entries_of(state)
    for handle in range(1, state.n_customers):
        if handle + AHEAD < state.n_customers:
            ahead = customers[handle + AHEAD]
            prefetch(entries, np.int64(ahead.tail), 0)
            prefetch(entries, np.int64(ahead.head), 0)
        customer = customers[handle]
        good = (
            (customer.deadline_us > state.clock_us)
            and (customer.tier_since_us == NEVER_US or _is_instant(customer.tier_since_us))
            and (customer.last_paid_us == NEVER_US or _is_instant(customer.last_paid_us))
            and (customer.first_paid_us == FOREVER_US or _is_instant(customer.first_paid_us))
            and noted_next_tier(customer) < tiers
            and (customer.tier >= 0) <= (customer.tail != 0)
            and (customer.head == 0) | (customer.tail != 0)
        )
        if not good or not _ends_list(state, np.int64(customer.head), handle):
            return np.int64(handle)
        if not _ends_list(state, np.int64(customer.tail), handle):
            return np.int64(handle)
    return np.int64(0)


@jit
def verify_entries(states, rulesets):
    """Return the handle of the first entry that does not fit, or of the last if links lead nowhere; 0 if all do.

    Along `previous` entries get older, or have smaller handles at one instant, so a walk ends. Each `next` that is
    written is answered by the `previous` of the entry it names: there are as many answers as there are questions.

    Cost    O(entries), one other entry looked at for each
    """
    state, rules = states[0], rulesets[0]
    entries = entries_of(state)
    asked = answered = np.int64(0)
    for handle in range(1, state.n_entries):
        if handle + AHEAD < state.n_entries:
            prefetch(entries, np.int64(entries[handle + AHEAD].previous), 0)
        entry = entries[handle]
        kind, owner = kind_of(entry), np.int64(entry.customer)
        previous, following = np.int64(entry.previous), np.int64(entry.next)
        other = entries[previous]
        if kind > GONE or (kind == GONE) != (owner == 0):
            return np.int64(handle)
        if _is_listed(entry):
            if not _is_instant(entry.at_us) or (previous != 0 and not _is_instant(other.at_us)):
                return np.int64(handle)
            asked += following != 0
            answered += previous != 0 and np.int64(other.next) == handle
            good = previous == 0 or (
                np.int64(other.customer) == owner
                and _is_listed(other)
                and np.int64(other.next) in (0, handle)
                and not is_older(rules, entry.at_us, other.at_us)
                and (previous < handle or is_older(rules, other.at_us, entry.at_us))
            )
        elif kind in (ORDER, GONE, ERASURE):
            good = previous == 0 and following == 0
        else:
            good = previous != 0 and np.int64(other.customer) == owner
            good &= kind_of(other) == ORDER or (kind == EVENT and kind_of(other) == ADJUSTMENT)
            good &= following <= KINDS_MAX if kind == EVENT else following == 0
        if not good:
            return np.int64(handle)
    return np.int64(0) if asked == answered else state.n_entries - 1


@jit
def verify_ids(offset, has_id, largest):
    """Tell whether every id has 1 to `largest` bytes, and where there should be none there is none.

    In      offset  i32[n + 1]; has_id bool[n]
    """
    offset, has_id = borrow(offset), borrow(has_id)
    good = True
    for i in range(has_id.size):
        size = np.int64(offset[i + 1]) - np.int64(offset[i])
        good &= 1 <= size <= largest if has_id[i] else size == 0
    return good


@jit
def verify_clock(states):
    """Tell whether the clock of a shard stands where it can."""
    state = states[0]
    if state.clock_us == NEVER_US:
        return state.n_customers == 1
    latest_us = (WHEEL_KEY_MAX << SLOT_BITS) + WHEEL_ORIGIN_US
    return INSTANT_MIN_US <= state.clock_us <= latest_us
