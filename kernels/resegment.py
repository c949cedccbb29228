"""Put every customer under other rules at one instant.

What a shard remembers of a customer (its orders, adjustments and totals) holds under any rules; what it measured (the
order of the list, the window, F and M, the tier, the deadline) is measured anew here. Timers are filed anew afterwards
by `wheel.rearm`.

Source: docs/semantics.md 3-6 (`rules_changed`).
"""

import numpy as np

from rfmstream.kernels._jit import borrow, jit, keep_apart, part
from rfmstream.kernels.calendar import is_older, leaves_us
from rfmstream.kernels.entries import complete_list, kind_of
from rfmstream.kernels.layout import DONE, ORDER, OUTPUT_FULL
from rfmstream.kernels.measure import evaluate, is_output_full
from rfmstream.kernels.memory import customers_of, entries_of
from rfmstream.schemas.codes import NO_TIER, ChangeReason

RULES_CHANGED = int(ChangeReason.RULES_CHANGED)


@part
def _sort_list(state, rules, customer):
    """Put a customer's list in the order in which entries leave by these rules; equal instants keep their order.

    Cost    O(entries) where it is sorted but for neighbours, as between rules that count days otherwise
    """
    keep_apart()
    entries = entries_of(state)
    at = np.int64(customer.tail)
    while at != 0 and entries[at].previous != 0:
        at = np.int64(entries[at].previous)
    while at != 0:
        entry = entries[at]
        following = np.int64(entry.next)
        older, newer = np.int64(entry.previous), following
        while older != 0 and is_older(rules, entry.at_us, entries[older].at_us):
            newer = older
            older = np.int64(entries[older].previous)
        if newer != following:
            before = np.int64(entry.previous)
            entries[before].next = following
            if following != 0:
                entries[following].previous = before
            else:
                customer.tail = before
            entry.previous = older
            entry.next = newer
            entries[newer].previous = at
            if older != 0:
                entries[older].next = at
        at = following


@part
def _measure_window(state, rules, customer, now_us):
    """Find the oldest entry in the window, and F and M of it."""
    keep_apart()
    customer.head = 0
    customer.frequency = 0
    customer.monetary_minor = 0
    handle = np.int64(customer.tail)
    while handle != 0:
        entry = entries_of(state)[handle]
        if leaves_us(rules, entry.at_us) <= now_us:
            break
        if kind_of(entry) == ORDER:
            customer.frequency += 1
        customer.monetary_minor += entry.amount_minor
        customer.head = handle
        handle = np.int64(entry.previous)
    if rules.window_days < 0:
        # With those orders that are forgotten, of which there is nothing but these sums.
        customer.frequency = customer.lifetime_orders
        customer.monetary_minor = customer.lifetime_monetary_minor


@jit
def resegment(states, rulesets, now_us, tiers, is_sorted, first, end):
    """Measure the customers of handles [first, end) by other rules at `now_us`, and emit the changes of tier.

    In      rulesets  RULES[1], the new ones
            now_us    not before the clock; a customer measured at a later instant already is measured there
            tiers     i8[old tier codes], the new code of the tier of that name, NO_TIER where the new rules have none:
                      such a customer changes
            is_sorted whether all lists are in order by the new rules as they are
    State   STATE[1]; timers are still those of the old deadlines
    Returns (handle to go on from, DONE | OUTPUT_FULL)
    Cost    O(customers + entries in their windows)
    """
    state, rules = states[0], rulesets[0]
    tiers = borrow(tiers)
    state.late_entry = 0
    for handle in range(first, end):
        if is_output_full(state, rules):
            return handle, OUTPUT_FULL
        customer = customers_of(state)[handle]
        complete_list(state, customer)
        if not is_sorted:
            _sort_list(state, rules, customer)
        if customer.tier != NO_TIER:
            customer.tier = tiers[customer.tier]
        if customer.from_tier != NO_TIER:
            customer.from_tier = tiers[customer.from_tier]
        at_us = max(now_us, customer.tier_since_us)
        _measure_window(state, rules, customer, at_us)
        evaluate(state, rules, customer, handle, at_us, RULES_CHANGED, -1, 0)
    return end, DONE
