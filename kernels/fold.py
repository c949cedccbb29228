"""Fold one batch of order events into a shard.

The fold takes rows in blocks. It looks up the customers of all rows of a block, then their entries, and then applies
the rows in order. So the cache misses of different rows overlap (docs/decisions/).

Customers are independent of each other. An event brings only its own customer up to the clock; `wheel.advance` brings
up the others when the batch is done. The changes, and their order for each customer, are those of visiting every
instant in turn (docs/semantics.md 5).
"""

import numpy as np

from rfmstream.kernels._jit import borrow, inline, jit, keep_apart, part, prefetch
from rfmstream.kernels.apply import apply_other, count_in
from rfmstream.kernels.entries import (
    append_entry,
    find_by_id,
)
from rfmstream.kernels.erase import blank, erase, erased_us, is_hidden
from rfmstream.kernels.horizon import forgets, is_forgotten, known_from
from rfmstream.kernels.ids import hash_pair, is_customer, set_customer_id
from rfmstream.kernels.judge import (
    ADJUSTED,
    APPLIED,
    ERASED,
    ERASED_CUSTOMER,
    FUTURE_TIME,
    PAID,
    UNKNOWN_ORDER,
    has_event_id,
    judge_known,
    remember_event_id,
)
from rfmstream.kernels.layout import (
    DONE,
    GROW,
    HAS_EVENT_ID,
    ORDER,
    OUTPUT_FULL,
    WAS_ERASED,
)
from rfmstream.kernels.measure import evaluate, expire_deadline, expire_window, is_output_full
from rfmstream.kernels.memory import (
    amount_minor_of,
    at_us_of,
    customer_data_of,
    customer_hash_of,
    customer_offset_of,
    customers_of,
    entries_of,
    extras_of,
    index_of,
    key_data_of,
    kind_of,
    log_us_of,
    order_data_of,
    order_hash_of,
    order_offset_of,
    orders_of,
    pairs_of,
    route_of,
    seeds_of,
)
from rfmstream.kernels.table import find_next, first_hit, insert, prefetch_homes, probe, settle, tag_of
from rfmstream.kernels.wheel import arm, has_chunks, key_of
from rfmstream.schemas.codes import ID_BYTES_MAX, NO_TIER, ChangeReason

BLOCK = 128
"""Rows of a block: so few that prefetched lines are still in the caches when their row is applied."""
ENTRIES_PER_ROW = 3  # an order with its event_id, or a refund with the original amount and its identity

REASONS = np.array(
    [
        ChangeReason.ORDER,
        ChangeReason.REFUND,
        ChangeReason.CANCELLATION,
        ChangeReason.ADJUSTMENT,
        ChangeReason.REFUND,
        ChangeReason.ERASED,
    ],
    dtype=np.int64,
)
FIRST_ORDER = int(ChangeReason.FIRST_ORDER)


@inline
def _needs_room(state):
    """Tell whether the shard must grow before another block."""
    entries = BLOCK * ENTRIES_PER_ROW
    return (
        state.n_customers + BLOCK > state.customers_size
        or state.n_entries + entries > state.entries_size
        or state.id_bytes + entries * ID_BYTES_MAX + 8 > state.id_data_size
        or state.key_bytes + BLOCK * ID_BYTES_MAX > state.key_data_size
        or not has_chunks(state, BLOCK)
        or not settle(index_of(state))
        or not settle(orders_of(state))
    )


@inline
def shard_of(value, shards):
    """Return the shard of a customer by its route."""
    return np.int64((value & np.uint64(0xFFFF)) * np.uint64(shards) >> np.uint64(16))


@part
def _find_customer(state, value, data, start, size):
    """Return the handle of the customer with this hash and id; 0 if there is none."""
    keep_apart()
    table, tag = index_of(state), tag_of(value)
    handle, cursor = find_next(table, tag, 0)
    while handle != 0 and not is_customer(customers_of(state)[handle], key_data_of(state), data, start, size):
        handle, cursor = find_next(table, tag, cursor)
    return handle


@part
def _add_customer(state, value, data, start, size, at_us):
    keep_apart()
    handle = state.n_customers
    state.n_customers = handle + 1
    customer = customers_of(state)[handle]
    state.key_bytes = set_customer_id(customer, key_data_of(state), state.key_bytes, data, start, size)
    blank(customer)
    if state.wheel_key == 0:
        state.wheel_key = key_of(max(at_us, state.clock_us))
    insert(index_of(state), tag_of(value), handle)
    return handle


@inline
def _apply_row(state, rules, batch, i, handle, value, clock_us):
    """Apply one row whose customer is `handle` at an instant; return its outcome, or -1 where the output is full."""
    customer = customers_of(state)[handle]
    start = np.int64(order_offset_of(batch)[i])
    size = np.int64(order_offset_of(batch)[i + 1]) - start
    kind = np.int64(kind_of(batch)[i])
    tag = tag_of(value)
    order = np.int64(0)
    like, free = probe(orders_of(state), tag)
    own_event_id = has_event_id(batch, i)
    if np.int64(customer.seq) & WAS_ERASED and at_us_of(batch)[i] <= erased_us(state, handle):
        return np.int64(ERASED_CUSTOMER)
    if kind in (PAID, ADJUSTED) and is_forgotten(state, rules, at_us_of(batch)[i], clock_us):
        return np.int64(UNKNOWN_ORDER)
    if kind != PAID or own_event_id or like != 0:
        known_us = known_from(state, rules, clock_us)
        if kind not in (ADJUSTED, ERASED):
            order = find_by_id(state, value, handle, order_data_of(batch), start, size, ORDER, known_us)
        outcome = judge_known(state, batch, i, handle, value, order, own_event_id, known_us)
        if outcome != APPLIED:
            return outcome
    now_us = max(clock_us, at_us_of(batch)[i], customer.tier_since_us)
    while customer.deadline_us <= now_us:
        if is_output_full(state, rules):
            return np.int64(-1)
        expire_deadline(state, rules, customer, handle)
    if is_output_full(state, rules):
        return np.int64(-1)
    if kind == ERASED:
        erase(state, rules, batch, i, handle, now_us)
        return np.int64(APPLIED)
    state.n_erased -= is_hidden(customer)
    expire_window(state, rules, customer, now_us)
    if kind == PAID:
        about = append_entry(
            state,
            ORDER,
            handle,
            at_us_of(batch)[i],
            amount_minor_of(batch)[i],
            order_data_of(batch),
            start,
            size,
        )
        pairs_of(orders_of(state))[free] = (tag << 32) | about
        count_in(state, rules, customer, about, now_us, kind)
    else:
        about = apply_other(state, rules, batch, i, customer, handle, value, order, now_us, own_event_id)
    if own_event_id:
        if kind in (PAID, ADJUSTED):
            entries_of(state)[about].marks |= HAS_EVENT_ID
        remember_event_id(state, batch, i, about)
    reason = REASONS[kind]
    if kind == PAID and customer.tier == NO_TIER:
        reason = FIRST_ORDER
    evaluate(state, rules, customer, handle, now_us, reason, i, about)
    arm(state, customer, handle)
    return np.int64(APPLIED)


@part
def _meet(state, rules, batch, i, clock_us):
    """Find the customer of a row that had none when its block was looked up, or add it unless the row is forgotten.

    A row that is rejected adds nobody, and where orders are forgotten that is known at its turn, not before.
    """
    keep_apart()
    start = np.int64(customer_offset_of(batch)[i])
    size = np.int64(customer_offset_of(batch)[i + 1]) - start
    value, at_us, kind = customer_hash_of(batch)[i], at_us_of(batch)[i], kind_of(batch)[i]
    handle = _find_customer(state, value, customer_data_of(batch), start, size)
    if handle != 0 or kind not in (PAID, ADJUSTED, ERASED):
        return handle
    if kind != ERASED and is_forgotten(state, rules, at_us, clock_us):
        return handle
    return _add_customer(state, value, customer_data_of(batch), start, size, at_us)


@inline
def _look_up(state, batch, rules, first, end, rows, handles, hashes):
    """Find the customer of each row of a block, or add it at its first event; return how many rows are this shard's.

    Prefetches stand in loops of their own. A prefetch retires only after its page walk, which is most of its cost;
    keeping these loops tight lets the walks overlap.
    """
    count = np.int64(0)
    for i in range(first, end):
        value = customer_hash_of(batch)[i]
        if state.shards == 1 or shard_of(route_of(batch)[i], state.shards) == state.shard:
            rows[count] = i
            prefetch_homes(index_of(state), tag_of(value))
            hashes[count] = hash_pair(value, order_hash_of(batch)[i], seeds_of(state))
            prefetch_homes(orders_of(state), tag_of(hashes[count]))
            count += 1
    for k in range(count):
        tag = tag_of(customer_hash_of(batch)[rows[k]])
        handles[k] = first_hit(index_of(state), tag)
    for k in range(count):
        prefetch(customers_of(state), np.int64(handles[k]), 0)
        prefetch(customers_of(state), np.int64(handles[k]), 64)
    if rules.signals_max != 0:
        for k in range(count):
            prefetch(extras_of(state), np.int64(handles[k]), 0)
    for k in range(count):
        i = np.int64(rows[k])
        start = np.int64(customer_offset_of(batch)[i])
        size = np.int64(customer_offset_of(batch)[i + 1]) - start
        value = customer_hash_of(batch)[i]
        handle = np.int64(handles[k])
        if handle == 0 or not is_customer(
            customers_of(state)[handle], key_data_of(state), customer_data_of(batch), start, size
        ):
            handle = _find_customer(state, value, customer_data_of(batch), start, size)
        kind = kind_of(batch)[i]
        if (
            handle == 0
            and kind in (PAID, ADJUSTED, ERASED)
            and not forgets(state, rules)
            and (batch.log_us_size == 0 or at_us_of(batch)[i] <= log_us_of(batch)[i] + batch.tolerance_us)
        ):
            handle = _add_customer(state, value, customer_data_of(batch), start, size, at_us_of(batch)[i])
        handles[k] = handle
    if rules.window_days >= 0:
        for k in range(count):
            handle = np.int64(handles[k])
            prefetch(entries_of(state), np.int64(customers_of(state)[handle].tail), 0)
            prefetch(entries_of(state), np.int64(customers_of(state)[handle].head), 0)
        for k in range(count):
            head = np.int64(customers_of(state)[np.int64(handles[k])].head)
            prefetch(entries_of(state), np.int64(entries_of(state)[head].next), 0)
    return count


@part
def _follow(state, batch, rows, handles, k, count):
    """Look up again, for the later rows of a block, a customer that a row of it has erased."""
    keep_apart()
    i, old = np.int64(rows[k]), np.int64(handles[k])
    start = np.int64(customer_offset_of(batch)[i])
    size = np.int64(customer_offset_of(batch)[i + 1]) - start
    handle = _find_customer(state, customer_hash_of(batch)[i], customer_data_of(batch), start, size)
    for later in range(k + 1, count):
        if handles[later] == old:
            handles[later] = handle


@jit
def fold(states, rulesets, batches, first, outcome, rows, handles, hashes):
    """Fold the rows of a batch, from `first` on, that belong to a shard.

    In      batches  BATCH[1], its n rows in the order in which they are to be applied; rows whose customer's hash
                     falls to another shard are left alone
            rulesets RULES[1]
    State   states   STATE[1]; its clock becomes the newest instant applied, or the log's clock; changes are added
                     to its output
    Out     outcome  u8[n], Outcome of each of this shard's rows
    Scratch rows, handles i64[BLOCK]; hashes u64[BLOCK], of customer and order id together
    Holds   a row that is not applied changes nothing; the next call continues at the row that this one returned
    Returns (row to continue at, DONE | OUTPUT_FULL | GROW)
    Cost    O(rows), no allocation
    Source  docs/semantics.md 3-5; oracle tests/support/oracle.py
    """
    state, rules, batch = states[0], rulesets[0], batches[0]
    rows, handles, hashes, outcome = borrow(rows), borrow(handles), borrow(hashes), borrow(outcome)
    total = batch.at_us_size
    is_log = batch.log_us_size > 0
    while first < total:
        if _needs_room(state):
            return first, GROW
        end = min(first + BLOCK, total)
        count = _look_up(state, batch, rules, first, end, rows, handles, hashes)
        for k in range(count):
            i = np.int64(rows[k])
            if is_log:
                state.clock_us = max(state.clock_us, log_us_of(batch)[i])
                if at_us_of(batch)[i] > log_us_of(batch)[i] + batch.tolerance_us:
                    outcome[i] = FUTURE_TIME
                    continue
            # What time a row is judged by: the log's, else that of the newest event, which may be this one.
            clock_us = state.clock_us if is_log else max(state.clock_us, at_us_of(batch)[i])
            handle = np.int64(handles[k])
            if handle == 0 and forgets(state, rules):
                handle = _meet(state, rules, batch, i, clock_us)
                handles[k] = handle
            if handle == 0:
                outcome[i] = UNKNOWN_ORDER
                continue
            made = _apply_row(state, rules, batch, i, handle, hashes[k], clock_us)
            if made < 0:
                return i, OUTPUT_FULL
            outcome[i] = made
            if made == APPLIED and not is_log:
                state.clock_us = max(state.clock_us, at_us_of(batch)[i])
            if made == APPLIED and kind_of(batch)[i] == ERASED:
                _follow(state, batch, rows, handles, k, count)
        first = end
    return first, DONE
