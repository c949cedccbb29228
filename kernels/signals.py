"""Signals: what has to be heard although no tier changed, and when a customer must be looked at next for them.

`measure.evaluate` calls here after each look at a customer of a ruleset that asks for signals. What a customer
remembers for them is its EXTRA; whether a dwell or a warning has been given never follows from the clock alone, so that
a look too many gives nothing twice.

Source: docs/semantics.md 9; oracle tests/support/oracle_signals.py.
"""

import numpy as np

from rfmstream.kernels._jit import inline, keep_apart, part
from rfmstream.kernels.bands import count_band
from rfmstream.kernels.calendar import day_of, leaves_us, midnight_of, stops_us
from rfmstream.kernels.entries import kind_of
from rfmstream.kernels.layout import DAY_US, NEXT_TIER, NO_NUMBER, ORDER, SEQ_MASK
from rfmstream.kernels.memory import (
    dwell_days_of,
    dwell_first_of,
    entries_of,
    extras_of,
    frequency_cuts_of,
    lookup_of,
    monetary_cuts_of,
    order_milestones_of,
    signals_of,
    single_milestones_of,
    spend_milestones_of,
    warn_days_of,
    warn_first_of,
)
from rfmstream.schemas.codes import FOREVER_US, NO_TIER, ChangeReason, SignalKind

BY_ORDER = int(ChangeReason.ORDER)
BY_FIRST_ORDER = int(ChangeReason.FIRST_ORDER)
BY_RULES = int(ChangeReason.RULES_CHANGED)

ORDERS = int(SignalKind.ORDERS)
SPEND = int(SignalKind.SPEND)
SINGLE_ORDER = int(SignalKind.SINGLE_ORDER)
WARNING = int(SignalKind.WARNING)
DWELL = int(SignalKind.DWELL)


@inline
def warns_us(rules, next_us, days):
    """Return the instant of the warning `days` before a change at `next_us`."""
    if rules.calendar:
        return midnight_of(rules, day_of(rules, next_us) - days)
    return next_us - days * DAY_US


@inline
def warns_from(rules, tier, next_us):
    """Return the earliest instant at which a tier that ends at `next_us` warns; FOREVER_US if it never does."""
    first, end = warn_first_of(rules)[tier], warn_first_of(rules)[tier + 1]
    if next_us == FOREVER_US or first == end:
        return np.int64(FOREVER_US)
    return warns_us(rules, next_us, warn_days_of(rules)[end - 1])


@inline
def warned_until(rules, tier, now_us):
    """Return an instant such that of a change after it no warning is due before more than half a day has passed."""
    end = warn_first_of(rules)[tier + 1]
    return now_us + (warn_days_of(rules)[end - 1] + 2) * DAY_US


@part
def _emit(state, customer, now_us, kind, row):
    """Begin a signal, null in all that differs by kind, and return it."""
    keep_apart()
    signal = signals_of(state)[state.n_signals]
    state.n_signals += 1
    signal.effective_us = now_us
    signal.at_us = FOREVER_US
    signal.amount_minor = NO_NUMBER
    signal.stay_minor = NO_NUMBER
    signal.key0 = customer.key0
    signal.key1 = customer.key1
    signal.key_size = customer.key_size
    signal.row = row
    signal.seq = np.int64(customer.seq) & SEQ_MASK
    signal.days = NO_NUMBER
    signal.count = NO_NUMBER
    signal.stay_orders = NO_NUMBER
    signal.tier = customer.tier
    signal.next_tier = NO_TIER
    signal.kind = kind
    return signal


@part
def _stay(state, rules, customer, next_us):
    """Find the fewest further orders just before `next_us`, and the least amount of them, that keep the tier.

    Returns (orders, minor units); (NO_NUMBER, NO_NUMBER) where no number of orders does
    Cost    O(entries that leave the window until then + bands)
    """
    keep_apart()
    frequency, monetary = np.int64(customer.frequency), np.int64(customer.monetary_minor)
    if rules.window_days >= 0:
        handle = np.int64(customer.head)
        while handle != 0 and leaves_us(rules, entries_of(state)[handle].at_us) <= next_us:
            entry = entries_of(state)[handle]
            if kind_of(entry) == ORDER:
                frequency -= 1
            monetary -= entry.amount_minor
            handle = np.int64(entry.next)
    f_cuts, m_cuts, lookup = frequency_cuts_of(rules), monetary_cuts_of(rules), lookup_of(rules)
    orders = np.int64(1)
    while True:
        f_band = count_band(f_cuts, frequency + orders)
        m_band = count_band(m_cuts, monetary)
        more_minor = np.int64(0)
        # With a further order nobody has but one, so the first half of the table is the right one.
        row = (np.int64(rules.recency_cuts_size) * (f_cuts.size + 1) + f_band) * (m_cuts.size + 1)
        while True:
            if np.int64(lookup[row + m_band]) == customer.tier:
                return orders, more_minor
            if m_band == m_cuts.size:
                break
            more_minor = m_cuts[m_band] - monetary
            m_band += 1
        if f_band == f_cuts.size:
            return np.int64(NO_NUMBER), np.int64(NO_NUMBER)
        orders = f_cuts[f_band] - frequency


@part
def _reach_milestones(state, rules, customer, extra, now_us, cause, row, entry):
    keep_apart()
    orders = np.int64(customer.lifetime_orders)
    if orders > extra.orders:
        cuts = order_milestones_of(rules)
        for k in range(cuts.size):
            if extra.orders < cuts[k] <= orders:
                _emit(state, customer, now_us, ORDERS, row).count = cuts[k]
        extra.orders = orders
    spend_minor = np.int64(customer.lifetime_monetary_minor)
    if spend_minor > extra.spend_minor:
        cuts = spend_milestones_of(rules)
        for k in range(cuts.size):
            if extra.spend_minor < cuts[k] <= spend_minor:
                _emit(state, customer, now_us, SPEND, row).amount_minor = cuts[k]
        extra.spend_minor = spend_minor
    if cause in (BY_ORDER, BY_FIRST_ORDER):
        cuts = single_milestones_of(rules)
        reached = count_band(cuts, entries_of(state)[entry].amount_minor)
        if reached > 0:
            _emit(state, customer, now_us, SINGLE_ORDER, row).amount_minor = cuts[reached - 1]


@part
def _warn(state, rules, customer, extra, now_us, next_us, next_tier, row):
    """Give the warning that is due, if one is; return the instant of the next one, FOREVER_US for none."""
    keep_apart()
    tier = np.int64(customer.tier)
    first, end = warn_first_of(rules)[tier], warn_first_of(rules)[tier + 1]
    coming_us = np.int64(FOREVER_US)
    if next_us == FOREVER_US:
        return coming_us
    if next_tier == tier:  # the change is not before next_us, and where it is nobody knows yet
        return warns_from(rules, tier, next_us)
    told_days = np.int64(FOREVER_US)
    if extra.warned_days != 0 and extra.warned_us == next_us:
        told_days = np.int64(extra.warned_days)
    for k in range(first, end):
        days = warn_days_of(rules)[k]
        if days >= told_days:
            break
        at_us = warns_us(rules, next_us, days)
        if at_us > now_us:
            coming_us = at_us
            continue
        stay_orders, stay_minor = _stay(state, rules, customer, next_us)
        signal = _emit(state, customer, now_us, WARNING, row)
        signal.at_us = next_us
        signal.next_tier = next_tier
        signal.days = days
        signal.stay_orders = stay_orders
        signal.stay_minor = stay_minor
        extra.warned_us = next_us
        extra.warned_days = days
        break
    return coming_us


@part
def _dwell(state, rules, customer, extra, now_us, cause, row):
    """Give the dwells that are due; return the instant of the next one, FOREVER_US for none."""
    keep_apart()
    tier = np.int64(customer.tier)
    first, end = dwell_first_of(rules)[tier], dwell_first_of(rules)[tier + 1]
    while first + extra.dwells < end:
        days = dwell_days_of(rules)[first + extra.dwells]
        at_us = stops_us(rules, customer.tier_since_us, days)
        if at_us > now_us:
            return at_us
        extra.dwells += 1
        if cause != BY_RULES:
            _emit(state, customer, now_us, DWELL, row).days = days
    return np.int64(FOREVER_US)


@part
def follow_signals(state, rules, customer, handle, now_us, next_us, next_tier, is_changed, cause, row, entry):
    """Give the signals that a look at a customer brings, and let its deadline be no later than the next of them.

    In      next_us, next_tier  when and to what its tier changes by time alone, as `measure.next_change` says it
            is_changed  whether its tier has just changed
            cause       ChangeReason of what it was looked at for; negative: time
            row, entry  of the event, -1 and 0 where time passed
    State   customer, its EXTRA; the output has room for rules.signals_max
    """
    keep_apart()
    extra = extras_of(state)[handle]
    if is_changed:
        extra.warned_days = 0
        extra.dwells = 0
    if row >= 0:
        _reach_milestones(state, rules, customer, extra, now_us, cause, row, entry)
    elif cause == BY_RULES:
        # What was reached under other rules has passed without a signal.
        extra.orders = max(extra.orders, customer.lifetime_orders)
        extra.spend_minor = max(extra.spend_minor, customer.lifetime_monetary_minor)
        extra.dwells = 0
    if customer.tier == NO_TIER:
        return
    tier, coming_us = np.int64(customer.tier), np.int64(FOREVER_US)
    if warn_first_of(rules)[tier] != warn_first_of(rules)[tier + 1]:
        coming_us = _warn(state, rules, customer, extra, now_us, next_us, next_tier, row)
    if dwell_first_of(rules)[tier] != dwell_first_of(rules)[tier + 1]:
        coming_us = min(coming_us, _dwell(state, rules, customer, extra, now_us, cause, row))
    if coming_us < customer.deadline_us:
        customer.deadline_us = coming_us
        customer.marks = (
            np.int64(customer.marks) & ~NEXT_TIER
        )  # that is noted for the instant of the deadline
