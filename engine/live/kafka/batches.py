"""Encoded records as Kafka v2 record batches, put together by a kernel.

Every record of a batch has the same timestamp, CreateTime: the wall time of the call. A topic's retention counts from
there, so changes of a replayed history are kept as long as others; when a change took effect is in the record itself.

Source  Kafka's protocol guide, "Record Batch"
"""

import struct
from collections.abc import Callable, Iterator
from typing import Final, Literal

import cramjam
import numpy as np
from aiokafka.codec import gzip_encode, zstd_encode
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from numpy.typing import NDArray

from engine.live.encode import BATCH_BYTES_MAX, EncodedRecords
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
from kernels.encode_batches import fill_batch
from kernels.encode_text import BEGINNING_BYTES_MAX, LINE_BYTES

Compression = Literal["gzip", "snappy", "lz4", "zstd"]

# The frame of Java's snappy, with a single block: blocks of 32 KiB, as others have them, cost two thirds more.
_SNAPPY_FRAME: Final = struct.Struct(">8sIII")
_SNAPPY_MARK: Final = b"\x82SNAPPY\0"

# lz4's frame of blocks of 1 MiB that need nothing of each other and have no checksums: the batch has its own.
_LZ4_BEGIN: Final = b"\x04\x22\x4d\x18\x60\x60\x51"
_LZ4_END: Final = bytes(4)
_LZ4_SIZE: Final = struct.Struct("<I")
_LZ4_BLOCK_BYTES: Final = 1 << 20
_LZ4_STORED: Final = 1 << 31


def _snappy(data: memoryview) -> bytes:
    block = cramjam.snappy.compress_raw(data)
    return _SNAPPY_FRAME.pack(_SNAPPY_MARK, 1, 1, len(block)) + bytes(block)


def _lz4(data: memoryview) -> bytes:
    # Block by block: what makes whole frames there holds Python's lock for as long as it takes.
    frame = [_LZ4_BEGIN]
    for start in range(0, len(data), _LZ4_BLOCK_BYTES):
        plain = data[start : start + _LZ4_BLOCK_BYTES]
        block = cramjam.lz4.compress_block(plain, store_size=False)
        is_smaller = len(block) < len(plain)
        frame += (
            [_LZ4_SIZE.pack(len(block)), block]
            if is_smaller
            else [_LZ4_SIZE.pack(len(plain) | _LZ4_STORED), plain]
        )
    return b"".join([*frame, _LZ4_END])


_CODECS: Final[dict[str, tuple[int, Callable[[memoryview], bytes]]]] = {
    "gzip": (1, gzip_encode),
    "snappy": (2, _snappy),
    "lz4": (3, _lz4),
    "zstd": (4, zstd_encode),
}


class RecordBatch:
    """One batch.

    In      buffer  u8[], the whole of it; its producer and checksum are filled in before it is sent
            records in it
    Fields  offset  of its first record, once a broker has it and has said so; else -1
    """

    def __init__(self, buffer: NDArray[np.uint8], records: int) -> None:
        self._buffer = buffer
        self._records = records
        self.offset = -1

    def __len__(self) -> int:
        return self._records

    def size(self) -> int:
        """Return the bytes of the batch."""
        return int(self._buffer.size)

    def copy(self) -> "RecordBatch":
        """Return the same records as a batch for another partition."""
        return RecordBatch(self._buffer.copy(), self._records)

    def stamp(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        """Fill in who sends it, and what makes a batch that is sent again known for what it is."""
        PRODUCER.pack_into(self._buffer.data, PRODUCER_AT, producer_id, producer_epoch, base_sequence)
        CRC.pack_into(self._buffer.data, CRC_AT, crc32c(self._buffer[CHECKED_FROM:]))

    @property
    def data(self) -> memoryview:
        """The batch as it is sent, once it is stamped."""
        return self._buffer.data


def record_batches(
    records: EncodedRecords,
    *,
    timestamp_ms: int,
    compression: Compression | None = None,
    batch_bytes_max: int = BATCH_BYTES_MAX,
) -> Iterator[RecordBatch]:
    """Yield batches of the records, in order, for a transaction; as many records in each as there is room for.

    A record that exceeds `batch_bytes_max` goes alone: the broker decides. The limit is that of the batch before its
    compression, which is given up where it does not make the batch smaller.
    """
    first, count = 0, len(records)
    if records.batch is not None and (count == 1 or HEADER.size + records.batch.size <= batch_bytes_max):
        yield _batch(records.data[: HEADER.size + records.batch.size], count, timestamp_ms, compression)
        return
    left = int(records.sizes.sum()) + count * BEGINNING_BYTES_MAX
    while first < count:
        alone = int(records.sizes[first]) + BEGINNING_BYTES_MAX
        room = max(min(batch_bytes_max - HEADER.size, left), alone)
        buffer = np.empty(HEADER.size + room + LINE_BYTES, dtype=np.uint8)
        filled, used = fill_batch(records.data, records.starts, records.sizes, first, buffer[HEADER.size :])
        yield _batch(buffer[: HEADER.size + used], filled, timestamp_ms, compression)
        left -= used
        first += filled


def batch_of_one(key: bytes, value: bytes, *, timestamp_ms: int) -> RecordBatch:
    """Return a batch of one record, for a transaction."""
    builder = DefaultRecordBatchBuilder(
        MAGIC,
        0,
        is_transactional=1,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=BATCH_BYTES_MAX,
    )
    builder.append(0, timestamp_ms, key, value, [])
    return RecordBatch(np.frombuffer(builder.build(), np.uint8), 1)


def _batch(
    buffer: NDArray[np.uint8],
    records: int,
    timestamp_ms: int,
    compression: Compression | None,
) -> RecordBatch:
    attributes = TRANSACTIONAL
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
