"""Turns what aiokafka fetched into RawRecords: the only module that knows how aiokafka holds its records.

aiokafka (0.14, aiokafka/consumer/fetcher.py) makes an object of each record of a batch, passes it through Python
iterators, and makes a second object of it with topic, partition and sizes. That costs more than all other work on a
record. `install` replaces two classes of its fetcher. Consumers whose key_deserializer is `as_fetched` then read in one
of two ways; other consumers read as before:

- raw: a fetch is one RawRecords, whose columns a kernel has found (engine.live.kafka.raw_batches);
- ordinary: a batch is a list of aiokafka's first objects. A fetch that the raw way cannot read is read in this way, and
  the errors of both ways are those of this one.

Brokers do not check that header names are UTF-8, and aiokafka fails on a name that is not, again at each read. The
ordinary way reads such a batch a second time, with aiokafka's parser in Python and names whose bad bytes are replaced.
That holds for all consumers of the process.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any, Final, NamedTuple

import numpy as np
from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import _MemoryRecordsPy
from aiokafka.record.util import decode_varint_py

from rfmstream.engine.live.kafka.batch_format import MAGIC, MAGIC_AT
from rfmstream.engine.live.kafka.codecs import (
    BATCH_BYTES_MAX,
    BATCH_RECORDS_MAX,
    TooLargeError,
    bound_the_client,
    refusal,
)
from rfmstream.engine.live.kafka.raw_batches import RawBatches
from rfmstream.engine.live.model import Headers, RawRecords
from rfmstream.engine.live.spans import HeaderSpans, Spans, integers

READ_BYTES_MAX: Final = 32 << 20
"""Bytes of records after which the rest of a fetch is left to be fetched again. A few compressed megabytes may hold
gigabytes; while they are read the consumer's thread does nothing else, not even send heartbeats. One batch that holds
more than it may is refused, all its records as one (engine.live.kafka.codecs)."""
READ_RECORDS_MAX: Final = BATCH_RECORDS_MAX
"""Records after which the rest of a fetch is left, too: some bytes each, they may take far more than they are."""

_log = logging.getLogger(__name__)


def as_fetched(key: bytes | None) -> bytes | None:
    """Mark a consumer, as its key_deserializer, for this module; it is never called."""
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

    def _read_msg(self, *_: Any) -> Any:  # noqa: ANN401 - not typed there
        # Where aiokafka is compiled, it would read lengths beyond the end of a batch that is damaged.
        return super()._read_msg(decode_varint_py)


class _LenientRecords(_MemoryRecordsPy):
    """The batches of a fetch from the one on that holds an offset or what comes after it."""

    def __init__(self, data: bytes, offset: int) -> None:
        super().__init__(data)
        while self._next_slice is not None and _DefaultRecordBatchPy(self._next_slice).next_offset <= offset:
            self._cache_next()

    def next_batch(self) -> Any:  # noqa: ANN401 - not typed there
        batch = self._next_slice
        if batch is None or batch[MAGIC_AT] < MAGIC:
            return super().next_batch()
        self._cache_next()
        return _LenientBatch(batch)


class _MemoryRecords(fetcher.MemoryRecords):
    """Keeps the bytes that it reads, for the second reading."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.data = data


class _Together(NamedTuple):
    """A whole batch, presented to aiokafka as one record with the batch's last offset."""

    records: list[Any]
    offset: int


class _WholeBatch:
    """A batch that yields its records together."""

    def __init__(self, fetch: "_WholeBatches", batch: Any) -> None:  # noqa: ANN401 - not typed there
        self._fetch = fetch
        self._batch = batch

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._batch, name)

    def __next__(self) -> Any:  # noqa: ANN401 - of a control batch
        return next(self._batch)

    def __iter__(self) -> Iterator[_Together]:
        fetch = self._fetch
        try:
            # One more than there may be tells that there are more.
            records: list[Any] = list(islice(self._batch, BATCH_RECORDS_MAX + 1))
        except TooLargeError:
            records = []
            is_refused = True
        else:
            is_refused = len(records) > BATCH_RECORDS_MAX
        if is_refused:
            records = [_refused(self._batch)]
            fetch.read_bytes += _PartitionRecords.batch_bytes_max
        else:
            fetch.read_bytes += sum(len(record.value or b"") for record in records)
            fetch.read_records += len(records)
        if records:
            yield _Together(records, records[-1].offset)


class _Refused(NamedTuple):
    """What stands for the records of a batch that is too large."""

    offset: int
    timestamp: int
    value: bytes
    key: None = None
    headers: tuple[()] = ()


def _refused(batch: Any) -> _Refused:  # noqa: ANN401 - not typed there
    last = batch.next_offset - 1
    # Of the format before this one no more is known.
    time_ms = (
        batch.max_timestamp if getattr(batch, "timestamp_type", 0) else getattr(batch, "first_timestamp", -1)
    )
    return _Refused(last, time_ms, refusal(getattr(batch, "base_offset", last), last))


class _WholeBatches:
    """The batches of a fetch, each as one record, until their values are READ_BYTES_MAX together."""

    def __init__(self, records: Any) -> None:  # noqa: ANN401 - not typed there
        self._records = records
        self.read_bytes = self.read_records = 0

    def has_next(self) -> bool:
        is_enough = self.read_bytes >= READ_BYTES_MAX or self.read_records >= READ_RECORDS_MAX
        return not is_enough and bool(self._records.has_next())

    def next_batch(self) -> _WholeBatch:
        return _WholeBatch(self, self._records.next_batch())


class _PartitionRecords(fetcher.PartitionRecords):
    batch_bytes_max = BATCH_BYTES_MAX
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
            self._records_iterator = super()._unpack_records()
            return super().__next__()

    def _consumer_record(self, tp: TopicPartition, record: Any) -> Any:  # noqa: ANN401 - not typed there
        if self._key_deserializer is as_fetched:
            return [each for each in record.records if each.offset >= self.next_fetch_offset]
        return super()._consumer_record(tp, record)


class _RawPartitionRecords(_PartitionRecords):
    def _unpack_records(self) -> Iterator[Any]:
        is_ours = self._key_deserializer is as_fetched
        return self._unpack_raw() if is_ours else super()._unpack_records()

    def _unpack_raw(self) -> Iterator[Any]:
        raw = self._raw()
        if raw is None:
            yield from super()._unpack_records()
            return
        self.next_fetch_offset = raw.position
        if raw.offsets:
            yield raw

    def _raw(self) -> RawRecords | None:
        """Return the records of the batches; None: the ordinary path has to read them, or to say what is wrong."""
        try:
            batches = RawBatches(self._data, self.next_fetch_offset, self.batch_bytes_max)
            visible = _VisibleBatches(
                self._tp,
                batches,
                self._aborted_transactions,
                self.next_fetch_offset,
                None,
                None,
                self._check_crcs,
                self._isolation_level,
            )
            read, read_bytes, read_records = [], 0, 0
            for batch in visible:
                read.append(batch)
                read_bytes += batch.records_bytes
                read_records += batch.count
                if read_bytes >= READ_BYTES_MAX or read_records >= READ_RECORDS_MAX:
                    break
            return batches.records(read, visible.next_fetch_offset)
        except Exception as error:  # noqa: BLE001 - codecs raise what they like
            _log.debug("a fetch takes the ordinary path: %r", error)
            return None


class _VisibleBatches(fetcher.PartitionRecords):
    """The batches whose records aiokafka would read: no markers, nothing of aborted transactions."""

    def _consumer_record(self, _: TopicPartition, record: Any) -> Any:  # noqa: ANN401 - not typed there
        return record


def install(*, is_raw: bool) -> None:
    """Replace the classes that read fetches, for all consumers of the process and from the next fetch on.

    In      is_raw  consumers with `as_fetched` read in the raw way, else in the ordinary way
    """
    fetcher.MemoryRecords = _MemoryRecords
    fetcher.PartitionRecords = _RawPartitionRecords if is_raw else _PartitionRecords


def is_installed() -> bool:
    """Tell whether `install` was called: without it `as_fetched` is a deserializer like any other."""
    return issubclass(fetcher.PartitionRecords, _PartitionRecords)


def bound_batches(bytes_max: int) -> None:
    """Say what a batch may be when it is decompressed, of whatever is fetched from now on, in all consumers."""
    _PartitionRecords.batch_bytes_max = bytes_max
    bound_the_client(bytes_max)


def read_fetch(
    data: bytes, offset: int, aborted: Iterable[tuple[int, int]] = (), *, is_raw: bool = True
) -> RawRecords:
    """Return the records in a partition's part of a fetch, as a consumer that reads what is committed gets them.

    In      offset   the offset that was asked for
            aborted  transactions as (producer id, first offset)
    Errors  those of the client, such as CorruptRecordException
    """
    kind = _RawPartitionRecords if is_raw else _PartitionRecords
    check_crcs = True
    records = kind(
        TopicPartition("", 0),
        _MemoryRecords(data),
        list(aborted),
        offset,
        as_fetched,
        None,
        check_crcs,
        fetcher.READ_COMMITTED,
    )
    return raw_records(list(records), records.next_fetch_offset)


def raw_records(fetched: Sequence[Any], position: int) -> RawRecords:
    """Return the records of what the client brought, in order of their offsets; `position` is the offset to read next.

    In      fetched  of a poll and a partition: one RawRecords, or the records of batches
    """
    if fetched and isinstance(fetched[0], RawRecords):
        return joined(fetched)._replace(position=position)
    records = list(chain.from_iterable(fetched))
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
        keys=_joined_spans([each.keys for each in several]),
        values=_joined_spans([each.values for each in several]),
        headers=_joined_headers([each.headers for each in several]),
        timestamps_ms=np.concatenate([integers(each.timestamps_ms) for each in several]).data,
        offsets=np.concatenate([integers(each.offsets) for each in several]).data,
        position=several[-1].position,
    )


def _joined_spans(several: Sequence[Sequence[bytes | None]]) -> Sequence[bytes | None]:
    spans = [each for each in several if isinstance(each, Spans)]
    if len(spans) < len(several):
        return list(chain.from_iterable(several))
    return Spans.joined(spans)


def _joined_headers(several: Sequence[Sequence[Headers]]) -> Sequence[Headers]:
    spans = [each.raw for each in several if isinstance(each, HeaderSpans)]
    if len(spans) < len(several):
        return list(chain.from_iterable(several))
    return HeaderSpans(Spans.joined(spans))
