"""A hash table from a hash to a handle: eight slots to a cache line, two lines to choose from, grown piece by piece.

A slot is an i64: the hash's top 32 bits (the tag) above a 32-bit handle; 0 is empty. A tag belongs to one segment and
has two home lines in it; a new pair goes to the emptier one, which keeps lines from overflowing up to a load of about
0.79 (the power of two choices, Mitzenmacher 2001), so a search is two lines fetched at once and compared without a
branch. Lines fill from the left and nothing is removed. A pair that finds both lines full goes to the spare segment, in
which one searches line by line; before the next block of rows `settle` splits the segment that was too full.

Segments are found by a directory that doubles when it must (extendible hashing, Fagin et al. 1979). A tag's place in
it grows with the logarithm of the tag, so segments have shares of the tags between 1 and 2 and their turns to be split
come evenly, not all at once (the idea of spiral storage, Martin 1979): the table as a whole stays at a load of about
0.55. The homes of a tag are the same lines in every segment, so a split reads and writes in order and hashes nothing.
"""

import numpy as np

from rfmstream.kernels._jit import count_trailing_zeros, inline, keep_apart, match_line, part, prefetch
from rfmstream.kernels.layout import SEGMENT, SEGMENT_LINE_BITS
from rfmstream.kernels.memory import directory_of, pairs_of

TAG_MASK = 0xFFFFFFFF
LINE = 8
FULL = 255


@inline
def tag_of(value):
    """Return the tag of a u64 hash as a non-negative i64."""
    return np.int64(value >> np.uint64(32))


@inline
def turn_of(tag):
    """Return a tag as a part of 2**32 on the scale on which segments are cut: nearly log2(1 + tag / 2**32)."""
    x = np.uint64(tag)
    return np.int64(x * (np.uint64(43 << 27) - (x * np.uint64(11) >> np.uint64(5))) >> np.uint64(32))


@inline
def homes_of(table, tag):
    """Return the first slots of a tag's two homes; by chance they are the same."""
    # Unsigned, so that the compiler knows the slot is not negative.
    place = np.uint64(turn_of(tag)) >> np.uint64(table.shift)
    segment = np.uint64(directory_of(table)[place]) * np.uint64(SEGMENT)
    first = np.uint64(tag) & np.uint64((1 << SEGMENT_LINE_BITS) - 1)
    mixed = np.uint64(tag * 0x2545F491 & TAG_MASK) >> np.uint64(32 - SEGMENT_LINE_BITS)
    return np.int64(segment + (first << np.uint64(3))), np.int64(segment + (mixed << np.uint64(3)))


@inline
def prefetch_homes(table, tag):
    """Prefetch both home lines of a tag."""
    first, second = homes_of(table, tag)
    prefetch(pairs_of(table), first, 0)
    prefetch(pairs_of(table), second, 0)


@part
def find_next(table, tag, cursor):
    """Search the next pair with a tag.

    In      cursor  0 at first, then what the call before returned
    Returns (its handle, 0 if there is no more; cursor to go on from)
    """
    keep_apart()
    pairs = pairs_of(table)
    first, second = homes_of(table, tag)
    while True:
        nth = cursor >> 3
        line = first if nth == 0 else (second if nth == 1 else (nth - 2) * LINE)
        hits, used = match_line(pairs, line, tag)
        hits = hits >> (cursor & 7) << (cursor & 7)
        if hits != 0:
            k = count_trailing_zeros(hits)
            return pairs[line + k] & TAG_MASK, nth * LINE + k + 1
        cursor = (nth + 1) * LINE
        if nth > 0 and used != FULL:
            return np.int64(0), cursor


@inline
def first_hit(table, tag):
    """Return the handle of a pair with a tag in one of its homes, 0 if there is none there; without a branch."""
    pairs = pairs_of(table)
    first, second = homes_of(table, tag)
    hits = match_line(pairs, first, tag)[0] | match_line(pairs, second, tag)[0] << LINE
    k = count_trailing_zeros(hits) & (LINE - 1)
    line = first if hits & FULL else second
    return pairs[line + k] & TAG_MASK if hits else np.int64(0)


@part
def _probe_spare(table, tag, handle):
    keep_apart()
    pairs = pairs_of(table)
    line = np.int64(0)
    while True:
        hits, used = match_line(pairs, line, tag)
        if hits != 0:
            handle = pairs[line + count_trailing_zeros(hits)] & TAG_MASK
        if used != FULL:
            return handle, line + count_trailing_zeros(~used)
        line += LINE


@inline
def probe(table, tag):
    """Search a tag, and the place for a new pair of it.

    Returns (handle of a pair with this tag, 0 if there is none; an empty slot). Where several pairs have the tag, the
            handle is that of one of them.
    """
    pairs = pairs_of(table)
    first, second = homes_of(table, tag)
    hits_first, used_first = match_line(pairs, first, tag)
    hits_second, used_second = match_line(pairs, second, tag)
    handle = np.int64(0)
    if hits_first != 0:
        handle = pairs[first + count_trailing_zeros(hits_first)] & TAG_MASK
    elif hits_second != 0:
        handle = pairs[second + count_trailing_zeros(hits_second)] & TAG_MASK
    if used_first == FULL and used_second == FULL:
        return _probe_spare(table, tag, handle)
    # A line fills from the left, so the smaller mask is that of the emptier one.
    line = first if used_first <= used_second else second
    return handle, line + count_trailing_zeros(~min(used_first, used_second))


@inline
def insert(table, tag, handle):
    """Put a new pair in the table; the spare segment must have room for it."""
    pairs_of(table)[probe(table, tag)[1]] = (tag << 32) | handle


@part
def replace(table, tag, old, new):
    """Let the pair of a tag and the handle `old`, which is there, name another handle."""
    keep_apart()
    handle, cursor = find_next(table, tag, 0)
    while handle != old:
        handle, cursor = find_next(table, tag, cursor)
    nth = (cursor - 1) >> 3
    first, second = homes_of(table, tag)
    line = first if nth == 0 else (second if nth == 1 else (nth - 2) * LINE)
    pairs_of(table)[line + (cursor - 1 & (LINE - 1))] = (tag << 32) | new


@inline
def _move_upper(pairs, old, new, boundary):
    """Move the pairs whose turn is not before `boundary` from a segment to the same lines of a new, empty one."""
    for line in range(0, SEGMENT, LINE):
        stay, go = old + line, new + line
        for k in range(old + line, old + line + LINE):
            pair = pairs[k]
            upper = turn_of((pair >> 32) & TAG_MASK) >= boundary
            # Without a branch: what is not moved is written as 0 where the next one will stand.
            pairs[k] = 0
            pairs[stay] = 0 if upper else pair
            pairs[go] = pair if upper else 0
            stay += pair != 0 and not upper
            go += pair != 0 and upper


@part
def _split(table, tag):
    """Split the segment of a tag; return whether that was of use. There must be room for one more segment."""
    keep_apart()
    pairs, directory = pairs_of(table), directory_of(table)
    place, end_place = turn_of(tag) >> table.shift, np.int64(1) << (32 - table.shift)
    number = directory[place]
    old, used = np.int64(number) * SEGMENT, 0
    for k in range(old, old + SEGMENT):
        used += pairs[k] != 0
    if used < SEGMENT // 2:  # tags alike, which no split would part
        return False
    first, end = place, place + 1
    while first > 0 and directory[first - 1] == number:
        first -= 1
    while end < end_place and directory[end] == number:
        end += 1
    if end - first == 1:
        if end_place > directory.size // 2:
            return False
        for k in range(end_place - 1, -1, -1):
            directory[2 * k] = directory[2 * k + 1] = directory[k]
        table.shift -= 1
        first, end = 2 * first, 2 * end
    middle = (first + end) >> 1
    for k in range(middle, end):
        directory[k] = table.n_segments
    _move_upper(pairs, old, table.n_segments * SEGMENT, middle << table.shift)
    table.n_segments += 1
    return True


@part
def _settle(table):
    keep_apart()
    pairs = pairs_of(table)
    has_room = True
    at = np.int64(0)
    while pairs[at] != 0:
        pair = pairs[at]
        tag = (pair >> 32) & TAG_MASK
        pairs[at] = 0
        free = probe(table, tag)[1]
        while free < SEGMENT and has_room:
            has_room = (table.n_segments + 1) * SEGMENT <= pairs.size
            if not has_room or not _split(table, tag):
                break
            free = probe(table, tag)[1]
        pairs[free] = pair  # in the spare segment that is a slot left free before this one
        at += 1
    return has_room and at < SEGMENT // 2


@inline
def settle(table):
    """Split segments until the spare segment's pairs have found their homes; return False where there is no room.

    Holds   afterwards, and between two calls, a pair is in the spare segment only while both its homes are full
    Cost    one split moves as many pairs as a segment has
    """
    return pairs_of(table)[0] == 0 or _settle(table)
