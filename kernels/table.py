"""A hash table from a hash to a handle: eight slots to a cache line, two lines to choose from.

A slot is an i64: the hash's top 32 bits (the tag) above a 32-bit handle; 0 is empty. A tag has two home lines; a new
pair goes to the emptier one, which keeps lines from overflowing up to a load of 0.85 (the power of two choices,
Mitzenmacher 2001), so a search is two lines fetched at once and compared without a branch. Lines fill from the left and
nothing is removed. Where both are full a pair goes to the first line behind the second home that is not. Both homes
follow from the tag, so growing hashes nothing again. Growth keeps the load between 0.5 and 0.85.
"""

import numpy as np

from kernels._jit import borrow, count_trailing_zeros, inline, jit, keep_apart, match_line, part, prefetch
from kernels.layout import TABLE_SLACK

TAG_MASK = 0xFFFFFFFF
LINE = 8
FULL = 255
AHEAD = 32


@inline
def tag_of(value):
    """Return the tag of a u64 hash as a non-negative i64."""
    return np.int64(value >> np.uint64(32))


@inline
def home_of(table, tag):
    """Return the first slot of a tag's first home."""
    # Unsigned, so that the compiler knows the slot is not negative.
    lines = np.uint64(table.size - TABLE_SLACK) >> np.uint64(3)
    return np.int64((np.uint64(tag) * lines >> np.uint64(32)) << np.uint64(3))


@inline
def second_home_of(table, tag):
    """Return the first slot of a tag's second home; by chance it is the first one, too."""
    return home_of(table, ((tag ^ 0x5BD1E995) * 0x2545F491) & TAG_MASK)


@inline
def next_line(table, tag, line, nth):
    """Return the line to search after the `nth` one, counted from 0."""
    return second_home_of(table, tag) if nth == 0 else line + LINE


@inline
def fetch(table, tag):
    """Ask for both homes of a tag."""
    prefetch(table, home_of(table, tag), 0)
    prefetch(table, second_home_of(table, tag), 0)


@inline
def handle_at(table, position):
    """Return the handle in a slot; 0 if it is empty."""
    return table[position] & TAG_MASK


@part
def _probe_overflow(table, tag, line, handle):
    keep_apart()
    while True:
        hits, used = match_line(table, line, tag)
        if hits != 0:
            handle = handle_at(table, line + count_trailing_zeros(hits))
        if used != FULL:
            return handle, line + count_trailing_zeros(~used)
        line += LINE


@inline
def probe(table, tag):
    """Search a tag, and the place for a new pair of it.

    Returns (handle of a pair with this tag, 0 if there is none; an empty slot). Where several pairs have the tag, the
            handle is that of one of them.
    """
    first, second = home_of(table, tag), second_home_of(table, tag)
    hits_first, used_first = match_line(table, first, tag)
    hits_second, used_second = match_line(table, second, tag)
    handle = np.int64(0)
    if hits_first != 0:
        handle = handle_at(table, first + count_trailing_zeros(hits_first))
    elif hits_second != 0:
        handle = handle_at(table, second + count_trailing_zeros(hits_second))
    if used_first == FULL and used_second == FULL:
        return _probe_overflow(table, tag, second, handle)
    # A line fills from the left, so the smaller mask is that of the emptier one.
    line = first if used_first <= used_second else second
    return handle, line + count_trailing_zeros(~min(used_first, used_second))


@inline
def insert(table, tag, handle):
    """Put a new pair in the table, which has room for it."""
    table[probe(table, tag)[1]] = (tag << 32) | handle


@inline
def is_crowded(table, used, more):
    """Tell whether a table with `used` slots must grow before `more` insertions."""
    capacity = np.int64(table.size - TABLE_SLACK)
    return (used + more) * 20 > capacity * 17 or table[table.size - TABLE_SLACK // 2] != 0


@jit
def regrow(old, new):
    """Move every pair of `old` into the empty, larger `new`.

    Cost    O(slots); half of the writes are sequential, the others fetched ahead
    """
    old, new = borrow(old), borrow(new)
    for i in range(old.size):
        if i + AHEAD < old.size:
            fetch(new, (old[i + AHEAD] >> 32) & TAG_MASK)
        if old[i] != 0:
            insert(new, (old[i] >> 32) & TAG_MASK, old[i] & TAG_MASK)
