"""Give back the memory of orders that are known no more; of each its sums stay, which its customer's record has.

Nothing that anybody is told changes by it. Of what is dated before `known_us`, a customer keeps the newest order that
is not void, which R falls back to when later ones are voided, and the entry whose id its newest change names. All other
entries of that age go, and with an order what was remembered of it: event ids, refunds, its first amount. The entries
that stay move up in their order, so that the same customers and orders are the same bytes, whenever it was done before.

Source: docs/decisions/; kernels.horizon (what is known); kernels.layout (what names an entry).
"""

import numpy as np

from rfmstream.kernels._jit import borrow, inline, jit, keep_apart, part, prefetch, store_word
from rfmstream.kernels.entries import hash_about, kind_of
from rfmstream.kernels.ids import word_at
from rfmstream.kernels.layout import (
    ADJUSTMENT,
    ERASURE,
    EVENT,
    GONE,
    GROUP,
    IS_VOID,
    ORDER,
    ORIGINAL,
    REFUND,
    SEGMENT,
)
from rfmstream.kernels.measure import expire_window
from rfmstream.kernels.memory import (
    customers_of,
    entries_of,
    id_base_of,
    id_data_of,
    orders_of,
    pairs_of,
    seeds_of,
)
from rfmstream.kernels.table import TAG_MASK, insert, settle, tag_of

AHEAD = 32
BLOCK = 128
WORD = 8


@inline
def _is_listed(entry):
    kind = kind_of(entry)
    return kind == ADJUSTMENT or (kind == ORDER and np.int64(entry.marks) & IS_VOID == 0)


@inline
def _is_kept(state, entry):
    """Tell whether an entry stays for its own sake, or for that of the order it speaks of."""
    kind = kind_of(entry)
    if kind in (ORDER, ADJUSTMENT):
        return entry.at_us >= state.known_us
    if kind in (REFUND, EVENT, ORIGINAL):
        return entries_of(state)[np.int64(entry.previous)].at_us >= state.known_us
    return kind != GONE


@jit
def place_kept(states, places, newest):
    """Find the entries that stay, and where each is going to stand.

    In      states   STATE[1], whose `known_us` says what goes
    Out     places   u32[entries + 1], zero at first: the handle of each entry that stays, 0 of one that goes
    Scratch newest   u32[customers + 1], zero: the newest order of each customer that is not known any more
    Returns how many entries stay, and one
    Cost    O(entries + customers)
    """
    state = states[0]
    places, newest = borrow(places), borrow(newest)
    entries, customers = entries_of(state), customers_of(state)
    for k in range(1, state.n_entries):
        if k + AHEAD < state.n_entries:
            prefetch(entries, np.int64(entries[k + AHEAD].previous), 0)
        entry = entries[k]
        if _is_kept(state, entry):
            places[k] = 1
        elif kind_of(entry) == ORDER and np.int64(entry.marks) & IS_VOID == 0:
            other = np.int64(newest[np.int64(entry.customer)])
            if other == 0 or entries[other].at_us <= entry.at_us:
                newest[np.int64(entry.customer)] = k
    for k in range(1, state.n_customers):
        places[np.int64(newest[k])] = 1
        places[np.int64(customers[k].change_entry)] = 1
    places[0] = 0
    count = np.int64(1)
    for k in range(1, state.n_entries):
        if places[k] != 0:
            places[k] = count
            count += 1
    return count


@inline
def _shorten(state, rules, customer, places):
    """Let a customer's list end, and its window begin, with entries that stay, and name these by their new handles."""
    entries = entries_of(state)
    expire_window(state, rules, customer, state.clock_us)
    tail = np.int64(customer.tail)
    if places[tail] == 0 and tail != 0:
        while tail != 0 and places[tail] == 0:
            tail = np.int64(entries[tail].previous)
        entries[tail].next = 0
    customer.tail = places[tail]
    # Where orders never leave, the oldest one that stays becomes the head when its links are mended.
    customer.head = places[np.int64(customer.head)]
    customer.change_entry = places[np.int64(customer.change_entry)]


@part
def _mend(state, rules, handle, places):
    """Link an entry that stays to the next older one that does, if the one before it goes."""
    keep_apart()
    entries = entries_of(state)
    entry = entries[handle]
    older = np.int64(entry.previous)
    while older != 0 and places[older] == 0:
        older = np.int64(entries[older].previous)
    entry.previous = older
    if older == 0 and rules.window_days < 0:
        customers_of(state)[np.int64(entry.customer)].head = places[handle]
    # One whose `next` was not written yet is left so: `complete_list` stops at the first that is.
    if older != 0 and entries[older].next != 0:
        entries[older].next = handle


@jit
def drop_forgotten(states, rulesets, places):
    """Drop the entries that go, and let the others stand side by side; windows begin at the clock.

    In      places  of `place_kept`
    State   STATE[1]: customers and entries; whatever finds entries by a hash is to be built anew, by `refill`
    Out     places  0 of the entries that `refill` hashes anew, besides
    Cost    O(entries + customers)
    """
    state, rules = states[0], rulesets[0]
    places = borrow(places)
    entries, customers = entries_of(state), customers_of(state)
    for k in range(1, state.n_customers):
        if k + AHEAD < state.n_customers:
            prefetch(entries, np.int64(customers[k + AHEAD].head), 0)
        _shorten(state, rules, customers[k], places)
    for k in range(1, state.n_entries):
        if k + AHEAD < state.n_entries:
            prefetch(places, np.int64(entries[k + AHEAD].previous), 0)
        entry = entries[k]
        if (
            places[k] != 0
            and _is_listed(entry)
            and entry.previous != 0
            and places[np.int64(entry.previous)] == 0
        ):
            _mend(state, rules, np.int64(k), places)
    _move_up(state, places)
    state.late_entry = 0


@inline
def _move_id(id_data, target, source, size):
    """Move `size` bytes of ids down; by whole words where these end before what is still to be moved."""
    if source - target >= WORD:
        done = np.int64(0)
        while done < size:
            store_word(
                id_data, target + done, word_at(id_data, source + done, min(size - done, np.int64(WORD)))
            )
            done += WORD
    elif source != target:
        for i in range(size):
            id_data[target + i] = id_data[source + i]


@part
def _move_up(state, places):
    keep_apart()
    entries, id_data, bases = entries_of(state), id_data_of(state), id_base_of(state)
    base = id_end = np.int64(0)
    n_orders, end = np.int64(0), np.int64(1)
    for k in range(1, state.n_entries):
        if k % GROUP == 0 or k == 1:
            base = bases[k // GROUP]  # before it is that of an entry which stands there now
        if k + AHEAD < state.n_entries:
            prefetch(places, np.int64(entries[k + AHEAD].previous), 0)
            prefetch(places, np.int64(entries[k + AHEAD].next), 0)
        place = np.int64(places[k])
        if place == 0:
            continue
        entry, target = entries[k], entries[place]
        kind = kind_of(entry)
        source = base + np.int64(entry.id_start)
        size = np.int64(0) if kind in (REFUND, ORIGINAL, ERASURE) else np.int64(entry.id_size) + 1
        _move_id(id_data, id_end, source, size)
        if place % GROUP == 0 or place == 1:
            bases[place // GROUP] = id_end
        target.id_start = id_end - bases[place // GROUP]
        target.id_size = entry.id_size
        id_end += size
        target.at_us = entry.at_us
        target.amount_minor = entry.amount_minor
        target.customer = entry.customer
        target.previous = places[np.int64(entry.previous)]
        target.next = entry.next if kind == EVENT else places[np.int64(entry.next)]
        target.marks = entry.marks
        n_orders += kind == ORDER
        end = place + 1
        if kind in (REFUND, ORIGINAL):
            places[k] = 0
    state.n_entries, state.n_orders, state.id_bytes = end, n_orders, id_end


@jit
def refill(states, tables, places):
    """Put the entries that stayed into an empty table, by the hashes under which the shard's table has them.

    In      places  as `drop_forgotten` left it
            states  STATE[1], whose table of entries is still that of before
    Out     tables  TABLE[1], with room for all of them
    Cost    O(pairs of both tables)
    """
    state, table = states[0], tables[0]
    places = borrow(places)
    pairs = pairs_of(orders_of(state))
    end = orders_of(state).n_segments * SEGMENT
    since = np.int64(0)
    for k in range(end):
        if k + AHEAD < end:
            prefetch(places, pairs[k + AHEAD] & TAG_MASK, 0)
        pair = pairs[k]
        place = np.int64(places[pair & TAG_MASK])
        if place != 0:
            insert(table, (pair >> 32) & TAG_MASK, place)
            since += 1
            if since == BLOCK:
                settle(table)
                since = 0
    # What is remembered of an order is found by the order's handle, which is another one now.
    for k in range(1, state.n_entries):
        entry = entries_of(state)[k]
        if kind_of(entry) in (REFUND, ORIGINAL):
            value = hash_about(np.int64(entry.previous), kind_of(entry), entry.at_us, seeds_of(state))
            insert(table, tag_of(value), np.int64(k))
            since += 1
            if since == BLOCK:
                settle(table)
                since = 0
    settle(table)
