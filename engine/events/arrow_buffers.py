"""Arrow data from outside: nothing is followed into memory before it is known to stay within its buffers."""

from collections.abc import Iterable
from typing import Final

import numpy as np
import pyarrow as pa

from rfmstream.schemas.errors import InputError

STREAM_END: Final = b"\xff\xff\xff\xff\0\0\0\0"
"""How an Arrow stream ends. One without it may have been cut off between two batches, which nothing else would show."""
_HIDDEN: Final = (pa.lib.Type_INTERVAL_MONTHS, pa.lib.Type_INTERVAL_DAY_TIME)
_BYTES: Final = {
    pa.string(): pa.binary(),
    pa.large_string(): pa.large_binary(),
    pa.string_view(): pa.binary_view(),
}


def check_types(fields: Iterable[pa.Field]) -> None:
    """Refuse columns of a type that Arrow has and pyarrow cannot show: whoever asks for one gets a KeyError.

    Errors  InputError
    """
    for field in fields:
        if _is_hidden(field.type):
            raise InputError(
                f"column {field.name} is {field.type}, which cannot be read",
                fix=f"write {field.name} as text",
            )


def _is_hidden(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_hidden(kind.value_type)
    return kind.id in _HIDDEN or any(_is_hidden(kind.field(at).type) for at in range(kind.num_fields))


def check_buffers(batch: pa.RecordBatch) -> None:
    """Raise pa.ArrowInvalid where offsets or indices lead outside a column's buffers, as kernels would follow them.

    Whether texts are UTF-8 is judged row by row: only the row whose text is none is to blame for that.
    """
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        _check_whole(column, name)
        if not (pa.types.is_primitive(column.type) or pa.types.is_decimal(column.type)):
            _as_bytes(column).validate(full=True)
        else:
            column.validate()
        _check_nulls(column, name)


def _check_nulls(column: pa.Array, name: str) -> None:
    """Raise pa.ArrowInvalid where a column says a wrong number of nulls, as whoever reads it believes that.

    The buffers are known to be long enough.
    """
    if isinstance(column, pa.ExtensionArray):
        _check_nulls(column.storage, name)
        return
    if pa.types.is_dictionary(column.type):
        _check_nulls(column.dictionary, name)
    elif pa.types.is_run_end_encoded(column.type):
        _check_nulls(column.values, name)
        return
    valid = column.buffers()[0]
    if valid is None:
        return
    bits = pa.BooleanArray.from_buffers(pa.bool_(), len(column), [None, valid], offset=column.offset)
    nulls = len(column) - bits.true_count
    if nulls != column.null_count:
        raise pa.ArrowInvalid(
            f"column {name} is damaged: it says {column.null_count:,} nulls and has {nulls:,}"
        )


def _check_whole(column: pa.Array, name: str) -> None:
    """Raise pa.ArrowInvalid where a buffer holds no whole number of values: some of its bytes are not of the column."""
    if not pa.types.is_primitive(column.type):
        return
    values, width = column.buffers()[1], column.type.bit_width // 8
    if values is not None and width and values.size % width:
        raise pa.ArrowInvalid(
            f"column {name} is damaged: {values.size:,} bytes are no whole number of values of {width}"
        )


def check_table(table: pa.Table) -> None:
    """Check the buffers of a table that a caller has put together, as `check_buffers` does.

    Errors  InputError  they lead astray
    """
    check_types(table.schema)
    try:
        for batch in table.to_batches():
            batch.validate()
            check_buffers(batch)
    except pa.ArrowException as error:
        raise InputError(
            f"the table is damaged: {error}", fix="read it anew from what it came from"
        ) from error


def _as_bytes(column: pa.Array) -> pa.Array:
    """Return a column of text as one of bytes, others as they are."""
    if isinstance(column, pa.ExtensionArray):
        return _as_bytes(column.storage)
    if pa.types.is_dictionary(column.type):
        return pa.DictionaryArray.from_arrays(column.indices, _as_bytes(column.dictionary), safe=False)
    if pa.types.is_run_end_encoded(column.type):
        column.validate()
        _as_bytes(column.values).validate(full=True)
        ends = column.run_ends.to_numpy()
        if (np.diff(ends, prepend=0) <= 0).any() or (len(column) and ends[-1] < column.offset + len(column)):
            raise pa.ArrowInvalid("run ends do not ascend to the end of their column")
        return column.run_ends
    raw = _BYTES.get(column.type)
    if raw is None:
        return column
    return pa.Array.from_buffers(raw, len(column), column.buffers(), offset=column.offset)
