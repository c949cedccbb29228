"""R, F and M of one customer, its tier, and when time alone will change it.

Nothing here reads a clock: every function takes the instant to measure at. `expire_` functions move a record's window
forward and never back.

Source: docs/semantics.md 2-5.
"""

import numpy as np

from rfmstream.kernels._jit import inline, keep_apart, part
from rfmstream.kernels.bands import count_band
from rfmstream.kernels.calendar import day_of, leaves_us, stops_after
from rfmstream.kernels.entries import kind_of
from rfmstream.kernels.layout import (
    FLAP_TIERS,
    HAS_ADJUSTMENT,
    NEXT_TIER,
    NEXT_TIER_SHIFT,
    ORDER,
    REASON_SHIFT,
    SEQ_MASK,
)
from rfmstream.kernels.memory import (
    changes_of,
    entries_of,
    flaps_of,
    frequency_cuts_of,
    lookup_of,
    monetary_cuts_of,
    recency_cuts_of,
    settled_any_of,
    settled_of,
)
from rfmstream.kernels.signals import follow_signals, warned_until, warns_from
from rfmstream.schemas.codes import FOREVER_US, NEVER_US, NO_TIER, ChangeReason

RECENCY_EXPIRED = int(ChangeReason.RECENCY_EXPIRED)
WINDOW_EXPIRED = int(ChangeReason.WINDOW_EXPIRED)

BY_TIME = -1

STEPS_BOUND = 8
"""Entries looked at when only a deadline is wanted: a customer of a million orders is looked at again later."""

TAIL_BOUND = 64
"""Newest entries looked at to see that no change is near."""


@inline
def measure_recency(rules, last_paid_us, now_us):
    """Measure R at an instant; the widest cuts hold longest.

    Returns (band: how many cuts `last_paid_us` is within; the next instant at which it falls, FOREVER_US if it cannot;
            the newest instant at which it has fallen, NEVER_US if it has not)
    """
    cuts = recency_cuts_of(rules)
    band = np.int64(rules.recency_cuts_size)
    fell_us = np.int64(NEVER_US)
    if last_paid_us == NEVER_US:
        return np.int64(0), np.int64(FOREVER_US), fell_us
    day = day_of(rules, last_paid_us) if rules.calendar else np.int64(0)
    for k in range(rules.recency_cuts_size):
        stop_us = stops_after(rules, last_paid_us, day, cuts[k])
        if stop_us > now_us:
            return band, stop_us, fell_us
        fell_us = stop_us
        band -= 1
    return band, np.int64(FOREVER_US), fell_us


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
def _keeps_bands(state, rules, customer, f_band, m_band, until_us):
    """Tell whether the newest few orders alone keep F and M in their bands until an instant, given no further event.

    Without adjustments F and M only fall as time passes, so what stays in the window for certain is enough to know.
    A customer of a million orders is told by its last few; False says nothing.
    """
    keep_apart()
    if np.int64(customer.marks) & HAS_ADJUSTMENT:
        return False
    frequency, monetary = np.int64(0), np.int64(0)
    if f_band > 0:
        frequency = frequency_cuts_of(rules)[f_band - 1]
    if m_band > 0:
        monetary = monetary_cuts_of(rules)[m_band - 1]
    entries, handle = entries_of(state), np.int64(customer.tail)
    for _ in range(TAIL_BOUND):
        if frequency <= 0 and monetary <= 0:
            return True
        if handle == 0 or leaves_us(rules, entries[handle].at_us) <= until_us:
            return False
        frequency -= 1
        monetary -= entries[handle].amount_minor
        handle = np.int64(entries[handle].previous)
    return False


@part
def next_change(state, rules, customer, cell, r_band, r_stop_us, steps_max, until_us):
    """Find the next instant at which time alone changes the tier of a customer.

    In      customer   as of the instant it was measured at: its window, tier
            cell       of its bands; r_band, r_stop_us: its recency band, and when that falls
            steps_max  entries to look at, at most
            until_us   a later change is of no interest
    Returns (instant, tier code); (FOREVER_US, NO_TIER) if never; when the search ended at `steps_max` or `until_us`,
            an instant before which nothing changes and the present tier
    """
    keep_apart()
    tier = np.int64(customer.tier)
    if tier == NO_TIER:
        return FOREVER_US, np.int64(NO_TIER)
    lookup, entries = lookup_of(rules), entries_of(state)
    settled = settled_any_of(rules) if np.int64(customer.marks) & HAS_ADJUSTMENT else settled_of(rules)
    frequency = np.int64(customer.frequency)
    monetary = np.int64(customer.monetary_minor)
    handle = np.int64(0)
    leaves_next_us = np.int64(FOREVER_US)
    if rules.window_days >= 0 and customer.head != 0:
        handle = np.int64(customer.head)
        leaves_next_us = leaves_us(rules, entries[handle].at_us)
    while settled[cell] == 0:
        at_us = min(r_stop_us, leaves_next_us)
        if at_us == FOREVER_US or steps_max <= 0:
            break
        if at_us > until_us:
            return at_us, tier
        while leaves_next_us <= at_us:
            if steps_max <= 0:
                return at_us, tier
            entry = entries[handle]
            if kind_of(entry) == ORDER:
                frequency -= 1
            monetary -= entry.amount_minor
            steps_max -= 1
            handle = np.int64(entry.next)
            leaves_next_us = np.int64(FOREVER_US)
            if handle != 0:
                leaves_next_us = leaves_us(rules, entries[handle].at_us)
        if r_stop_us <= at_us:
            r_band, r_stop_us, _ = measure_recency(rules, customer.last_paid_us, at_us)
        cell = cell_of(
            rules,
            customer,
            r_band,
            count_band(frequency_cuts_of(rules), frequency),
            count_band(monetary_cuts_of(rules), monetary),
        )
        if np.int64(lookup[cell]) != tier:
            return at_us, np.int64(lookup[cell])
    if settled[cell] == 0 and steps_max <= 0:
        return min(r_stop_us, leaves_next_us), tier
    return FOREVER_US, np.int64(NO_TIER)


@inline
def _set_deadline(customer, next_us, next_tier):
    """Note what `next_change` has found; the tier as far as there is room for it."""
    is_noted = next_tier != customer.tier and 0 < next_tier <= NEXT_TIER >> NEXT_TIER_SHIFT
    customer.deadline_us = next_us
    customer.marks = (np.int64(customer.marks) & ~NEXT_TIER) | (
        next_tier << NEXT_TIER_SHIFT if is_noted else np.int64(0)
    )


@inline
def noted_next_tier(customer):
    """Return the code of the tier that begins at the deadline; 0 where it is not noted."""
    return (np.int64(customer.marks) & NEXT_TIER) >> NEXT_TIER_SHIFT


@part
def evaluate(state, rules, customer, handle, now_us, reason, row, entry):
    """Measure a customer at `now_us`, emit a tier change if its tier differs, and set its deadline.

    In      handle   its handle, for the change; entry: the handle whose id the change names, 0 for time
            reason   ChangeReason of a change; BY_TIME: whichever of the two reasons time has
            row      row of the batch the change names, -1 for time
    State   customer; the change goes to the output, which has room for one more, and so do the signals that follow
    """
    keep_apart()
    r_band, r_stop_us, r_fell_us = measure_recency(rules, customer.last_paid_us, now_us)
    f_band = count_band(frequency_cuts_of(rules), np.int64(customer.frequency))
    m_band = count_band(monetary_cuts_of(rules), customer.monetary_minor)
    cell = cell_of(rules, customer, r_band, f_band, m_band)
    tier = np.int64(NO_TIER)
    if customer.lifetime_orders > 0:
        tier = np.int64(lookup_of(rules)[cell])
    before = np.int64(customer.tier)
    cause, is_changed = reason, tier != before
    if not is_changed:
        next_us, next_tier = next_change(
            state, rules, customer, cell, r_band, r_stop_us, STEPS_BOUND, FOREVER_US
        )
        if rules.signals_max != 0 and next_tier == tier and warns_from(rules, tier, next_us) <= now_us:
            # The search ended early, and whether a warning is due depends on where the change is.
            until_us = warned_until(rules, tier, now_us)
            if r_stop_us > until_us and _keeps_bands(state, rules, customer, f_band, m_band, until_us):
                next_us = until_us
            else:
                next_us, next_tier = next_change(
                    state, rules, customer, cell, r_band, r_stop_us, FOREVER_US, until_us
                )
        _set_deadline(customer, next_us, next_tier)
        if rules.signals_max != 0:
            follow_signals(
                state, rules, customer, handle, now_us, next_us, next_tier, is_changed, cause, row, entry
            )
        return
    if reason == BY_TIME:
        reason = RECENCY_EXPIRED if r_fell_us == now_us else WINDOW_EXPIRED
    if (
        state.flaps_size != 0
        and tier == customer.from_tier
        and now_us - customer.tier_since_us <= state.flap_us
    ):
        count_flap(state, tier, before)
    customer.tier = tier
    customer.from_tier = before
    customer.seq += 1
    customer.tier_since_us = now_us
    customer.change_entry = entry
    customer.marks = (np.int64(customer.marks) & HAS_ADJUSTMENT) | (reason << REASON_SHIFT)
    next_us, next_tier = next_change(state, rules, customer, cell, r_band, r_stop_us, FOREVER_US, FOREVER_US)
    _set_deadline(customer, next_us, next_tier)
    emit(state, customer, handle, now_us, reason, row, (r_band, f_band, m_band), before, next_us, next_tier)
    if rules.signals_max != 0:
        follow_signals(
            state, rules, customer, handle, now_us, next_us, next_tier, is_changed, cause, row, entry
        )


@part
def count_flap(state, tier, before):
    """Count a change from `tier` to `before` that was undone soon: docs/insight.md, Flaps."""
    keep_apart()
    flaps_of(state)[(tier + 1) * FLAP_TIERS + before + 1] += 1
    state.n_flaps += 1


@inline
def emit(state, customer, handle, now_us, reason, row, bands, before, next_us, next_tier):
    """Put a change of tier in the output: a customer as it was measured and counted, and its tier before."""
    change = changes_of(state)[state.n_changes]
    change.effective_us = now_us
    change.last_paid_us = customer.last_paid_us
    change.monetary_minor = customer.monetary_minor
    change.next_change_us = next_us
    change.customer = handle
    change.key0 = customer.key0
    change.key1 = customer.key1
    change.key_size = customer.key_size
    change.row = row
    change.seq = np.int64(customer.seq) & SEQ_MASK
    change.frequency = customer.frequency
    change.r_band = bands[0]
    change.f_band = bands[1]
    change.m_band = bands[2]
    change.from_tier = before
    change.to_tier = customer.tier
    change.next_tier = next_tier
    change.reason = reason
    state.n_changes += 1


@inline
def is_output_full(state, rules):
    """Tell whether another look at a customer could bring more than the output has room for."""
    return state.n_changes >= state.changes_size or state.n_signals + rules.signals_max > state.signals_size


@inline
def expire_deadline(state, rules, customer, handle):
    """Move a customer to its deadline: measure it there, emit the change if there is one, set the next deadline."""
    now_us = np.int64(customer.deadline_us)
    expire_window(state, rules, customer, now_us)
    evaluate(state, rules, customer, handle, now_us, BY_TIME, -1, 0)
