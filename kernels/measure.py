"""R, F and M of one customer, its tier, and when time alone will change it.

Nothing here reads a clock: every function takes the instant to measure at. `expire_` functions move a record's window
forward and never back.

Source: SEMANTICS.md 2-5.
"""

import numpy as np

from kernels._jit import inline, keep_apart, part
from kernels.calendar import leaves_us, stops_us
from kernels.entries import kind_of
from kernels.layout import (
    HAS_ADJUSTMENT,
    ORDER,
    REASON_SHIFT,
)
from kernels.memory import (
    changes_of,
    entries_of,
    frequency_cuts_of,
    lookup_of,
    monetary_cuts_of,
    recency_cuts_of,
    settled_any_of,
    settled_of,
)
from schemas.codes import FOREVER_US, NEVER_US, NO_TIER, ChangeReason

RECENCY_EXPIRED = int(ChangeReason.RECENCY_EXPIRED)
WINDOW_EXPIRED = int(ChangeReason.WINDOW_EXPIRED)

STEPS_BOUND = 64
"""Entries looked at when only a deadline is wanted: a customer of a million orders is looked at again later."""


@inline
def recency_stop_us(rules, last_paid_us, k):
    """Return the instant at which `last_paid_us` is no longer within the k-th recency cut."""
    return stops_us(rules, last_paid_us, recency_cuts_of(rules)[k])


@inline
def recency_band(rules, last_paid_us, now_us):
    """Return how many recency cuts `last_paid_us` is within at `now_us`; the widest cuts hold longest."""
    cuts = np.int64(rules.recency_cuts_size)
    if last_paid_us == NEVER_US:
        return np.int64(0)
    k = np.int64(0)
    while k < cuts and recency_stop_us(rules, last_paid_us, k) <= now_us:
        k += 1
    return cuts - k


@inline
def count_band(cuts, value):
    """Return how many of the ascending cuts are <= value."""
    band = np.int64(0)
    while band < cuts.size and cuts[band] <= value:
        band += 1
    return band


@inline
def cell_of(rules, customer, r_band, f_band, m_band):
    """Return the cell of the lookup tables for the bands of a customer."""
    first = np.int64(1) if customer.lifetime_orders == 1 else np.int64(0)
    cell = first * (np.int64(rules.recency_cuts_size) + 1) + r_band
    cell = cell * (np.int64(rules.frequency_cuts_size) + 1) + f_band
    return cell * (np.int64(rules.monetary_cuts_size) + 1) + m_band


@inline
def expire_window(state, rules, customer, now_us):
    """Take every entry that has left the window by `now_us` out of F and M."""
    if rules.window_days < 0:
        return
    handle = np.int64(customer.head)
    while handle != 0:
        entry = entries_of(state)[handle]
        if leaves_us(rules, entry.at_us) > now_us:
            break
        if kind_of(entry) == ORDER:
            customer.frequency -= 1
        customer.monetary_minor -= entry.amount_minor
        handle = np.int64(entry.next)
    customer.head = handle


@inline
def is_counted(state, rules, customer, entry):
    """Tell whether a listed entry is in the window as it stood when the customer was last measured."""
    if rules.window_days < 0:
        return True
    head = np.int64(customer.head)
    return head != 0 and leaves_us(rules, entries_of(state)[head].at_us) <= leaves_us(rules, entry.at_us)


@part
def next_change(state, rules, customer, r_band, now_us, steps_max):
    """Find the next instant at which time alone changes the tier of a customer measured at `now_us`.

    In      customer   its window moved to now_us, its tier that of now_us
            r_band     its recency band at now_us
            steps_max  entries to look at, at most
    Returns (instant, tier code); (FOREVER_US, NO_TIER) if never; when the search ended at `steps_max`, an instant
            before which nothing changes and the present tier
    """
    keep_apart()
    tier = np.int64(customer.tier)
    if tier == NO_TIER:
        return FOREVER_US, np.int64(NO_TIER)
    settled = settled_any_of(rules) if np.int64(customer.flags) & HAS_ADJUSTMENT else settled_of(rules)
    r_cuts = np.int64(rules.recency_cuts_size)
    frequency = np.int64(customer.frequency)
    monetary = np.int64(customer.monetary_minor)
    handle = np.int64(customer.head) if rules.window_days >= 0 else np.int64(0)
    at_us = now_us
    while True:
        cell = cell_of(
            rules,
            customer,
            r_band,
            count_band(frequency_cuts_of(rules), frequency),
            count_band(monetary_cuts_of(rules), monetary),
        )
        if np.int64(lookup_of(rules)[cell]) != tier:
            return at_us, np.int64(lookup_of(rules)[cell])
        if settled[cell] != 0:
            return FOREVER_US, np.int64(NO_TIER)
        at_us = FOREVER_US
        if r_band > 0:
            at_us = recency_stop_us(rules, customer.last_paid_us, r_cuts - r_band)
        leaves = FOREVER_US
        if handle != 0:
            leaves = leaves_us(rules, entries_of(state)[handle].at_us)
            at_us = min(at_us, leaves)
        if at_us == FOREVER_US:
            return FOREVER_US, np.int64(NO_TIER)
        if steps_max <= 0:
            return at_us, tier
        while r_band > 0 and recency_stop_us(rules, customer.last_paid_us, r_cuts - r_band) <= at_us:
            r_band -= 1
        while handle != 0 and leaves <= at_us:
            entry = entries_of(state)[handle]
            if kind_of(entry) == ORDER:
                frequency -= 1
            monetary -= entry.amount_minor
            handle = np.int64(entry.next)
            steps_max -= 1
            if handle != 0:
                leaves = leaves_us(rules, entries_of(state)[handle].at_us)


@part
def evaluate(state, rules, customer, handle, now_us, reason, row, entry):
    """Measure a customer at `now_us`, emit a tier change if its tier differs, and set its deadline.

    In      handle   its handle, for the change; entry: the handle whose id the change names, 0 for time
            reason   ChangeReason of a change
            row      row of the batch the change names, -1 for time
    State   customer; the change goes to the output, which has room for one more
    """
    keep_apart()
    r_band = recency_band(rules, customer.last_paid_us, now_us)
    f_band = count_band(frequency_cuts_of(rules), np.int64(customer.frequency))
    m_band = count_band(monetary_cuts_of(rules), customer.monetary_minor)
    tier = np.int64(NO_TIER)
    if customer.lifetime_orders > 0:
        tier = np.int64(lookup_of(rules)[cell_of(rules, customer, r_band, f_band, m_band)])
    before = np.int64(customer.tier)
    if tier == before:
        customer.deadline_us = next_change(state, rules, customer, r_band, now_us, STEPS_BOUND)[0]
        return
    customer.tier = tier
    customer.from_tier = before
    customer.seq += 1
    customer.tier_since_us = now_us
    customer.change_entry = entry
    customer.flags = (np.int64(customer.flags) & HAS_ADJUSTMENT) | (reason << REASON_SHIFT)
    next_us, next_tier = next_change(state, rules, customer, r_band, now_us, FOREVER_US)
    customer.deadline_us = next_us
    change = changes_of(state)[state.n_changes]
    change.effective_us = now_us
    change.last_paid_us = customer.last_paid_us
    change.monetary_minor = customer.monetary_minor
    change.next_change_us = next_us
    change.customer = handle
    change.row = row
    change.seq = customer.seq
    change.frequency = customer.frequency
    change.r_band = r_band
    change.f_band = f_band
    change.m_band = m_band
    change.from_tier = before
    change.to_tier = tier
    change.next_tier = next_tier
    change.reason = reason
    state.n_changes += 1


@part
def expire_deadline(state, rules, customer, handle):
    """Move a customer to its deadline: measure it there, emit the change if there is one, set the next deadline."""
    keep_apart()
    now_us = np.int64(customer.deadline_us)
    expire_window(state, rules, customer, now_us)
    reason = WINDOW_EXPIRED
    if recency_band(rules, customer.last_paid_us, now_us) != recency_band(
        rules, customer.last_paid_us, now_us - 1
    ):
        reason = RECENCY_EXPIRED
    evaluate(state, rules, customer, handle, now_us, reason, -1, 0)
