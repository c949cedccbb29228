"""Count tier changes: those of each day, those that the customer's next one undid, and moves between two instants.

Source  docs/report.md; oracle DuckDB, tests/engine/insight/report/test_numbers.py
"""

import numpy as np

from rfmstream.kernels._jit import borrow, inline, jit, prefetch
from rfmstream.kernels.local_days import day_at

LAST = np.dtype(
    (
        np.record,
        np.dtype(
            [
                ("customer", "u8"),
                ("at_us", "i8"),
                # Tiers count from 1, so that zeroed memory is an empty slot: one without a `to_tier`.
                ("from_tier", "i4"),
                ("to_tier", "i4"),
                ("first_tier", "i4"),  # before the first change between the two instants; 0: there is none
                ("last_tier", "i4"),  # after the last of them
            ]
        ),
    )
)
"""The newest change of a customer: half a cache line."""

_AHEAD = 32


@jit
def count_days(at_us, from_tier, to_tier, reason, starts, offsets, cycle_us, first_day, moves, reasons):
    """Count changes by local day.

    In      at_us i64[n]; from_tier, to_tier, reason i8[n]
            starts, offsets i64[z], cycle_us  the zone, see `local_days`
    Out     moves    i64[days, tiers, tiers], from and to, of the days from `first_day` on
            reasons  i64[days, reasons]
    Cost    O(n), one pass
    """
    at_us, from_tier, to_tier, reason = borrow(at_us), borrow(from_tier), borrow(to_tier), borrow(reason)
    starts, offsets = borrow(starts), borrow(offsets)
    segment = np.int64(0)
    for i in range(at_us.size):
        day, segment = day_at(starts, offsets, cycle_us, at_us[i], segment)
        moves[day - first_day, from_tier[i], to_tier[i]] += 1
        reasons[day - first_day, reason[i]] += 1


@inline
def _slot_of(last, customer):
    """Return where a customer's newest change is, or is to be."""
    mask = np.uint64(last.size - 1)
    slot = customer & mask
    while last[slot].to_tier != 0 and last[slot].customer != customer:
        slot = (slot + np.uint64(1)) & mask
    return slot


@jit
def follow_customers(
    customer, at_us, from_tier, to_tier, first, span_us, within_us, last, used, after, pairs, undone
):
    """Follow each customer from change to change, as far as there is room for customers.

    In      customer u64[n], hashes; at_us i64[n]; from_tier, to_tier i8[n]: each customer's changes in their order
            first      the row to begin with
            span_us    i64[2], two instants: what lies after the one and not after the other is between them
            within_us  i64[w], ascending: how soon a change may be undone
    State   last  LAST[2^k], by customer;  used  i64[1], customers in it
    Out     after   i64[tiers], what taking back the changes after the second instant does to the tiers' sizes
            pairs   i64[tiers, tiers], changes from and to
            undone  i64[w, tiers, tiers], those of them that the next one undid (A to B, B to A) so soon
    Returns the row to go on with in a table of twice the size; n: all is done
    Cost    O(n), a cache line a row, fetched ahead
    """
    customer, at_us, from_tier, to_tier = borrow(customer), borrow(at_us), borrow(from_tier), borrow(to_tier)
    within_us, last = borrow(within_us), borrow(last)
    since_us, until_us = span_us[0], span_us[1]
    n, mask = customer.size, np.uint64(last.size - 1)
    for i in range(min(first + _AHEAD, n) - first):
        prefetch(last, np.int64(customer[first + i] & mask), 0)
    for i in range(first, n):
        if used[0] * 2 > last.size:
            return i
        if i + _AHEAD < n:
            prefetch(last, np.int64(customer[i + _AHEAD] & mask), 0)
        newest = last[_slot_of(last, customer[i])]
        came, went, at = np.int64(from_tier[i]), np.int64(to_tier[i]), at_us[i]
        pairs[came, went] += 1
        if newest.to_tier == 0:
            newest.customer = customer[i]
            used[0] += 1
        elif newest.from_tier == went + 1:
            took_us = at - newest.at_us
            k = within_us.size - 1
            while k >= 0 and took_us <= within_us[k]:
                undone[k, newest.from_tier - 1, newest.to_tier - 1] += 1
                k -= 1
        newest.at_us = at
        newest.from_tier = came + 1
        newest.to_tier = went + 1
        if at > until_us:
            after[came] += 1
            after[went] -= 1
        elif at > since_us:
            if newest.first_tier == 0:
                newest.first_tier = came + 1
            newest.last_tier = went + 1
    return n


@jit
def put_again(last, larger):
    """Put what one table has into a larger one, which is empty."""
    last, larger = borrow(last), borrow(larger)
    for i in range(last.size):
        if last[i].to_tier != 0:
            larger[_slot_of(larger, last[i].customer)] = last[i]


@jit
def count_moves(last, moves):
    """Count the customers who had a change between the two instants by their tiers before and after.

    Out     moves  i64[tiers, tiers]
    """
    last = borrow(last)
    for i in range(last.size):
        if last[i].first_tier != 0:
            moves[last[i].first_tier - 1, last[i].last_tier - 1] += 1
