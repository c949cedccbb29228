"""Records that are like one another as a block of LZ4, without a search for what repeats: who wrote them knows.

A row repeats an earlier one but for its fields. So pieces are taken from the last row that has the same words, and a
match goes on into the field behind its piece, as far as that is the same, too. A field that an earlier step of the row
writes as well, such as the customer's id, is taken from there. Fields are compared; a step's piece is known by its
word.

Source: LZ4 block format description, "Compressed block format", "End of block restrictions".
"""

from typing import Final

import numpy as np

from rfmstream.kernels._jit import borrow, copy_line, count_trailing_zeros, inline, jit, load_word
from rfmstream.kernels.encode_text import LINE_BYTES

# The columns of `repeats`, which has a row a step.
PIECE: Final = 0  # bytes of its piece; WORD_PIECE: up to the next step's
EARLIER: Final = 1  # the step of the same row whose field is likely the same; none: -1
QUOTE: Final = 2  # bytes of its field before what may be the same
WORD_PIECE: Final = -1

_DISTANCE_MAX = 65_535
_NEAR = 1 << 15  # so far away a row may begin whose every step is to be within the distance
_MATCH_MIN = 4
_COPIED_MIN = 5  # below that a match of its own takes what it saves
_FIELD_MAX = 32
_LITERALS_AT_END = 5
_MATCH_BEFORE_END = 12
_SIGNATURES = 256
_SPREAD = 0x9E3779


def bytes_max(size: int) -> int:
    """Return the bytes that `out` of `pack_records` has to have for `size` bytes."""
    return size + size // 255 + 16 + LINE_BYTES


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
def _write_rest(out, at, rest):
    """Write what a length has beyond 15; return the end."""
    while rest >= 255:
        out[at] = 255
        rest -= 255
        at += 1
    out[at] = rest
    return at + 1


@inline
def _write_literals(out, at, data, start, size, low):
    """Write a token, with `low` in its lower half, and its literals; return the end."""
    out[at] = min(size, np.int64(15)) << 4 | low
    at += 1
    if size >= 15:
        at = _write_rest(out, at, size - 15)
    done = np.int64(0)
    while done < size:
        copy_line(out, at + done, data, start + done)
        done += LINE_BYTES
    return at + size


@inline
def _write_sequence(out, at, data, start, match, end, distance):
    """Write data[start:match] as literals and data[match:end] as a match, if there is one; return both ends."""
    if end == match:
        return at, start
    more = end - match - _MATCH_MIN
    at = _write_literals(out, at, data, start, match - start, min(more, np.int64(15)))
    out[at] = distance & 0xFF
    out[at + 1] = distance >> 8
    at += 2
    if more >= 15:
        at = _write_rest(out, at, more - 15)
    return at, end


@jit
def pack_records(data, size, marks, rows, repeats, out):
    """Write the records data[:size] as one block.

    In      data     u8[]  LINE_BYTES to spare at the end
            marks    i32[k, s, 2]  k >= rows, of `kernels.encode_records.write_records`
            repeats  i64[s, 3]  see PIECE, EARLIER, QUOTE
    Out     out      u8[bytes_max(size)]
    Returns the bytes written
    Cost    O(bytes); a sequence where a field differs
    """
    data, marks, repeats, out = borrow(data), borrow(marks), borrow(repeats), borrow(out)
    steps, stop, beginning = len(repeats), size - _LITERALS_AT_END, size - _MATCH_BEFORE_END
    latest = np.full(_SIGNATURES, np.int64(-1))  # row, by its words
    used, done = np.int64(0), np.int64(0)  # data[:done] is in out[:used]
    match, end, distance = np.int64(0), np.int64(0), np.int64(0)  # found, and not written yet: it may go on
    for row in range(rows):
        signature = np.int64(0)
        for s in range(steps):
            if repeats[s, PIECE] == WORD_PIECE:
                signature = (signature + marks[row, s, 1]) * _SPREAD & 0xFFFFFF
        signature >>= 16
        model = latest[signature]
        latest[signature] = row
        if model < 0 or marks[row, 0, 0] - marks[model, 0, 0] > _NEAR:
            model = np.int64(row - 1)
        for s in range(steps):
            at = np.int64(marks[row, s, 0])
            field = at + repeats[s, PIECE]
            after = np.int64(marks[row, s + 1, 0]) if s + 1 < steps else field
            if repeats[s, PIECE] == WORD_PIECE:
                field = after
            if field > at and model >= 0 and marks[row, s, 1] == marks[model, s, 1]:
                away = at - np.int64(marks[model, s, 0])
                first = max(at, end)
                last = min(stop, field + _equal_bytes(data, field, field - away, np.int64(_FIELD_MAX)))
                if away == distance and at <= end:
                    end = max(end, last)
                elif last - first >= _MATCH_MIN and first <= beginning and away <= _DISTANCE_MAX:
                    used, done = _write_sequence(out, used, data, done, match, end, distance)
                    match, end, distance = first, last, away
            earlier = repeats[s, EARLIER]
            if earlier >= 0:
                same = np.int64(marks[row, earlier, 0]) + repeats[earlier, PIECE] + repeats[earlier, QUOTE]
                away = field + repeats[s, QUOTE] - same
                first = max(field + repeats[s, QUOTE], end)
                last = first + _equal_bytes(data, first, first - away, min(after, stop) - first)
                if last - first >= _COPIED_MIN and first <= beginning and 0 < away <= _DISTANCE_MAX:
                    used, done = _write_sequence(out, used, data, done, match, end, distance)
                    match, end, distance = first, last, away
    used, done = _write_sequence(out, used, data, done, match, end, distance)
    return _write_literals(out, used, data, done, size - done, np.int64(0))
