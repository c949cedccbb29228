"""Record batches against aiokafka: its builder makes the same bytes, and its readers read them."""

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from aiokafka.record import MemoryRecords
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy as Builder  # fills to the last byte
from hypothesis import given, settings
from hypothesis import strategies as st

from rfmstream import Engine
from rfmstream.engine.live.encode import BATCH_BYTES_MAX, EncodedRecords, Encoder
from rfmstream.engine.live.kafka import batch_format
from rfmstream.engine.live.kafka import batches as batches_module
from rfmstream.engine.live.kafka.batches import RecordBatch, batch_of_one, record_batches
from rfmstream.engine.live.model import Rejection, Source
from rfmstream.schemas.ruleset import load_ruleset

ENCODER = Encoder(load_ruleset("rfm8"), source="/rfmstream/test", rejected_bytes_max=1 << 30)
INPUT = Source("orders.v1", 0)
NOW_MS = 1_767_225_600_123
CODECS = ["gzip", "snappy", "lz4", "zstd"]

REJECTIONS = st.builds(
    Rejection,
    reason=st.just("malformed"),
    key=st.none() | st.binary(max_size=70),
    original=st.none() | st.binary(max_size=300),
    offset=st.integers(0, 2**40),
    row=st.integers(0, 9),
    log_us=st.integers(0, 2**50),
)


def encoded(*values: bytes) -> EncodedRecords:
    rows = [Rejection("malformed", b"k", value, offset, 0, 0) for offset, value in enumerate(values)]
    return ENCODER.rejections(rows, INPUT)


def bytes_of(batch: RecordBatch, producer_id: int = -1, epoch: int = -1, sequence: int = -1) -> bytes:
    batch.stamp(producer_id, epoch, sequence)
    return b"".join(batch.parts)


def read(data: bytes) -> tuple[Any, list[Any]]:
    """Return the one batch of `data` and its records; its checksum holds."""
    memory = MemoryRecords(data)
    batch = memory.next_batch()
    assert batch is not None
    assert not memory.has_next()
    assert batch.validate_crc()
    return batch, list(batch)


def built_by_aiokafka(records: EncodedRecords, bytes_max: int) -> list[bytes]:
    def builder() -> Builder:
        return Builder(2, 0, 1, 9, 3, 77, bytes_max)

    made, batch, count = [], builder(), 0
    for key, value, headers in records:
        arguments = {"timestamp": NOW_MS, "key": key, "value": value, "headers": headers}
        if batch.append(count, **arguments) is None:
            made.append(bytes(batch.build()))
            batch, count = builder(), 0
            batch.append(0, **arguments)
        count += 1
    return [*made, bytes(batch.build())] if count else []


@settings(deadline=None)
@given(st.lists(REJECTIONS, max_size=40), st.integers(62, 3000))
def test_bytes_are_those_of_aiokafkas_builder(rows: list[Rejection], bytes_max: int) -> None:
    records = ENCODER.rejections(rows, INPUT)
    made = record_batches(records, timestamp_ms=NOW_MS, batch_bytes_max=bytes_max)
    assert [bytes_of(batch, 9, 3, 77) for batch in made] == built_by_aiokafka(records, bytes_max)


@pytest.mark.parametrize("compression", [None, *CODECS])
def test_readers_read_what_was_encoded(compression: Any) -> None:  # noqa: ANN401 - one of the codecs
    records = encoded(*(b"value %d " % i * (i % 90) for i in range(3000)))
    made = list(
        record_batches(records, timestamp_ms=NOW_MS, compression=compression, batch_bytes_max=100_000)
    )
    found = []
    for batch in made:
        data = bytes_of(batch, 2**40, 12, 2**31 - 1)
        assert len(data) == batch.size() <= 100_000
        header, messages = read(data)
        assert (header.producer_id, header.producer_epoch, header.base_sequence) == (2**40, 12, 2**31 - 1)
        assert header.is_transactional
        assert not header.is_control_batch
        assert header.compression_type == (CODECS.index(compression) + 1 if compression else 0)
        assert header.next_offset == len(messages) == len(batch)
        assert [message.offset for message in messages] == list(range(len(messages)))
        assert {(message.timestamp, message.timestamp_type) for message in messages} == {(NOW_MS, 0)}
        found += [(message.key, message.value, list(message.headers)) for message in messages]
    assert len(made) > 3
    assert found == [tuple(record) for record in records]


def test_what_does_not_shrink_is_sent_as_it_is() -> None:
    noise = np.random.default_rng(0).bytes(5000)
    [batch] = record_batches(encoded(noise), timestamp_ms=NOW_MS, compression="zstd")
    header, [message] = read(bytes_of(batch))
    assert header.compression_type == 0
    assert message.value == noise


def test_lz4_has_blocks_that_shrink_and_blocks_that_do_not() -> None:
    value = np.random.default_rng(0).bytes(1 << 20) + b"x" * (1 << 20)
    [batch] = record_batches(encoded(value), timestamp_ms=NOW_MS, compression="lz4")
    assert batch.size() < len(value) * 3 // 4
    header, [message] = read(bytes_of(batch))
    assert header.compression_type == CODECS.index("lz4") + 1
    assert message.value == value


def test_an_oversized_record_goes_alone() -> None:
    records = encoded(b"small", b"x" * (2 * BATCH_BYTES_MAX), b"small too", b"and this")
    made = list(record_batches(records, timestamp_ms=NOW_MS))
    assert [len(batch) for batch in made] == [1, 1, 2]
    assert made[0].size() < 200
    assert made[1].size() > 2 * BATCH_BYTES_MAX
    assert [message.value for batch in made for message in read(bytes_of(batch))[1]] == [
        record.value for record in records
    ]


def test_no_records_no_batch() -> None:
    assert list(record_batches(encoded(), timestamp_ms=NOW_MS)) == []


def test_a_batch_holds_what_fits_to_the_byte() -> None:
    records = encoded(*[b"v" * 500] * 100)
    [whole] = record_batches(records, timestamp_ms=NOW_MS)
    assert len(list(record_batches(records, timestamp_ms=NOW_MS, batch_bytes_max=whole.size()))) == 1
    first, second = record_batches(records, timestamp_ms=NOW_MS, batch_bytes_max=whole.size() - 1)
    assert (len(first), len(second)) == (99, 1)


def test_tier_changes_are_written_as_batches_that_are_those_of_aiokafkas_builder() -> None:
    numbers = range(3600)
    orders = pa.table(
        {
            "customer_id": [f"c{number * 7919}" for number in numbers],
            "order_id": [f"o{number}" for number in numbers],
            "occurred_at": [datetime(2026, 1, 1, tzinfo=UTC)] * len(numbers),
            "amount_minor": [number**3 for number in numbers],
        }
    )
    parts = [part for part, _ in ENCODER.parts(Engine("rfm8", mode="live").step(orders).changes)]
    assert sum(map(len, parts)) == len(numbers)
    assert [len(part.batch) > 1_000_000 for part in parts if part.batch is not None] == [True] * 2 + [False]
    for part in parts:
        [batch] = record_batches(part, timestamp_ms=NOW_MS)
        assert [bytes_of(batch, 9, 3, 77)] == built_by_aiokafka(part, BATCH_BYTES_MAX)
        halves = list(record_batches(part, timestamp_ms=NOW_MS, batch_bytes_max=batch.size() - 1))
        expected = built_by_aiokafka(part, batch.size() - 1)
        assert [bytes_of(half, 9, 3, 77) for half in halves] == expected
        for codec, times in (("lz4", 6), ("gzip", 10)):
            [packed] = record_batches(part, timestamp_ms=NOW_MS, compression=codec)  # type: ignore[arg-type]
            assert packed.size() < batch.size() // times
            header, messages = read(bytes_of(packed))
            assert header.compression_type == CODECS.index(codec) + 1
            assert [(message.key, message.value, list(message.headers)) for message in messages] == [
                tuple(record) for record in part
            ]


def test_the_checksum_is_the_same_without_the_faster_library(monkeypatch: pytest.MonkeyPatch) -> None:
    records = encoded(b"a", b"b" * 1000)
    [fast] = record_batches(records, timestamp_ms=NOW_MS)
    expected = bytes_of(fast)
    monkeypatch.setattr(batches_module, "crc32c", batch_format._joined)
    [slow] = record_batches(records, timestamp_ms=NOW_MS)
    assert bytes_of(slow) == expected


def test_a_batch_of_one_is_as_others() -> None:
    batch = batch_of_one(b"key", b"value", timestamp_ms=NOW_MS)
    header, [message] = read(bytes_of(batch, 9, 3, 77))
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (9, 3, 77)
    assert header.is_transactional
    assert (message.key, message.value, message.timestamp) == (b"key", b"value", NOW_MS)
    assert len(batch) == 1
