"""The entry arena: every order and every other event that must be remembered, found by customer and id.

Entries stand in the order they came; their ids stand in the same order in `id_data`, so an entry needs two bytes for
its id's place. The entries of a customer that count (orders not void, adjustments) form a list in the order in which
they leave the window; `head` is its oldest entry still inside, `tail` its newest. Where orders never leave, nobody
walks from old to new, and `next` is only written when somebody needs it (`complete_list`).

Source: docs/semantics.md 1 (identity), 3; docs/decisions/.
"""

import numpy as np

from rfmstream.kernels._jit import fold_multiply, inline, keep_apart, part, store_word
from rfmstream.kernels.calendar import is_older
from rfmstream.kernels.ids import same_bytes, word_at
from rfmstream.kernels.layout import (
    ADJUSTMENT,
    DAY_US,
    ERASURE,
    EVENT,
    GROUP,
    HAS_ADJUSTMENT,
    KIND_MASK,
    ORDER,
    ORIGINAL,
)
from rfmstream.kernels.memory import entries_of, id_base_of, id_data_of, orders_of
from rfmstream.kernels.table import find_next, insert, tag_of
from rfmstream.schemas.codes import FOREVER_US, NEVER_US


@inline
def kind_of(entry):
    """Return the kind of an entry."""
    return np.int64(entry.marks) & KIND_MASK


@inline
def hash_instant(base, kind, at_us, seeds):
    """Return the hash of an identity made of an id (or a handle), a kind and an instant."""
    return fold_multiply(base ^ seeds[3], np.uint64(at_us) ^ seeds[0] ^ (np.uint64(kind) << np.uint64(59)))


@inline
def id_start_of(state, handle):
    """Return where the id of an entry begins in `id_data`."""
    return id_base_of(state)[handle // GROUP] + np.int64(entries_of(state)[handle].id_start)


@inline
def has_id(state, handle, customer, data, start, size):
    """Tell whether an entry belongs to a customer and carries this id."""
    entry = entries_of(state)[handle]
    return (
        np.int64(entry.customer) == customer
        and np.int64(entry.id_size) + 1 == size
        and same_bytes(id_data_of(state), id_start_of(state, handle), data, start, size)
    )


@part
def find_by_id(state, value, customer, data, start, size, kind, known_us):
    """Return the handle of the entry of a kind (ORDER, EVENT) with this hash, customer and id; 0 if there is none.

    One that is dated before `known_us`, or speaks of one that is, does not count as there.
    """
    keep_apart()
    table, tag = orders_of(state), tag_of(value)
    handle, cursor = find_next(table, tag, 0)
    while handle != 0:
        entry = entries_of(state)[handle]
        if kind_of(entry) == kind and has_id(state, handle, customer, data, start, size):
            dated = entries_of(state)[np.int64(entry.previous)] if kind == EVENT else entry
            if dated.at_us >= known_us:
                break
        handle, cursor = find_next(table, tag, cursor)
    return handle


@part
def find_adjustment(state, value, customer, at_us, data, start, size):
    """Return the handle of the adjustment with this identity (customer, id, instant); 0 if there is none."""
    keep_apart()
    table, tag = orders_of(state), tag_of(value)
    handle, cursor = find_next(table, tag, 0)
    while handle != 0:
        entry = entries_of(state)[handle]
        if (
            kind_of(entry) == ADJUSTMENT
            and entry.at_us == at_us
            and has_id(state, handle, customer, data, start, size)
        ):
            break
        handle, cursor = find_next(table, tag, cursor)
    return handle


@part
def find_about(state, value, kind, order, at_us):
    """Return the handle of the REFUND or ORIGINAL entry that speaks of an order at an instant; 0 if none."""
    keep_apart()
    table, tag = orders_of(state), tag_of(value)
    handle, cursor = find_next(table, tag, 0)
    while handle != 0:
        entry = entries_of(state)[handle]
        if kind_of(entry) == kind and np.int64(entry.previous) == order and entry.at_us == at_us:
            break
        handle, cursor = find_next(table, tag, cursor)
    return handle


@part
def find_erasure(state, customer, seeds):
    """Return the handle of the ERASURE entry of a customer that has one."""
    keep_apart()
    table, tag = orders_of(state), tag_of(hash_about(customer, ERASURE, 0, seeds))
    handle, cursor = find_next(table, tag, 0)
    while handle != 0:
        entry = entries_of(state)[handle]
        if kind_of(entry) == ERASURE and np.int64(entry.customer) == customer:
            break
        handle, cursor = find_next(table, tag, cursor)
    return handle


@inline
def hash_about(order, kind, at_us, seeds):
    """Return the hash under which the REFUND or ORIGINAL entry of an order, or a customer's ERASURE, stands."""
    return hash_instant(np.uint64(order), kind, at_us, seeds)


@inline
def append_entry(state, kind, customer, at_us, amount_minor, data, start, size):
    """Append an entry with its id; return its handle. The caller puts it in the table.

    Room for one entry, its id and eight spare bytes must have been made before.
    """
    handle = state.n_entries
    id_start = state.id_bytes
    if handle % GROUP == 0 or handle == 1:
        id_base_of(state)[handle // GROUP] = id_start
    id_data = id_data_of(state)
    done = np.int64(0)
    while done < size:
        store_word(id_data, id_start + done, word_at(data, start + done, min(size - done, np.int64(8))))
        done += 8
    state.id_bytes = id_start + size
    entry = entries_of(state)[handle]
    entry.at_us = at_us
    entry.amount_minor = amount_minor
    entry.customer = customer
    entry.previous = 0
    entry.next = 0
    entry.id_start = id_start - id_base_of(state)[handle // GROUP]
    entry.id_size = max(size - 1, 0)
    entry.marks = kind
    state.n_entries = handle + 1
    if kind == ORDER:
        state.n_orders += 1
    return handle


@part
def put(state, value, handle):
    """Put an entry in the table under a hash."""
    keep_apart()
    insert(orders_of(state), tag_of(value), handle)


@part
def add_note(state, value, kind, about, at_us, amount_minor, data, start, size):
    """Append an entry that is in no list: it only remembers something about the entry `about`."""
    keep_apart()
    customer = np.int64(entries_of(state)[about].customer)
    handle = append_entry(state, kind, customer, at_us, amount_minor, data, start, size)
    put(state, value, handle)
    entries_of(state)[handle].previous = about
    return handle


@part
def original_amount(state, order, seeds):
    """Return the amount an order was paid with, whatever was refunded since."""
    keep_apart()
    note = find_about(state, hash_about(order, ORIGINAL, 0, seeds), ORIGINAL, order, 0)
    if note != 0:
        return entries_of(state)[note].amount_minor
    return entries_of(state)[order].amount_minor


@part
def refunded_minor(state, order, seeds):
    """Return what was taken off an order so far by refunds of either kind; a cancellation takes nothing off."""
    keep_apart()
    return original_amount(state, order, seeds) - entries_of(state)[order].amount_minor


@part
def complete_list(state, customer):
    """Write the `next` that `link` left out: those behind some entry of the list, all of them.

    Cost    one step for each entry that was appended since the last call
    """
    keep_apart()
    entries = entries_of(state)
    newer = np.int64(customer.tail)
    older = np.int64(entries[newer].previous)
    while older != 0 and np.int64(entries[older].next) != newer:
        entries[older].next = newer
        newer = older
        older = np.int64(entries[newer].previous)


@part
def _insert_before_tail(state, rules, customer, handle):
    """Put a late entry before the newer ones; return the next newer one.

    The search begins where the last late entry was put if that was the same customer's: late rows come in runs.
    """
    keep_apart()
    complete_list(state, customer)
    entries = entries_of(state)
    entry = entries[handle]
    newer = np.int64(customer.tail)
    if np.int64(entries[state.late_entry].customer) == np.int64(entry.customer):
        newer = state.late_entry
        while not is_older(rules, entry.at_us, entries[newer].at_us):
            newer = np.int64(entries[newer].next)
    while entries[newer].previous != 0 and is_older(
        rules, entry.at_us, entries[np.int64(entries[newer].previous)].at_us
    ):
        newer = np.int64(entries[newer].previous)
    older = np.int64(entries[newer].previous)
    entry.previous = older
    entry.next = newer
    entries[newer].previous = handle
    if older != 0:
        entries[older].next = handle
    state.late_entry = handle
    return newer


@inline
def _is_newest(rules, customer, at_us):
    """Tell whether no entry of a list is newer, as far as that can be told without looking at one."""
    if rules.day_can_fall or np.int64(customer.marks) & HAS_ADJUSTMENT:
        return False
    return at_us >= customer.last_paid_us


@inline
def link(state, rules, customer, handle, in_window):
    """Put an entry at its place in its customer's list; equal instants keep the order of arrival.

    Holds   `head` is the oldest entry in the window, given that all before it had left when this one came
    Cost    one step for an entry that is the newest, else as many as there are newer ones; none of another entry's
            cache line where orders never leave
    """
    entries = entries_of(state)
    tail = np.int64(customer.tail)
    newer = np.int64(0)
    if tail == 0:
        customer.tail = handle
    elif not _is_newest(rules, customer, entries[handle].at_us) and is_older(
        rules, entries[handle].at_us, entries[tail].at_us
    ):
        newer = _insert_before_tail(state, rules, customer, handle)
    else:
        entries[handle].previous = tail
        if rules.window_days >= 0:
            entries[tail].next = handle
        customer.tail = handle
    if in_window and newer == np.int64(customer.head):
        customer.head = handle


@part
def unlink(state, customer, handle):
    """Take an entry out of its customer's list."""
    keep_apart()
    entries = entries_of(state)
    entry = entries[handle]
    older, newer = np.int64(entry.previous), np.int64(entry.next)
    if older != 0:
        entries[older].next = newer
    if newer != 0:
        entries[newer].previous = older
    if np.int64(customer.tail) == handle:
        customer.tail = older
    if np.int64(customer.head) == handle:
        customer.head = newer
    if state.late_entry == handle:
        state.late_entry = 0
    entry.previous = 0
    entry.next = 0


@part
def newest_order_us(state, rules, customer):
    """Return the newest instant of an order in the list; NEVER_US if there is none.

    Where the list is ordered by local date first, an older entry may be up to two days newer than the one behind it.
    """
    keep_apart()
    slack_us = 2 * DAY_US if rules.day_can_fall else 0
    newest = NEVER_US
    handle = np.int64(customer.tail)
    while handle != 0:
        entry = entries_of(state)[handle]
        if newest != NEVER_US and entry.at_us <= newest - slack_us:
            break
        if kind_of(entry) == ORDER:
            newest = max(newest, entry.at_us)
        handle = np.int64(entry.previous)
    return newest


@part
def oldest_order_us(state, rules, older, newer, oldest_us):
    """Return the oldest instant of an order in a list out of which the oldest order was just taken.

    In      older, newer  its neighbours, 0 for none; oldest_us: its instant, which no order is before
    Returns FOREVER_US if there is no order left
    """
    keep_apart()
    entries = entries_of(state)
    slack_us = 2 * DAY_US if rules.day_can_fall else 0
    while older != 0 and entries[older].at_us >= oldest_us - slack_us:
        newer = older
        older = np.int64(entries[older].previous)
    oldest = FOREVER_US
    while newer != 0:
        entry = entries[newer]
        if oldest != FOREVER_US and entry.at_us >= oldest + slack_us:
            break
        if kind_of(entry) == ORDER:
            oldest = min(oldest, entry.at_us)
        newer = np.int64(entry.next)
    return oldest
