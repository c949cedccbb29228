"""Computes the memory that an Arrow column's values will take, before it is allocated.

Some kilobytes may stand for gigabytes: a million rows may refer to one dictionary entry or one run, and views may all
refer to the same text.
"""

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rfmstream.engine.events.arrow_buffers import check_buffers

_LITTLE: Final = 1 << 16
_VIEWS: Final = (pa.string_view(), pa.binary_view())
_VIEW_WORDS: Final = 4
"""Of 32 bits; the first is the length."""


def is_wrapped(kind: pa.DataType) -> bool:
    """Return whether values of a type are stored otherwise than one after another."""
    while isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    return pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind) or kind in _VIEWS


def unwrapped_bytes(column: pa.Array) -> int:
    """Return how long the values of a wrapped column are one after another, or more while that is little.

    Errors  pa.ArrowException  its indices or offsets lead astray, or its values have no length
    """
    while isinstance(column, pa.ExtensionArray):
        column = column.storage
    is_dictionary = pa.types.is_dictionary(column.type)
    if not is_dictionary and not pa.types.is_run_end_encoded(column.type):
        return int(_lengths(column).sum())
    values = column.dictionary if is_dictionary else column.values
    values.validate()  # the ends of its offsets, which its size is told by
    bound: int = len(column) * values.nbytes
    if bound <= _LITTLE:
        return bound
    check_buffers(pa.record_batch([column], ["column"]))
    lengths = _lengths(values)
    if is_dictionary:
        return int(lengths[column.indices.drop_null().to_numpy()].sum())
    ends = np.clip(column.run_ends.to_numpy(), column.offset, column.offset + len(column))
    return int((lengths * np.diff(ends, prepend=column.offset)).sum())


def _lengths(values: pa.Array) -> NDArray[np.int64]:
    """Return i64[n], the bytes of each value."""
    kind = values.type
    if kind in _VIEWS:
        end = values.offset + len(values)
        words = np.frombuffer(values.buffers()[1], np.int32, _VIEW_WORDS * end)[::_VIEW_WORDS]
        here = words[values.offset :].astype(np.int64)
        return np.where(values.is_valid().to_numpy(zero_copy_only=False), here, 0)
    if pa.types.is_primitive(kind) or pa.types.is_decimal(kind):
        return np.full(len(values), kind.bit_width // 8)
    lengths: NDArray[np.int64] = pc.binary_length(values).cast(pa.int64()).fill_null(0).to_numpy()
    return lengths
