"""What the client fetched, as RawRecords: the only place that knows how the client holds its records.

aiokafka (0.14, aiokafka/consumer/fetcher.py) turns each record of a batch into an object, takes that through iterators
in Python, and turns it into another one with topic, partition and sizes, which costs more than all the rest of reading
it. A consumer that is made with `as_fetched` as its key_deserializer gets the first objects, those of a batch in a
list; all others are served as ever.

Brokers do not check that the names of headers are UTF-8, and aiokafka fails on one that is not, each time it is read.
Such a batch is read again by aiokafka's parser in Python, by this module for all consumers of the process.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, Final, NamedTuple

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


class _Together(NamedTuple):
    """Records that pass for one: the last of them."""

    records: list[Any]
    offset: int


class _WholeBatch:
    """A batch that yields its records together."""

    def __init__(self, batch: Any) -> None:  # noqa: ANN401 - not typed there
        self._batch = batch

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._batch, name)

    def __next__(self) -> Any:  # noqa: ANN401 - of a control batch
        return next(self._batch)

    def __iter__(self) -> Iterator[_Together]:
        records = list(self._batch)
        if records:
            yield _Together(records, records[-1].offset)


class _WholeBatches:
    """The batches of a fetch, each whole."""

    def __init__(self, records: Any) -> None:  # noqa: ANN401 - not typed there
        self._records = records
        self.has_next = records.has_next

    def next_batch(self) -> _WholeBatch:
        return _WholeBatch(self._records.next_batch())


class _PartitionRecords(fetcher.PartitionRecords):
    _records: Any

    def __init__(self, *arguments: Any) -> None:  # noqa: ANN401 - not typed there
        super().__init__(*arguments)
        self._data = self._records.data
        # They are read from the first record on that is asked for.
        self._records = self._whole(self._records)

    def _whole(self, records: Any) -> Any:  # noqa: ANN401 - not typed there
        return _WholeBatches(records) if self._key_deserializer is as_fetched else records

    def __next__(self) -> Any:  # noqa: ANN401 - not typed there
        try:
            return super().__next__()
        except UnicodeDecodeError:
            self._records = self._whole(_LenientRecords(self._data, self.next_fetch_offset))
            # It leaves out what comes before next_fetch_offset.
            self._records_iterator = self._unpack_records()
            return super().__next__()

    def _consumer_record(self, tp: TopicPartition, record: Any) -> Any:  # noqa: ANN401 - not typed there
        if self._key_deserializer is as_fetched:
            return [each for each in record.records if each.offset >= self.next_fetch_offset]
        return super()._consumer_record(tp, record)


fetcher.MemoryRecords = _MemoryRecords
fetcher.PartitionRecords = _PartitionRecords


def raw_records(batches: Sequence[Sequence[Any]], position: int) -> RawRecords:
    """Return the records of batches, in order of their offsets; `position` is the offset to read next."""
    records = list(chain.from_iterable(batches))
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
