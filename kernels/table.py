"""An open-addressing table from a hash to a handle that keeps its slots in order of the hash.

A slot is an i64: the hash's top 32 bits (the tag) above a 32-bit handle; 0 is empty. The home of a tag is
tag * capacity / 2**32, which rises with the tag, and each run of slots is sorted by tag (Robin Hood order). So a search
for something absent ends early, and growing by any factor is one sequential pass without hashing anything again.
Growth keeps the load between 0.53 and 0.8.
"""

import numpy as np

from kernels._jit import borrow, inline, jit
from kernels.layout import TABLE_SLACK

TAG_MASK = 0xFFFFFFFF


@inline
def tag_of(value):
    """Return the tag of a u64 hash as a non-negative i64."""
    return np.int64(value >> np.uint64(32))


@inline
def home_of(table, tag):
    """Return the slot where a search for `tag` begins."""
    # Unsigned, so that the compiler knows the slot is not negative.
    return np.int64(np.uint64(tag * np.int64(table.size - TABLE_SLACK)) >> np.uint64(32))


@inline
def tag_at(table, position):
    """Return the tag in a slot; 0 also for an empty one."""
    return (table[position] >> 32) & TAG_MASK


@inline
def handle_at(table, position):
    """Return the handle in a slot; 0 if it is empty."""
    return table[position] & TAG_MASK


@inline
def first_of(table, tag):
    """Return the first slot whose tag is not below `tag`, or the empty slot before it."""
    position = home_of(table, tag)
    while table[position] != 0 and tag_at(table, position) < tag:
        position += 1
    return position


@inline
def insert_at(table, position, tag, handle):
    """Put a new pair in `position` (from `first_of`), moving the run behind it up by one slot."""
    moved = (tag << 32) | handle
    while moved != 0:
        table[position], moved = moved, table[position]
        position += 1


@inline
def is_crowded(table, used, more):
    """Tell whether a table with `used` slots must grow before `more` insertions."""
    capacity = np.int64(table.size - TABLE_SLACK)
    return (used + more) * 5 > capacity * 4 or table[table.size - TABLE_SLACK // 2] != 0


@jit
def regrow(old, new):
    """Move every pair of `old` into the empty, larger `new`, in one pass.

    Cost    O(slots), sequential reads and writes
    """
    old, new = borrow(old), borrow(new)
    free = np.int64(0)  # the first slot behind the last pair
    for i in range(old.size):
        pair = old[i]
        position = max(free, home_of(new, (pair >> 32) & TAG_MASK))
        # Without a branch: an empty slot writes a zero where the next pair may go.
        position = position if pair != 0 else free
        new[position] = pair
        free = position + 1 if pair != 0 else free
