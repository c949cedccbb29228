"""Arrow data from outside: nothing is followed into memory before it is known to stay within its buffers."""

from typing import Final

import pyarrow as pa

STREAM_END: Final = b"\xff\xff\xff\xff\0\0\0\0"
"""How an Arrow stream ends. One without it may have been cut off between two batches, which nothing else would show."""
_BYTES: Final = {
    pa.string(): pa.binary(),
    pa.large_string(): pa.large_binary(),
    pa.string_view(): pa.binary_view(),
}


def check_buffers(batch: pa.RecordBatch) -> None:
    """Raise pa.ArrowInvalid where offsets or indices lead outside a column's buffers, as kernels would follow them.

    Whether texts are UTF-8 is judged row by row: only the row whose text is none is to blame for that.
    """
    for column in batch.columns:
        if not (pa.types.is_primitive(column.type) or pa.types.is_decimal(column.type)):
            _as_bytes(column).validate(full=True)


def _as_bytes(column: pa.Array) -> pa.Array:
    """Return a column of text as one of bytes, others as they are."""
    if pa.types.is_dictionary(column.type):
        return pa.DictionaryArray.from_arrays(column.indices, _as_bytes(column.dictionary), safe=False)
    raw = _BYTES.get(column.type)
    if raw is None:
        return column
    return pa.Array.from_buffers(raw, len(column), column.buffers(), offset=column.offset)
