"""Put encoded records into the records part of a Kafka v2 record batch.

Source: Kafka's protocol guide, "Record Batch" and "Record".
"""

import numpy as np

from rfmstream.kernels._jit import borrow, jit
from rfmstream.kernels.encode_text import LINE_BYTES, copy_piece, size_beginning, write_beginning


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
        if used + size_beginning(i - first, sizes[i]) + sizes[i] > room:
            return i - first, used
        at = write_beginning(out, used, i - first, sizes[i])
        used = copy_piece(out, at, data, starts[i], sizes[i])
    return starts.size - first, used
