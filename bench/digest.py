"""A digest of a table that does not depend on the order of its rows, their batches, or how words are encoded.

Two runs, two versions or two programs that print the same digest made the same rows. It shares nothing with the
kernels, so that it means the same when they change.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numba
import numpy as np
import pyarrow as pa

_ODD = np.uint64(0x9E3779B97F4A7C15)
_NULL = np.uint64(0xD1B54A32D192ED03)
_HALF = np.uint64(32)


def digest(batches: Iterable[pa.RecordBatch], columns: Sequence[str] | None = None) -> str:
    """Return 16 hex digits over the rows, of the named columns in that order (default: all as they stand)."""
    total = np.zeros(1, np.uint64)
    for batch in batches:
        rows = np.full(batch.num_rows, batch.num_columns if columns is None else len(columns), np.uint64)
        for name in batch.schema.names if columns is None else columns:
            rows = _mixed(rows ^ _words(batch.column(name)))
        total += _mixed(rows).sum(dtype=np.uint64)
    return f"{int(total[0]):016x}"


def _words(column: pa.Array) -> np.ndarray[Any, Any]:
    """Return a u64 for each value: equal values, equal words, whether they are spelt out or in a dictionary."""
    if pa.types.is_dictionary(column.type):
        words = _text_words(column.dictionary)[column.indices.fill_null(0).to_numpy(zero_copy_only=False)]
    elif pa.types.is_timestamp(column.type):
        micros = column.cast(pa.timestamp("us", column.type.tz)).view(pa.int64())
        words = micros.fill_null(0).to_numpy(zero_copy_only=False).astype(np.uint64)
    elif pa.types.is_integer(column.type):
        words = column.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64).astype(np.uint64)
    else:
        words = _text_words(column)
    if column.null_count:
        words = np.where(column.is_valid().to_numpy(zero_copy_only=False), words, _NULL)
    return words


def _text_words(column: pa.Array) -> np.ndarray[Any, Any]:
    column = column.cast(pa.string()).fill_null("")
    words = np.empty(len(column), np.uint64)
    if len(column):
        _, offsets, data = column.buffers()
        bounds = np.frombuffer(offsets, np.int32, len(column) + 1, 4 * column.offset)
        _hash_text(bounds, np.frombuffer(data, np.uint8) if data else np.empty(0, np.uint8), words)
    return words


def _mixed(words: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    with np.errstate(over="ignore"):
        words = words * _ODD
    return words ^ (words >> _HALF)


@numba.njit(nogil=True)
def _hash_text(bounds: Any, data: Any, words: Any) -> None:  # noqa: ANN401 - arrays, as numba infers them
    for row in range(words.size):
        word = np.uint64(bounds[row + 1] - bounds[row])
        for at in range(bounds[row], bounds[row + 1]):
            word = (word ^ np.uint64(data[at])) * _ODD
            word ^= word >> _HALF
        words[row] = word
