"""The record batches of a fetch as columns, without an object for any record.

    a fetch --heads--> batches --the client judges--> those with records --a kernel--> RawRecords

The client (aiokafka 0.14, aiokafka/consumer/fetcher.py) handles a `RawBatch` as it handles its own batches: it checks
the checksum, skips control batches and aborted transactions, and moves its position on. It takes a batch for one record
with the batch's last offset. A fetch that differs from what every broker sends raises `UnusualError`, or an error of
the codecs; then engine.live.kafka.fetches reads it in the ordinary way.

Source  Kafka's protocol guide, "Record Batch"
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from aiokafka.record.default_records import DefaultRecordBatch
from numpy.typing import NDArray

from rfmstream.engine.live.encode_layout import varint
from rfmstream.engine.live.kafka.batch_format import (
    BEFORE_LENGTH,
    CHECKED_FROM,
    CODEC,
    CONTROL,
    HEADER,
    LENGTH,
    LENGTH_AT,
    MAGIC,
    TRANSACTIONAL,
    crc32c,
)
from rfmstream.engine.live.kafka.codecs import (
    BATCH_BYTES_MAX,
    BATCH_RECORDS_MAX,
    NAMES,
    TooLargeError,
    decode,
    refusal,
)
from rfmstream.engine.live.model import RawRecords
from rfmstream.engine.live.spans import HeaderSpans, Piece, Spans
from rfmstream.kernels.record_batches import (
    COLUMNS,
    HEADER_BYTES,
    HEADERS,
    HEADERS_BYTES,
    KEY,
    KEY_BYTES,
    OFFSET,
    RECORD_BYTES_MIN,
    TIME_MS,
    UNUSUAL,
    VALUE,
    VALUE_BYTES,
    count_records,
    index_records,
)

_MAGIC_FIELD: Final = 3
_COUNT_FIELD: Final = 12
_ONE_RECORD: Final = (1).to_bytes(4, "big")
_COUNT_BYTES: Final = 4


class UnusualError(Exception):
    """A fetch that is not for this module."""


class RawBatch:
    """One batch, in place of the client's DefaultRecordBatch: yields itself instead of its records.

    Fields  offset   that of its last record, or behind it
            start, end  where it is in the fetch
            records  what they are when decompressed; None where they are not compressed, or nobody asked
            count    how many records it says it holds
            is_refused  they would be too much: `records` is one that says so
    """

    __slots__ = (
        "_array",
        "_bytes_max",
        "_checksum",
        "_codec",
        "_data",
        "base_offset",
        "count",
        "end",
        "is_control_batch",
        "is_refused",
        "is_transactional",
        "next_offset",
        "offset",
        "producer_id",
        "records",
        "start",
    )

    def __init__(  # noqa: PLR0913, PLR0917 - what its maker knows
        self,
        data: bytes,
        array: NDArray[np.uint8],
        start: int,
        end: int,
        head: tuple[int, ...],
        bytes_max: int,
    ) -> None:
        # Not the RawBatches: a reference cycle would keep the bytes of a fetch until the garbage collector runs.
        self._data, self._array, self.start, self.end = data, array, start, end
        self._bytes_max, self.count, self.is_refused = bytes_max, head[_COUNT_FIELD], False
        self.base_offset, _, _, _, self._checksum, attributes, delta, _, _, self.producer_id, *_ = head
        self._codec = attributes & CODEC
        self.is_transactional = bool(attributes & TRANSACTIONAL)
        self.is_control_batch = bool(attributes & CONTROL)
        self.offset = self.base_offset + delta
        self.next_offset = self.offset + 1
        self.records: bytes | None = None

    def validate_crc(self) -> bool:
        """Return whether its bytes are those that were written."""
        return self._checksum == crc32c(self._array[self.start + CHECKED_FROM : self.end])

    def __next__(self) -> Any:  # noqa: ANN401 - not typed there
        """Return the first record: of a control batch, its marker."""
        return next(DefaultRecordBatch(self._data[self.start : self.end]))

    def __iter__(self) -> Iterator["RawBatch"]:
        try:
            if self._codec:
                if self._codec not in NAMES:
                    raise UnusualError
                self.records = decode(
                    self._codec, self._data[self.start + HEADER_BYTES : self.end], self._bytes_max
                )
            size = self.end - self.start - HEADER_BYTES if self.records is None else len(self.records)
            # A batch too short for its records is damaged; the ordinary reader raises the error.
            self.is_refused = self.count > BATCH_RECORDS_MAX and self.count * RECORD_BYTES_MIN <= size
        except TooLargeError:
            self.is_refused = True
        if self.is_refused:
            self.records = _only(refusal(self.base_offset, self.offset), self.offset - self.base_offset)
        yield self

    @property
    def records_bytes(self) -> int:
        """How long its records are when decompressed; of one that is refused, what it has cost."""
        if self.is_refused:
            return self._bytes_max
        return self.end - self.start if self.records is None else len(self.records)

    @property
    def head(self) -> bytes:
        """Its header, that of one record where it is refused."""
        whole = self._data[self.start : self.start + HEADER_BYTES]
        return whole[:-_COUNT_BYTES] + _ONE_RECORD if self.is_refused else whole


class RawBatches:
    """The whole batches of a fetch, in place of the client's MemoryRecords.

    In      first_offset  the offset that was asked for
            bytes_max     what a batch may be when it is decompressed
    Fields  data, array   what was fetched: bytes, u8[]

    Errors  UnusualError  a batch of another format, one that ends before the first offset, or one whose offsets are
                          not behind those of the batch before it
    """

    def __init__(self, data: bytes, first_offset: int, bytes_max: int = BATCH_BYTES_MAX) -> None:
        self.data = data
        self._bytes_max = bytes_max
        self.array = np.frombuffer(data, np.uint8)
        self._first_offset = first_offset
        self._offset = 0
        self._look_at(0)

    def has_next(self) -> bool:
        """Return whether there is another one; the last one of a fetch may be cut off."""
        return self._end <= len(self.data)

    def next_batch(self) -> RawBatch:
        """Return the next one."""
        start, end = self._start, self._end
        if end - start < HEADER_BYTES:
            raise UnusualError
        head = HEADER.unpack_from(self.data, start)
        batch = RawBatch(self.data, self.array, start, end, head, self._bytes_max)
        behind_others = self._offset <= batch.base_offset < batch.next_offset
        if head[_MAGIC_FIELD] != MAGIC or not behind_others or batch.next_offset <= self._first_offset:
            raise UnusualError
        self._offset = batch.next_offset
        self._look_at(end)
        return batch

    def records(self, read: Sequence[RawBatch], position: int) -> RawRecords:
        """Return the records of batches, from the first offset on.

        In      read      the batches whose records were asked for
                position  the offset to read next
        Errors  UnusualError  a record that is damaged, or not as they are written
        """
        array, starts, ends = self._parts(read)
        count = count_records(array, starts, ends)
        if count == UNUSUAL:
            raise UnusualError
        columns = np.empty((COLUMNS, count), np.int64)
        found = index_records(array, starts, ends, self._first_offset, columns)
        if found == UNUSUAL:
            raise UnusualError

        def spans(starts: int, sizes: int) -> Spans:
            return Spans([Piece(array, columns[starts, :found], columns[sizes, :found])] if found else [])

        return RawRecords(
            keys=spans(KEY, KEY_BYTES),
            values=spans(VALUE, VALUE_BYTES),
            headers=HeaderSpans(spans(HEADERS, HEADERS_BYTES)),
            timestamps_ms=columns[TIME_MS, :found].data,
            offsets=columns[OFFSET, :found].data,
            position=position,
        )

    def _parts(
        self, read: Sequence[RawBatch]
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
        """Return batches with their records decompressed: the bytes, and where each begins and ends."""
        if all(batch.records is None for batch in read):
            places = np.array([(batch.start, batch.end) for batch in read], np.int64).reshape(-1, 2)
            return self.array, places[:, 0].copy(), places[:, 1].copy()
        parts: list[bytes] = []
        sizes: list[int] = []
        for batch in read:
            whole = self.data[batch.start : batch.end]
            some = [whole] if batch.records is None else [batch.head, batch.records]
            parts += some
            sizes.append(sum(map(len, some)))
        ends = np.cumsum(sizes, dtype=np.int64)
        return np.frombuffer(b"".join(parts), np.uint8), ends - sizes, ends

    def _look_at(self, start: int) -> None:
        """Note where the next batch begins, and by its length where it ends."""
        self._start = start
        self._end = start + BEFORE_LENGTH
        if self._end <= len(self.data):
            self._end += LENGTH.unpack_from(self.data, start + LENGTH_AT)[0]


def _only(value: bytes, offset_delta: int) -> bytes:
    """Return a record as it stands in a batch, at the batch's first time."""
    parts = b"\0", varint(0), varint(offset_delta), varint(-1), varint(len(value)), value, varint(0)
    return varint(sum(map(len, parts))) + b"".join(parts)
