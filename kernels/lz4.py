"""Records that are like one another as a block of LZ4, without a search for what repeats (`kernels.repeats`).

Source: LZ4 block format description, "Compressed block format", "End of block restrictions".
"""

import numpy as np

from rfmstream.kernels._jit import borrow, copy_line, inline, jit
from rfmstream.kernels.encode_text import LINE_BYTES
from rfmstream.kernels.repeats import MATCH_MIN, find_repeats, room_for

_DISTANCE_MAX = 65_535


def bytes_max(size: int) -> int:
    """Return the bytes that `out` of `pack_records` has to have for `size` bytes."""
    return size + size // 255 + 16 + LINE_BYTES


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


@jit
def pack_records(data, size, marks, rows, repeats, out):
    """Write the records data[:size] as one block.

    In      data     u8[]  LINE_BYTES to spare at the end
            marks, rows, repeats  as of `kernels.repeats.find_repeats`
    Out     out      u8[bytes_max(size)]
    Returns the bytes written
    Cost    O(bytes); a sequence where a field differs
    """
    data, out = borrow(data), borrow(out)
    found = np.empty((room_for(marks, rows), 3), dtype=np.int32)
    used, done = np.int64(0), np.int64(0)  # data[:done] is in out[:used]
    for i in range(find_repeats(data, size, marks, rows, repeats, np.int64(_DISTANCE_MAX), found)):
        match, end, distance = np.int64(found[i, 0]), np.int64(found[i, 1]), np.int64(found[i, 2])
        more = end - match - MATCH_MIN
        used = _write_literals(out, used, data, done, match - done, min(more, np.int64(15)))
        out[used] = distance & 0xFF
        out[used + 1] = distance >> 8
        used += 2
        if more >= 15:
            used = _write_rest(out, used, more - 15)
        done = end
    return _write_literals(out, used, data, done, size - done, np.int64(0))
