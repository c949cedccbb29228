"""Put encoded records into the records part of a Kafka v2 record batch.

Source: Kafka's protocol guide, "Record Batch" and "Record".
"""

import numpy as np

from kernels._jit import borrow, jit
from kernels.encode_text import LINE_BYTES, copy_piece, size_varint, write_varint

BEGINNING_BYTES_MAX = 12
"""Length (5), attributes (1), timestamp delta (1) and offset delta (5) of a record."""


@jit
def fill_batch(data, starts, sizes, first, out):
    """Write records from `first` on, as many as there is room for, all with the timestamp of the batch.

    In      data    u8[]    encoded records from their key on, LINE_BYTES to spare at the end
            starts  i64[n]  where each begins
            sizes   i64[n]
    Out     out     u8[]    LINE_BYTES to spare at the end
    Returns (how many, bytes written)
    """
    data, starts, sizes, out = borrow(data), borrow(starts), borrow(sizes), borrow(out)
    room = out.size - LINE_BYTES
    used = np.int64(0)
    for i in range(first, starts.size):
        body = 2 + size_varint(i - first) + sizes[i]
        if used + size_varint(body) + body > room:
            return i - first, used
        at = write_varint(out, used, body)
        out[at] = 0
        out[at + 1] = 0
        at = write_varint(out, at + 2, i - first)
        used = copy_piece(out, at, data, starts[i], sizes[i])
    return starts.size - first, used
