"""Where records repeat one another, without a search: who wrote them knows.

A row repeats an earlier one but for its fields. So pieces are taken from the last row that has the same words, and a
word that this one has not from the last row that has it. A match goes on into the field behind its piece, as far as
that is the same, too. A field that an earlier step of the row writes as well, such as the customer's id, is taken from
there. Fields are compared; a step's piece is known by its word. `kernels.lz4` and `kernels.deflate` write the matches.
"""

from typing import Final

import numpy as np

from rfmstream.kernels._jit import borrow, count_trailing_zeros, inline, load_word, part

# The columns of `repeats`, which has a row a step.
PIECE: Final = 0  # bytes of its piece; WORD_PIECE: up to the next step's
EARLIER: Final = 1  # the step of the same row whose field is likely the same; none: -1
QUOTE: Final = 2  # bytes of its field before what may be the same
WORD_PIECE: Final = -1

MATCH_MIN: Final = 4
_COPIED_MIN = 5  # below that a match of its own takes what it saves
_FIELD_MAX = 32
_LITERALS_AT_END = 5
_MATCH_BEFORE_END = 12
_SIGNATURES = 256
_WORDS = 1024
_STEP_SPREAD = 37
_SPREAD = 0x9E3779


@inline
def room_for(marks, rows):
    """Return how many matches rows can have at the most: two a step."""
    return 2 * rows * marks.shape[1] + 1


@inline
def _equal_bytes(data, at, source, limit):
    """Return how many bytes are the same at two places, up to `limit`; whole words are read."""
    done = np.int64(0)
    while done < limit:
        different = load_word(data, at + done) ^ load_word(data, source + done)
        if different != np.uint64(0):
            return min(done + (count_trailing_zeros(np.int64(different)) >> np.int64(3)), limit)
        done += 8
    return limit


@inline
def _note(found, count, match, end, distance):
    if end == match:
        return count
    found[count, 0] = match
    found[count, 1] = end
    found[count, 2] = distance
    return count + 1


@part
def find_repeats(data, size, marks, rows, repeats, distance_max, found):
    """Find what in the records data[:size] is a copy of what stands before it.

    In      data     u8[]  a word to spare at the end
            marks    i32[k, s, 2]  k >= rows, of `kernels.encode_records.write_records`
            repeats  i64[s, 3]  see PIECE, EARLIER, QUOTE
            distance_max  how far back a match may lie
    Out     found    i32[room_for(marks, rows), 3]: where each match begins and ends, and how far back it lies.
                     In order, and apart from each other; at the end there are bytes of none (LZ4's rule)
    Returns how many there are
    Cost    O(bytes)
    """
    marks, repeats, found = borrow(marks), borrow(repeats), borrow(found)
    steps, stop, beginning = len(repeats), size - _LITERALS_AT_END, size - _MATCH_BEFORE_END
    near = distance_max - (
        distance_max >> 3
    )  # a row that begins no further away is within the distance, mostly
    latest = np.full(_SIGNATURES, np.int64(-1))  # row, by its words
    recent = np.full(_WORDS, np.int64(-1))  # row that has a word
    count = np.int64(0)
    match, end, distance = np.int64(0), np.int64(0), np.int64(0)  # found, and not written yet: it may go on
    for row in range(rows):
        signature = np.int64(0)
        for s in range(steps):
            if repeats[s, PIECE] == WORD_PIECE:
                signature = (signature + marks[row, s, 1]) * _SPREAD & 0xFFFFFF
        signature >>= 16
        model = latest[signature]
        latest[signature] = row
        if model < 0 or marks[row, 0, 0] - marks[model, 0, 0] > near:
            model = np.int64(row - 1)
        for s in range(steps):
            at = np.int64(marks[row, s, 0])
            field = at + repeats[s, PIECE]
            after = np.int64(marks[row, s + 1, 0]) if s + 1 < steps else field
            source, word = model, np.int64(marks[row, s, 1])
            if repeats[s, PIECE] == WORD_PIECE:
                field = after
                kept = (word + s * _STEP_SPREAD) % _WORDS
                if model >= 0 and marks[model, s, 1] != word:
                    source = recent[kept]
                recent[kept] = row
            if field > at and 0 <= source < row and marks[source, s, 1] == word:
                away = at - np.int64(marks[source, s, 0])
                first = max(at, end)
                last = min(stop, field + _equal_bytes(data, field, field - away, np.int64(_FIELD_MAX)))
                if away == distance and at <= end:
                    end = max(end, last)
                elif last - first >= MATCH_MIN and first <= beginning and away <= distance_max:
                    count = _note(found, count, match, end, distance)
                    match, end, distance = first, last, away
            earlier = repeats[s, EARLIER]
            if earlier >= 0:
                same = np.int64(marks[row, earlier, 0]) + repeats[earlier, PIECE] + repeats[earlier, QUOTE]
                away = field + repeats[s, QUOTE] - same
                first = max(field + repeats[s, QUOTE], end)
                last = first + _equal_bytes(data, first, first - away, min(after, stop) - first)
                if last - first >= _COPIED_MIN and first <= beginning and 0 < away <= distance_max:
                    count = _note(found, count, match, end, distance)
                    match, end, distance = first, last, away
    return _note(found, count, match, end, distance)
