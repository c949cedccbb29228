"""Parquet files: batches of the wanted columns, in memory that does not follow what a file asks for.

A megabyte of Parquet can stand for any number of gigabytes: one long text that is repeated, or that compresses well.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

_BATCH_BYTES_MAX: Final = 1 << 30
_SHARED_BYTES: Final = 8
"""Texts that take less than this on average are shared: an id of its own takes four bytes and its length."""


_WORDS: Final = ("type", "currency")


def open_parquet(path: Path, columns: Sequence[str], rows_max: int) -> tuple[pq.ParquetFile, int]:
    """Open a Parquet file; return how many rows of these columns to read at once, too.

    Texts that share a dictionary stay in it, so that one long text stands in memory once.
    """
    metadata = pq.read_metadata(path)
    # Their values are words, few of them: as a dictionary they are read in half the time, decoding included.
    shared = {
        column.path
        for column in (metadata.schema.column(at) for at in range(metadata.num_columns))
        if column.path in _WORDS and column.path in columns and column.logical_type.type == "STRING"
    }
    bytes_max = 0
    for at in range(metadata.num_row_groups):
        group = metadata.row_group(at)
        size = 0
        for place in range(group.num_columns):
            chunk = group.column(place)
            if chunk.path_in_schema.split(".")[0] not in columns:
                continue
            size += chunk.total_uncompressed_size
            # One text of the chunk's size in each row is the worst that it can stand for.
            worst = chunk.total_uncompressed_size * min(chunk.num_values, rows_max)
            is_shared = chunk.total_uncompressed_size < _SHARED_BYTES * chunk.num_values
            is_shared = is_shared and worst > _BATCH_BYTES_MAX
            if is_shared and chunk.physical_type == "BYTE_ARRAY":
                shared.add(chunk.path_in_schema)
        bytes_max = max(bytes_max, size)
    rows = min(rows_max, rows_max * _BATCH_BYTES_MAX // max(bytes_max, 1) + 1)
    return pq.ParquetFile(path, metadata=metadata, read_dictionary=sorted(shared)), rows


def bounded(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Cut a batch so that no piece takes more than a gigabyte or so once its texts stand beside each other."""
    longest = max(
        (
            pc.max(pc.binary_length(column.dictionary)).as_py() or 0
            for column in batch.columns
            if pa.types.is_dictionary(column.type) and _is_text(column.type.value_type)
        ),
        default=0,
    )
    rows = max(1, _BATCH_BYTES_MAX // max(longest, 1))
    for start in range(0, max(batch.num_rows, 1), rows):
        yield batch.slice(start, rows)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_binary(kind) or pa.types.is_large_string(kind))
