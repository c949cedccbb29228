"""What the client fetched, as RawRecords: the only place that knows how the client holds its records.

aiokafka (0.14, aiokafka/consumer/fetcher.py) turns each record of a batch into an object, and that into another one
with topic, partition and sizes, which costs as much again as all the rest of reading it. A consumer that is made with
`as_fetched` as its key_deserializer gets the first object; all others are served as ever.

Brokers do not check that the names of headers are UTF-8, and aiokafka fails on one that is not, each time it is read.
Such a batch is read again by aiokafka's parser in Python, by this module for all consumers of the process.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import _MemoryRecordsPy

from engine.live.model import RawRecords

_MAGIC_AT: Final = 16


def as_fetched(key: bytes | None) -> bytes | None:
    """Return the key; as a key_deserializer it is a mark, and not called."""
    return key


class _Name(bytearray):
    def decode(self, *_: Any) -> str:  # noqa: ANN401
        return super().decode("utf-8", "replace")


class _Content(bytearray):
    """A batch's records; what is cut out of them decodes whatever it holds."""

    def __getitem__(self, at: Any) -> Any:  # noqa: ANN401
        part = super().__getitem__(at)
        return _Name(part) if isinstance(part, bytearray) else part


class _LenientBatch(_DefaultRecordBatchPy):
    _buffer: bytearray

    def __iter__(self) -> Iterator[Any]:
        super().__iter__()
        self._buffer = _Content(self._buffer)
        return self


class _LenientRecords(_MemoryRecordsPy):
    """The batches of a fetch from the one on that holds an offset or what comes after it."""

    def __init__(self, data: bytes, offset: int) -> None:
        super().__init__(data)
        while self._next_slice is not None and _DefaultRecordBatchPy(self._next_slice).next_offset <= offset:
            self._cache_next()

    def next_batch(self) -> Any:  # noqa: ANN401 - not typed there
        batch = self._next_slice
        if batch is None or batch[_MAGIC_AT] < 2:
            return super().next_batch()
        self._cache_next()
        return _LenientBatch(batch)


class _MemoryRecords(fetcher.MemoryRecords):
    """Keeps what it reads."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.data = data


class _PartitionRecords(fetcher.PartitionRecords):
    _records: Any

    def __next__(self) -> Any:  # noqa: ANN401 - not typed there
        try:
            return super().__next__()
        except UnicodeDecodeError:
            self._records = _LenientRecords(self._records.data, self.next_fetch_offset)
            # It leaves out what comes before next_fetch_offset.
            self._records_iterator = self._unpack_records()
            return super().__next__()

    def _consumer_record(self, tp: TopicPartition, record: Any) -> Any:  # noqa: ANN401 - not typed there
        if self._key_deserializer is as_fetched:
            return record
        return super()._consumer_record(tp, record)


fetcher.MemoryRecords = _MemoryRecords
fetcher.PartitionRecords = _PartitionRecords


def raw_records(records: Sequence[Any], position: int) -> RawRecords:
    """Return records, in order of their offsets; `position` is the offset to read next."""
    return RawRecords(
        keys=[record.key for record in records],
        values=[record.value for record in records],
        headers=[record.headers for record in records],
        timestamps_ms=[record.timestamp for record in records],
        offsets=[record.offset for record in records],
        position=position,
    )


def joined(several: Sequence[RawRecords]) -> RawRecords:
    """Return consecutive records as one."""
    if len(several) == 1:
        return several[0]
    return RawRecords(
        keys=[key for each in several for key in each.keys],
        values=[value for each in several for value in each.values],
        headers=[headers for each in several for headers in each.headers],
        timestamps_ms=[time for each in several for time in each.timestamps_ms],
        offsets=[offset for each in several for offset in each.offsets],
        position=several[-1].position,
    )
