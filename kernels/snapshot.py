"""Write what every customer is at an instant into columns, without changing anything.

Source: docs/semantics.md 7. An instant after the clock is exact, too: each customer is copied and its time run forward.
"""

import numpy as np

from rfmstream.kernels._jit import borrow, inline, jit, prefetch
from rfmstream.kernels.calendar import day_of
from rfmstream.kernels.layout import DAY_US, REASON_SHIFT, SEQ_MASK
from rfmstream.kernels.measure import (
    cell_of,
    count_band,
    expire_deadline,
    expire_window,
    measure_recency,
    next_change,
    noted_next_tier,
)
from rfmstream.kernels.memory import customers_of, entries_of, frequency_cuts_of, monetary_cuts_of
from rfmstream.kernels.outputs import put_valid
from rfmstream.schemas.codes import FOREVER_US, ChangeReason

ERASED = int(ChangeReason.ERASED)
BLOCK = 64
ENTRIES_AHEAD = 3


@inline
def _fetch_windows(state, rules, as_of_us, handles, first, end, ahead):
    """Ask for the entries that measuring the customers of handles[first:end] is going to look at, or most of them.

    Those that have left the window, the one behind them and, where the next tier is not noted, some that will leave.
    """
    customers, entries = customers_of(state), entries_of(state)
    stays_from_us = as_of_us - rules.window_days * DAY_US
    for k in range(end - first):
        ahead[k] = np.int64(customers[handles[first + k]].head)
        prefetch(entries, ahead[k], 0)
    for _ in range(ENTRIES_AHEAD):
        for k in range(end - first):
            customer, entry = customers[handles[first + k]], entries[ahead[k]]
            is_noted = noted_next_tier(customer) != 0 or customer.deadline_us == FOREVER_US
            if is_noted and customer.deadline_us > as_of_us and entry.at_us > stays_from_us:
                ahead[k] = 0
            else:
                ahead[k] = np.int64(entry.next)
                prefetch(entries, ahead[k], 0)


@jit
def write_snapshot(states, rulesets, as_of_us, handles, first, scratch, ahead, out, valid):
    """Measure some customers at `as_of_us`.

    In      as_of_us  not before the clock
            handles   u32[n]
            first     rows of `out` that others have written, whose customers come before these
            states    STATE[1], a copy with an output of its own, which is thrown away; rulesets RULES[1]
    Scratch scratch   CUSTOMER[1]; ahead i64[BLOCK]
    Out     out       outputs.SnapshotColumns, arrays of first + n
            valid     outputs.SnapshotValidity, u8[ceil((first + n) / 8)] each
    Cost    O(customers + changes and window exits between the clock and as_of_us)
    """
    state, rules = states[0], rulesets[0]
    handles, scratch, ahead = borrow(handles), borrow(scratch), borrow(ahead)
    today = day_of(rules, as_of_us)
    for i in range(handles.size):
        handle, row = np.int64(handles[i]), first + i
        if i % BLOCK == 0 and rules.window_days >= 0:
            _fetch_windows(state, rules, as_of_us, handles, i, min(i + BLOCK, handles.size), ahead)
        scratch[0] = customers_of(state)[handle]
        customer = scratch[0]
        while customer.deadline_us <= as_of_us:
            state.n_changes = 0
            expire_deadline(state, rules, customer, handle)
        now_us = max(as_of_us, np.int64(customer.tier_since_us))
        expire_window(state, rules, customer, now_us)
        r_band, r_stop_us, _ = measure_recency(rules, customer.last_paid_us, now_us)
        f_band = count_band(frequency_cuts_of(rules), np.int64(customer.frequency))
        m_band = count_band(monetary_cuts_of(rules), customer.monetary_minor)
        cell = cell_of(rules, customer, r_band, f_band, m_band)
        next_us, next_tier = np.int64(customer.deadline_us), noted_next_tier(customer)
        if next_tier == 0:
            next_us, next_tier = next_change(
                state, rules, customer, cell, r_band, r_stop_us, FOREVER_US, FOREVER_US
            )
        seq, reason = np.int64(customer.seq) & SEQ_MASK, np.int64(customer.marks) >> REASON_SHIFT
        # Who came back after an erasure with an adjustment alone has had no change that may be told.
        is_told = seq > 0 and reason != ERASED
        is_paid = customer.lifetime_orders > 0
        out.tier[row] = customer.tier
        put_valid(valid.tier, row, customer.tier >= 0)
        out.tier_since[row] = customer.tier_since_us
        put_valid(valid.tier_since, row, is_told)
        out.seq[row] = seq
        put_valid(valid.seq, row, seq > 0)
        out.from_tier[row] = customer.from_tier
        put_valid(valid.from_tier, row, customer.from_tier >= 0)
        out.reason[row] = reason
        put_valid(valid.reason, row, is_told)
        out.order_entry[row] = customer.change_entry
        out.r_band[row] = r_band
        out.f_band[row] = f_band
        out.m_band[row] = m_band
        out.last_paid_at[row] = customer.last_paid_us
        put_valid(valid.last_paid_at, row, is_paid)
        out.recency_days[row] = 0
        out.average_order_minor[row] = 0
        if is_paid:
            out.average_order_minor[row] = customer.lifetime_monetary_minor // np.int64(
                customer.lifetime_orders
            )
            if rules.calendar:
                out.recency_days[row] = today - day_of(rules, customer.last_paid_us)
            else:
                out.recency_days[row] = (as_of_us - customer.last_paid_us) // DAY_US
        put_valid(valid.recency_days, row, is_paid)
        put_valid(valid.average_order_minor, row, is_paid)
        out.frequency[row] = customer.frequency
        out.monetary_minor[row] = customer.monetary_minor
        out.first_paid_at[row] = customer.first_paid_us
        put_valid(valid.first_paid_at, row, is_paid)
        out.lifetime_orders[row] = customer.lifetime_orders
        out.lifetime_monetary_minor[row] = customer.lifetime_monetary_minor
        out.next_change_at[row] = next_us
        put_valid(valid.next_change_at, row, next_us != FOREVER_US)
        out.next_tier[row] = next_tier
        put_valid(valid.next_tier, row, next_tier >= 0)
