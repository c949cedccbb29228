"""The timing wheel: it holds every customer's deadline, the instant at which time alone may change the customer's tier.

It is a hierarchical timing wheel (Varghese and Lauck 1987) of two levels. The open bucket has 512 slots of 134 s; each
later bucket of 19 h is one list. Lists are chunks of 62 customer handles, so filing a deadline is one store, and a
drain reads memory in order.

A customer is armed in one slot. When its deadline moves later, which a payment does, it stays there, and the drain of
that slot files it anew. When its deadline moves earlier, it is filed and armed in an earlier slot; the drain of the
later slot drops it. Deadlines follow from the customers, so no checkpoint holds the wheel.

Source: docs/decisions/; docs/semantics.md 5.
"""

import numpy as np

from rfmstream.kernels._jit import borrow, inline, jit, keep_apart, part, prefetch
from rfmstream.kernels.layout import (
    BUCKET_SLOT_BITS,
    BUCKET_SLOTS,
    CHUNK_HEAD,
    CHUNK_WORDS,
    DONE,
    GROW,
    OUTPUT_FULL,
    SLOT_BITS,
    WHEEL_KEY_MAX,
    WHEEL_ORIGIN_US,
)
from rfmstream.kernels.measure import expire_deadline, is_output_full
from rfmstream.kernels.memory import (
    buckets_of,
    chunks_of,
    customers_of,
    entries_of,
    extras_of,
    slot_min_us_of,
    slots_of,
)
from rfmstream.schemas.codes import FOREVER_US

ENTRIES_AHEAD = 5

PUSH_RESERVE = BUCKET_SLOTS + 2
"""The most chunks that filing the customers of one chunk anew can take."""


@inline
def key_of(at_us):
    """Return the slot of an instant, counted from the year 0; instants after the year 10000 share the last."""
    return min((at_us - WHEEL_ORIGIN_US) >> SLOT_BITS, WHEEL_KEY_MAX)


@inline
def has_chunks(state, count):
    """Tell whether `count` more chunks can be taken."""
    return state.n_free_chunks + state.chunks_size - state.n_chunks >= count


@inline
def _push(state, head, handle):
    """Put a handle in the list whose newest chunk is `head` (0: empty list); return its newest chunk."""
    chunks = chunks_of(state)
    if head == 0 or np.int64(chunks[head, 1]) == CHUNK_WORDS - CHUNK_HEAD:
        fresh = state.free_chunk
        if fresh != 0:
            state.free_chunk = np.int64(chunks[fresh, 0])
            state.n_free_chunks -= 1
        else:
            fresh = state.n_chunks
            state.n_chunks = fresh + 1
        chunks[fresh, 0] = head
        chunks[fresh, 1] = 0
        head = fresh
    used = np.int64(chunks[head, 1])
    chunks[head, CHUNK_HEAD + used] = handle
    chunks[head, 1] = used + 1
    return head


@inline
def _free(state, chunk):
    """Return a chunk to the free list; return the next chunk of its own list."""
    behind = np.int64(chunks_of(state)[chunk, 0])
    chunks_of(state)[chunk, 0] = state.free_chunk
    state.free_chunk = chunk
    state.n_free_chunks += 1
    return behind


@inline
def _file_today(state, key, handle, deadline_us):
    """File a customer in a slot of the open bucket.

    Its deadline may have moved beyond the slot since it was armed; then the drain files it anew when the slot ends.
    """
    slot = key & (BUCKET_SLOTS - 1)
    slots_of(state)[slot] = _push(state, np.int64(slots_of(state)[slot]), handle)
    due_us = min(deadline_us, ((key + 1) << SLOT_BITS) + WHEEL_ORIGIN_US)
    slot_min_us_of(state)[slot] = min(slot_min_us_of(state)[slot], due_us)
    state.n_today += 1


@inline
def arm(state, customer, handle):
    """File a customer under its deadline, unless it is armed in an earlier slot.

    Holds   the caller has made room for one chunk
    """
    if customer.deadline_us == FOREVER_US:
        return
    key = max(key_of(customer.deadline_us), state.wheel_key)
    armed = np.int64(customer.armed)
    if key >= WHEEL_KEY_MAX or (armed != 0 and armed < key):
        return
    is_today = key >> BUCKET_SLOT_BITS == state.wheel_key >> BUCKET_SLOT_BITS
    if armed == key:
        # Its deadline may have moved to an earlier instant of the same slot.
        if is_today:
            slot = key & (BUCKET_SLOTS - 1)
            slot_min_us_of(state)[slot] = min(slot_min_us_of(state)[slot], customer.deadline_us)
        return
    customer.armed = key
    if is_today:
        _file_today(state, key, handle, customer.deadline_us)
    else:
        bucket = key >> BUCKET_SLOT_BITS
        buckets_of(state)[bucket] = _push(state, np.int64(buckets_of(state)[bucket]), handle)


@inline
def _prefetch_chunk(state, chunk):
    for k in range(np.int64(chunks_of(state)[chunk, 1])):
        handle = np.int64(chunks_of(state)[chunk, CHUNK_HEAD + k])
        prefetch(customers_of(state), handle, 0)
        prefetch(customers_of(state), handle, 64)


@inline
def _prefetch_extras(state, chunk):
    """Prefetch what the customers of a chunk remember for signals: each that is due looks at it."""
    for k in range(np.int64(chunks_of(state)[chunk, 1])):
        prefetch(extras_of(state), np.int64(chunks_of(state)[chunk, CHUNK_HEAD + k]), 0)


@inline
def _prefetch_windows(state, chunk, now_us, ahead):
    """Prefetch the oldest entries in the window of each customer that is due: their leaving decides its tier."""
    entries = entries_of(state)
    used = np.int64(chunks_of(state)[chunk, 1])
    for k in range(used):
        customer = customers_of(state)[np.int64(chunks_of(state)[chunk, CHUNK_HEAD + k])]
        ahead[k] = np.int64(customer.head) if customer.deadline_us <= now_us else 0
        prefetch(entries, ahead[k], 0)
    for _ in range(ENTRIES_AHEAD):
        for k in range(used):
            ahead[k] = np.int64(entries[ahead[k]].next)
            prefetch(entries, ahead[k], 0)


@part
def _open_bucket(state):
    """Move the open bucket's list into its slots; return DONE, or GROW to be called again."""
    keep_apart()
    bucket = state.wheel_key >> BUCKET_SLOT_BITS
    chunk = np.int64(buckets_of(state)[bucket])
    while chunk != 0:
        if not has_chunks(state, PUSH_RESERVE):
            return GROW
        _prefetch_chunk(state, chunk)
        for k in range(np.int64(chunks_of(state)[chunk, 1])):
            handle = np.int64(chunks_of(state)[chunk, CHUNK_HEAD + k])
            customer = customers_of(state)[handle]
            key = np.int64(customer.armed)
            if key >> BUCKET_SLOT_BITS == bucket:
                _file_today(state, key, handle, customer.deadline_us)
        chunk = _free(state, chunk)
        buckets_of(state)[bucket] = chunk
    return DONE


@part
def _drain_slot(state, rules, now_us, ahead, expires):
    """Visit every customer filed in the present slot; return DONE, or OUTPUT_FULL or GROW to be called again.

    In      expires  True: measure customers that are due; False: only file anew customers that are not due yet, which
                     changes no customer
    """
    keep_apart()
    key = state.wheel_key
    slot = key & (BUCKET_SLOTS - 1)
    chunk = np.int64(slots_of(state)[slot])
    while chunk != 0:
        if not has_chunks(state, PUSH_RESERVE):
            return GROW
        _prefetch_chunk(state, chunk)
        if rules.signals_max != 0 and expires:
            _prefetch_extras(state, chunk)
        if rules.window_days >= 0:
            _prefetch_windows(state, chunk, now_us, ahead)
        while chunks_of(state)[chunk, 1] != 0:
            used = np.int64(chunks_of(state)[chunk, 1])
            handle = np.int64(chunks_of(state)[chunk, CHUNK_HEAD + used - 1])
            customer = customers_of(state)[handle]
            if np.int64(customer.armed) == key:
                while expires and customer.deadline_us <= now_us:
                    if is_output_full(state, rules):
                        return OUTPUT_FULL
                    expire_deadline(state, rules, customer, handle)
                if customer.deadline_us != FOREVER_US and key_of(customer.deadline_us) <= key:
                    state.kept_chunk = _push(state, state.kept_chunk, handle)
                    state.kept_min_us = min(state.kept_min_us, customer.deadline_us)
                    state.n_today += 1
                else:
                    customer.armed = 0
                    arm(state, customer, handle)
            chunks_of(state)[chunk, 1] = used - 1
            state.n_today -= 1
        chunk = _free(state, chunk)
        slots_of(state)[slot] = chunk
    slots_of(state)[slot] = state.kept_chunk
    slot_min_us_of(state)[slot] = state.kept_min_us
    state.kept_chunk = 0
    state.kept_min_us = FOREVER_US
    return DONE


@inline
def _next_key(state, target):
    """Return the next slot that may hold a customer, the beginning of the next bucket if the open one is empty."""
    if state.n_today > 0:
        return state.wheel_key + 1
    return min(target, ((state.wheel_key >> BUCKET_SLOT_BITS) + 1) << BUCKET_SLOT_BITS)


@jit
def advance(states, rulesets, now_us, ahead):
    """Let time pass up to `now_us`, and measure each customer at the very instants at which its tier may change.

    State   STATE[1] (its clock becomes now_us when DONE; changes are added to its output), RULES[1]
    Scratch ahead    i64[CHUNK_WORDS]
    Holds   afterwards every deadline is later than now_us; the clock never goes back
    Returns DONE; OUTPUT_FULL or GROW: the caller empties or enlarges and calls again
    Cost    O(customers due) + O(slots passed); none due: a few instructions
    """
    state, rules = states[0], rulesets[0]
    ahead = borrow(ahead)
    now_us = max(now_us, state.clock_us)
    if state.n_customers > 1:
        target = key_of(now_us)
        while True:
            key = state.wheel_key
            bucket = key >> BUCKET_SLOT_BITS
            if buckets_of(state)[bucket] != 0 and _open_bucket(state) != DONE:
                return GROW
            slot = key & (BUCKET_SLOTS - 1)
            if (slots_of(state)[slot] != 0 or state.kept_chunk != 0) and slot_min_us_of(state)[
                slot
            ] <= now_us:
                status = _drain_slot(state, rules, now_us, ahead, True)  # noqa: FBT003 - numba takes no keywords
                if status != DONE:
                    return status
            if key >= target:
                break
            state.wheel_key = _next_key(state, target)
    state.clock_us = now_us
    return DONE


@jit
def next_due(states, rulesets, until_us, ahead):
    """Find the earliest deadline up to `until_us` without letting time pass.

    State   STATE[1]: the wheel turns to the slot of that deadline, or of `until_us`, and customers whose deadline moved
            later are filed anew. That changes no result: a slot behind the wheel takes part in the present one.
    Scratch ahead    i64[CHUNK_WORDS]
    Returns (the deadline, FOREVER_US if there is none up to until_us; DONE or GROW: make room and call again)
    Cost    O(customers filed anew) + O(slots passed), each once; then a few instructions
    """
    state, rules = states[0], rulesets[0]
    ahead = borrow(ahead)
    if state.n_customers == 1:
        return FOREVER_US, DONE
    target = key_of(until_us)
    while True:
        key = state.wheel_key
        if buckets_of(state)[key >> BUCKET_SLOT_BITS] != 0 and _open_bucket(state) != DONE:
            return FOREVER_US, GROW
        slot = key & (BUCKET_SLOTS - 1)
        if slots_of(state)[slot] != 0 or state.kept_chunk != 0:
            if slot_min_us_of(state)[slot] <= until_us and (
                _drain_slot(state, rules, until_us, ahead, False) != DONE  # noqa: FBT003
            ):
                return FOREVER_US, GROW
            if slot_min_us_of(state)[slot] <= until_us:
                return slot_min_us_of(state)[slot], DONE
        if key >= target:
            return FOREVER_US, DONE
        state.wheel_key = _next_key(state, target)


@jit
def rearm(states, first, end):
    """Arm the customers of handles [first, end) after a restore; return the handle to continue at."""
    state = states[0]
    for handle in range(first, end):
        if not has_chunks(state, np.int64(1)):
            return handle
        customer = customers_of(state)[handle]
        customer.armed = 0
        arm(state, customer, handle)
    return end
