"""A Parquet file that is written as its rows come; its row groups are encoded side by side.

The file's bytes follow from the rows alone: not from how many threads encode, nor from when each of them is done.
"""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from rfmstream.engine.core.processors import usable_cores
from rfmstream.engine.files.parquet_footer import MAGIC, Footer

GROUP_ROWS: Final = 1 << 17
"""Rows of a row group: enough to compress well and to be skipped as a whole, few enough to hold several in memory."""

_ENCODERS_MAX: Final = 4

_FEW_VALUES: Final = ("type",)
"""Columns of few values, beside those that are dictionaries anyway."""

_REPEATED: Final = ("next_change_at",)
"""Numbers of which many that are alike follow each other: a codec makes less of them than differences do."""


class ParquetSink:
    """Gathers rows to whole row groups; as many as there are encoders are on their way to the file at a time."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._schema = schema
        self._options = _options(schema)
        self._held: list[pa.RecordBatch] = []
        self._held_rows = 0
        self._encoders = min(usable_cores(), _ENCODERS_MAX)
        self._pool: ThreadPoolExecutor | None = None
        self._pending: deque[Future[pa.Buffer]] = deque()
        self._footer = Footer(memoryview(self._encoded([])))
        self._file = path.open("wb")
        self._at = self._file.write(MAGIC)

    def write(self, batch: pa.RecordBatch) -> None:
        """Take rows; waits while too many row groups are on their way."""
        while batch.num_rows:
            part = batch.slice(0, GROUP_ROWS - self._held_rows)
            self._held.append(part)
            self._held_rows += part.num_rows
            batch = batch.slice(part.num_rows)
            if self._held_rows == GROUP_ROWS:
                self._send()

    def close(self) -> None:
        """Write what is on its way, and the end of the file."""
        try:
            if self._pool is None and self._held:
                self._add(self._encoded(self._held))
            elif self._held:
                self._send()
            self._take(0)
            self._file.write(self._footer.end())
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Write no more; what is being encoded is waited for."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._file.close()

    def _send(self) -> None:
        """Send a row group on its way."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._encoders, thread_name_prefix="encode")
        self._take(self._encoders - 1)
        group, self._held, self._held_rows = self._held, [], 0
        self._pending.append(self._pool.submit(self._encoded, group))

    def _take(self, left: int) -> None:
        """Write the oldest row groups until no more than `left` are on their way."""
        while len(self._pending) > left:
            self._add(self._pending.popleft().result())

    def _add(self, encoded: pa.Buffer) -> None:
        self._at += self._file.write(self._footer.add(memoryview(encoded), self._at))

    def _encoded(self, group: list[pa.RecordBatch]) -> pa.Buffer:
        """Return a file of the rows as one row group; without rows it has none."""
        out = pa.BufferOutputStream()
        with pq.ParquetWriter(out, self._schema, **self._options) as writer:
            if group:
                rows = pa.Table.from_batches(group, schema=self._schema)
                writer.write_table(rows, row_group_size=rows.num_rows)
        return out.getvalue()


def _options(schema: pa.Schema) -> dict[str, Any]:
    """Return how a file of these columns is encoded."""
    # Only columns of few values gain by a dictionary; one of ids would be built and thrown away.
    few = [field.name for field in schema if pa.types.is_dictionary(field.type) or field.name in _FEW_VALUES]
    # Rows come in order of time: what else could be skipped by its bounds is in every row group. They are a
    # quarter of what encoding costs.
    instants = [field.name for field in schema if pa.types.is_timestamp(field.type)]
    # Numbers are packed as differences, at half of what a codec or a dictionary takes and no larger.
    numbers = [
        field.name
        for field in schema
        if field.name not in _REPEATED and (field.name in instants or pa.types.is_integer(field.type))
    ]
    others = [field.name for field in schema if field.name not in numbers]
    return {
        "compression": {**dict.fromkeys(numbers, "NONE"), **dict.fromkeys(others, "ZSTD")},
        "compression_level": dict.fromkeys(others, 1),
        "use_dictionary": few,
        "column_encoding": dict.fromkeys(numbers, "DELTA_BINARY_PACKED"),
        "write_statistics": instants,
    }
