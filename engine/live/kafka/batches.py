"""Encoded records as Kafka v2 record batches, put together by a kernel.

Every record of a batch has the same timestamp, CreateTime: the wall time of the call. A topic's retention counts from
there, so changes of a replayed history are kept as long as others; when a change took effect is in the record itself.

Source  Kafka's protocol guide, "Record Batch"
"""

import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Final, Literal

import cramjam
import numpy as np
from aiokafka.codec import zstd_encode
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from numpy.typing import NDArray

from rfmstream.engine.live.encode import BATCH_BYTES_MAX, EncodedRecords
from rfmstream.engine.live.kafka.batch_format import (
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
from rfmstream.kernels.encode_batches import fill_batch
from rfmstream.kernels.encode_text import BEGINNING_BYTES_MAX, LINE_BYTES

Compression = Literal["gzip", "snappy", "lz4", "zstd"]

# The frame of Java's snappy, with a single block: blocks of 32 KiB, as others have them, cost two thirds more.
_SNAPPY_FRAME: Final = struct.Struct(">8sIII")
_SNAPPY_MARK: Final = b"\x82SNAPPY\0"

_GZIP_LEVEL: Final = 1
_GZIP_FRAME: Final = 31
_GZIP_BEGIN: Final = bytes.fromhex("1f8b08000000000004ff")
_GZIP_END: Final = struct.Struct("<II")

# lz4's frame of blocks of 1 MiB that need nothing of each other and have no checksums: the batch has its own.
_LZ4_BEGIN: Final = b"\x04\x22\x4d\x18\x60\x60\x51"
_LZ4_END: Final = bytes(4)
_LZ4_SIZE: Final = struct.Struct("<I")
_LZ4_BLOCK_BYTES: Final = 1 << 20
_LZ4_STORED: Final = 1 << 31


def _snappy(data: memoryview) -> bytes:
    block = cramjam.snappy.compress_raw(data)
    return _SNAPPY_FRAME.pack(_SNAPPY_MARK, 1, 1, len(block)) + bytes(block)


def _gzip(data: memoryview) -> bytes:
    # The level above all is what makes it dear: 9, as others have it, takes six times as long for a third less. And
    # unlike what cramjam has, this does not hold Python's lock meanwhile.
    packer = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_FRAME)
    return packer.compress(data) + packer.flush()


def _lz4(data: memoryview) -> bytes:
    # What makes whole frames holds Python's lock for as long as it takes; what makes blocks does not.
    frame: list[Any] = [_LZ4_BEGIN]
    for start in range(0, len(data), _LZ4_BLOCK_BYTES):
        plain = data[start : start + _LZ4_BLOCK_BYTES]
        block = cramjam.lz4.compress_block(plain, store_size=False)
        if len(block) < len(plain):
            frame += _LZ4_SIZE.pack(len(block)), block
        else:
            frame += _LZ4_SIZE.pack(len(plain) | _LZ4_STORED), plain
    return b"".join([*frame, _LZ4_END])


def _lz4_of_rows(records: EncodedRecords) -> bytes:
    block = records.lz4_block()
    return b"".join((_LZ4_BEGIN, _LZ4_SIZE.pack(len(block)), block, _LZ4_END))


def _gzip_of_rows(records: EncodedRecords) -> bytes:
    assert records.batch is not None
    end = _GZIP_END.pack(zlib.crc32(records.batch.data), records.batch.size)
    return b"".join((_GZIP_BEGIN, records.deflated(), end))


_Codec = tuple[int, Callable[[memoryview], bytes]]
_CODECS: Final[dict[str, _Codec]] = {
    "gzip": (1, _gzip),
    "snappy": (2, _snappy),
    "lz4": (3, _lz4),
    "zstd": (4, zstd_encode),
}


class RecordBatch:
    """One batch.

    In      head     its header; producer and checksum are filled in before it is sent
            records  what comes behind it: bytes or u8[]
            count    of the records
    Fields  offset   of its first record, once a broker has it and has said so; else -1
    """

    def __init__(self, head: bytearray, records: bytes | NDArray[np.uint8], count: int) -> None:
        self._head = head
        self._records = records
        self._count = count
        self.offset = -1

    def __len__(self) -> int:
        return self._count

    def size(self) -> int:
        """Return the bytes of the batch."""
        return len(self._head) + len(self._records)

    def copy(self) -> "RecordBatch":
        """Return the same records as a batch for another partition."""
        return RecordBatch(self._head.copy(), self._records, self._count)

    def stamp(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        """Fill in who sends it, and what makes a batch that is sent again known for what it is."""
        PRODUCER.pack_into(self._head, PRODUCER_AT, producer_id, producer_epoch, base_sequence)
        CRC.pack_into(self._head, CRC_AT, crc32c(bytes(self._head[CHECKED_FROM:]), self._records))

    @property
    def parts(self) -> tuple[bytearray, bytes | NDArray[np.uint8]]:
        """What is sent one after the other, once it is stamped."""
        return self._head, self._records


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
    codec = None if compression is None else _CODECS[compression]
    if records.batch is not None and (count == 1 or HEADER.size + records.batch.size <= batch_bytes_max):
        # Who wrote them knows how they repeat one another, where a codec by itself would have to search.
        if records.repeats is not None and codec is not None:
            if compression == "gzip":
                codec = codec[0], lambda _: _gzip_of_rows(records)
            elif compression == "lz4" and records.batch.size <= _LZ4_BLOCK_BYTES:
                codec = codec[0], lambda _: _lz4_of_rows(records)
        yield _batch(records.batch, count, timestamp_ms, codec)
        return
    left = int(records.sizes.sum()) + count * BEGINNING_BYTES_MAX
    while first < count:
        alone = int(records.sizes[first]) + BEGINNING_BYTES_MAX
        room = max(min(batch_bytes_max - HEADER.size, left), alone)
        out = np.empty(room + LINE_BYTES, dtype=np.uint8)
        filled, used = fill_batch(records.data, records.starts, records.sizes, first, out)
        yield _batch(out[:used], filled, timestamp_ms, codec)
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
    data = builder.build()
    return RecordBatch(data[: HEADER.size], bytes(data[HEADER.size :]), 1)


def _batch(
    records: NDArray[np.uint8],
    count: int,
    timestamp_ms: int,
    codec: _Codec | None,
) -> RecordBatch:
    attributes = TRANSACTIONAL
    sent: bytes | NDArray[np.uint8] = records
    if codec is not None:
        number, encode = codec
        packed = encode(records.data)
        if len(packed) < len(records):
            attributes, sent = TRANSACTIONAL | number, packed
    head = HEADER.pack(
        0,  # base offset: the broker's
        HEADER.size + len(sent) - BEFORE_LENGTH,
        -1,  # partition leader epoch: the broker's
        MAGIC,
        0,  # checksum: as soon as the producer is known
        attributes,
        count - 1,
        timestamp_ms,
        timestamp_ms,
        -1,
        -1,
        -1,
        count,
    )
    return RecordBatch(bytearray(head), sent, count)
