"""Encoded records as Kafka v2 record batches, put together by a kernel and handed to aiokafka's producer whole.

`AIOKafkaProducer.send_batch` takes whatever behaves like its own BatchBuilder (aiokafka 0.14,
aiokafka/producer/message_accumulator.py). A `RecordBatch` does: it is full from the start, and gets the producer's id,
epoch and sequence when the sender takes it from the queue.

Every record of a batch has the same timestamp, CreateTime: the wall time of the call. A topic's retention counts from
there, so changes of a replayed history are kept as long as others; when a change took effect is in the record itself.

Source  Kafka's protocol guide, "Record Batch"
"""

import struct
from collections.abc import Callable, Iterator
from typing import Any, Final, Literal

import cramjam
import numpy as np
from aiokafka.codec import gzip_encode, lz4_encode, zstd_encode
from numpy.typing import NDArray

from engine.live.encode import EncodedRecords
from engine.live.kafka.batch_format import (
    BEFORE_LENGTH,
    CHECKED_FROM,
    CRC,
    CRC_AT,
    HEADER,
    MAGIC,
    PRODUCER,
    PRODUCER_AT,
    TRANSACTIONAL,
    crc32c,
)
from kernels.encode_batches import BEGINNING_BYTES_MAX, fill_batch
from kernels.encode_text import LINE_BYTES

BATCH_BYTES_MAX: Final = 1 << 20
"""Bytes of a batch: below `message.max.bytes` of a broker and `max.request.size` of a producer as they come."""

Compression = Literal["gzip", "snappy", "lz4", "zstd"]

# The frame of Java's snappy, with a single block: blocks of 32 KiB, as others have them, cost two thirds more.
_SNAPPY_FRAME: Final = struct.Struct(">8sIII")
_SNAPPY_MARK: Final = b"\x82SNAPPY\0"


def _snappy(data: memoryview) -> bytes:
    block = cramjam.snappy.compress_raw(data)
    return _SNAPPY_FRAME.pack(_SNAPPY_MARK, 1, 1, len(block)) + bytes(block)


_CODECS: Final[dict[str, tuple[int, Callable[[memoryview], bytes]]]] = {
    "gzip": (1, gzip_encode),
    "snappy": (2, _snappy),
    "lz4": (3, lambda data: lz4_encode(bytes(data))),
    "zstd": (4, zstd_encode),
}


class RecordBatch:
    """One batch, in place of aiokafka's BatchBuilder.

    buffer  u8[]  the whole batch; its producer and checksum are filled in before it is sent
    """

    def __init__(self, buffer: NDArray[np.uint8], records: int) -> None:
        self._buffer = buffer
        self._records = records

    def __len__(self) -> int:
        return self._records

    def size(self) -> int:
        """Return the bytes of the batch."""
        return int(self._buffer.size)

    def record_count(self) -> int:
        """Return how many sequence numbers the batch takes."""
        return self._records

    def closed(self) -> bool:
        """Tell that nothing can be added, so that the sender does not wait for more."""
        return True

    def close(self) -> None:
        """Do nothing: it is closed."""

    def append(self, **_: Any) -> None:  # noqa: ANN401 - whatever the accumulator passes
        """Refuse a record that somebody sends to the same partition: the accumulator then makes a batch of its own."""

    def _set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        """Fill in the producer, once, when the sender takes the batch: a retry sends the same bytes."""
        PRODUCER.pack_into(self._buffer.data, PRODUCER_AT, producer_id, producer_epoch, base_sequence)

    def _build(self) -> memoryview:
        """Return the batch with its checksum."""
        CRC.pack_into(self._buffer.data, CRC_AT, crc32c(self._buffer[CHECKED_FROM:]))
        return self._buffer.data


def record_batches(
    records: EncodedRecords,
    *,
    timestamp_ms: int,
    transactional: bool = True,
    compression: Compression | None = None,
    batch_bytes_max: int = BATCH_BYTES_MAX,
) -> Iterator[RecordBatch]:
    """Yield batches of the records, in order; as many records in each as there is room for.

    A record that exceeds `batch_bytes_max` goes alone: the broker decides. The limit is that of the batch before its
    compression, which is given up where it does not make the batch smaller.
    """
    attributes = TRANSACTIONAL if transactional else 0
    first, count = 0, len(records)
    left = int(records.sizes.sum()) + count * BEGINNING_BYTES_MAX
    while first < count:
        alone = int(records.sizes[first]) + BEGINNING_BYTES_MAX
        room = max(min(batch_bytes_max - HEADER.size, left), alone)
        buffer = np.empty(HEADER.size + room + LINE_BYTES, dtype=np.uint8)
        filled, used = fill_batch(records.data, records.starts, records.sizes, first, buffer[HEADER.size :])
        yield _batch(buffer[: HEADER.size + used], filled, timestamp_ms, attributes, compression)
        left -= used
        first += filled


def _batch(
    buffer: NDArray[np.uint8],
    records: int,
    timestamp_ms: int,
    attributes: int,
    compression: Compression | None,
) -> RecordBatch:
    if compression is not None:
        number, encode = _CODECS[compression]
        packed = encode(buffer[HEADER.size :].data)
        if len(packed) < buffer.size - HEADER.size:
            attributes |= number
            buffer = np.frombuffer(bytearray(HEADER.size) + packed, dtype=np.uint8)
    HEADER.pack_into(
        buffer.data,
        0,
        0,  # base offset: the broker's
        buffer.size - BEFORE_LENGTH,
        -1,  # partition leader epoch: the broker's
        MAGIC,
        0,  # checksum: as soon as the producer is known
        attributes,
        records - 1,
        timestamp_ms,
        timestamp_ms,
        -1,
        -1,
        -1,
        records,
    )
    return RecordBatch(buffer, records)
