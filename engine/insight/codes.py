"""Columns of text as integer codes, so that numpy can sort, compare and join what Arrow holds."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


def encode(*columns: pa.ChunkedArray) -> tuple[list[NDArray[np.int64]], pa.Array]:
    """Encode columns of text by one dictionary.

    Returns (i64 codes of each column, -1 for null; string[k], the text of each code)
    """
    plain = [_strings(column) for column in columns]
    chunks = [chunk for column in plain for chunk in column.chunks]
    whole = pa.chunked_array(chunks, pa.large_string()).dictionary_encode().unify_dictionaries()
    if whole.num_chunks == 0:
        return [np.empty(0, np.int64) for _ in columns], pa.array([], pa.large_string())
    codes = np.concatenate([_indices(chunk.indices) for chunk in whole.chunks])
    ends = np.cumsum([len(column) for column in plain])
    return np.split(codes, ends[:-1]), whole.chunk(0).dictionary


def codes_in(column: pa.ChunkedArray, values: pa.Array) -> NDArray[np.int64]:
    """Return the place of each text in `values`, -1 where it is not there or null."""
    found = pc.index_in(_strings(column), value_set=values, skip_nulls=True)
    return _indices(found)


def instants_us(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Return a column of instants, none of them null, in µs since 1970 UTC."""
    return np.asarray(column.cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy(), np.int64)


def _strings(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.large_string())


def _indices(indices: pa.Array | pa.ChunkedArray) -> NDArray[np.int64]:
    filled = indices.cast(pa.int64()).fill_null(-1)
    return np.asarray(
        filled.to_numpy(zero_copy_only=False) if isinstance(filled, pa.Array) else filled.to_numpy()
    )
