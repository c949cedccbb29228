"""Record batches as bytes, put together here and not by a client, and two readers of them that are not ours."""

import gzip
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import cramjam
import google_crc32c
from aiokafka import TopicPartition
from aiokafka.codec import snappy_encode
from aiokafka.consumer.fetcher import READ_COMMITTED

from rfmstream.engine.live.kafka import fetches
from rfmstream.engine.live.kafka.fetches import as_fetched, raw_records, read_fetch
from rfmstream.engine.live.model import RawRecords
from rfmstream.engine.live.spans import HeaderSpans, Spans

HEADER = struct.Struct(">qiibIhiqqqhii")
CRC = struct.Struct(">I")
CRC_AT, CHECKED_FROM, LENGTH_AT, BEFORE_LENGTH = 17, 21, 8, 12
LOG_APPEND_TIME, TRANSACTIONAL, CONTROL = 0x08, 0x10, 0x20
ABORT, COMMIT = b"\0\0\0\0", b"\0\0\0\1"

Headers = Sequence[tuple[bytes, bytes | None]]


def varint(value: int) -> bytes:
    left, out = (value << 1) ^ (value >> 63), bytearray()
    while left > 127:
        out.append(left & 127 | 128)
        left >>= 7
    return bytes([*out, left])


def sized(text: bytes | None) -> bytes:
    return varint(-1) if text is None else varint(len(text)) + text


@dataclass(frozen=True)
class Record:
    delta: int
    time_delta: int = 0
    key: bytes | None = None
    value: bytes | None = None
    headers: Headers = ()

    def encoded(self) -> bytes:
        headers = b"".join(sized(name) + sized(value) for name, value in self.headers)
        body = b"\0" + varint(self.time_delta) + varint(self.delta) + sized(self.key) + sized(self.value)
        return sized(body + varint(len(self.headers)) + headers)


def lz4(data: bytes) -> bytes:
    compressor = cramjam.lz4.Compressor(level=1, content_checksum=False, block_linked=False)
    compressor.compress(data)
    return bytes(compressor.finish())


CODECS: dict[int, Callable[[bytes], bytes]] = {
    0: bytes,
    1: gzip.compress,
    2: snappy_encode,
    3: lz4,
    4: lambda data: bytes(cramjam.zstd.compress(data)),
    # Not a codec's number, but the other frame of snappy.
    5: lambda data: bytes(cramjam.snappy.compress_raw(data)),
}


@dataclass(frozen=True)
class Batch:
    """A batch; `damage` changes its records before they are compressed."""

    base: int
    records: Sequence[Record]
    codec: int = 0
    attributes: int = 0
    producer: int = -1
    last_delta: int | None = None
    first_ms: int = 1_767_225_600_000
    max_ms: int = 1_767_225_600_999
    count: int | None = None
    magic: int = 2
    damage: Sequence[tuple[int, int]] = field(default=())

    @property
    def end(self) -> int:
        return self.base + self._last_delta + 1

    @property
    def _last_delta(self) -> int:
        if self.last_delta is not None:
            return self.last_delta
        return self.records[-1].delta if self.records else 0

    def encoded(self) -> bytes:
        records = bytearray(b"".join(record.encoded() for record in self.records))
        for at, byte in self.damage:
            if records:
                records[at % len(records)] = byte
        payload = CODECS[self.codec](bytes(records))
        attributes = self.attributes | (2 if self.codec == 5 else self.codec)
        count = len(self.records) if self.count is None else self.count
        head = (self._last_delta, self.first_ms, self.max_ms, self.producer, 0, 0, count)
        return with_checksum(
            bytearray(
                HEADER.pack(
                    self.base,
                    HEADER.size - BEFORE_LENGTH + len(payload),
                    -1,
                    self.magic,
                    0,
                    attributes,
                    *head,
                )
                + payload
            )
        )


def marker(base: int, producer: int, key: bytes) -> Batch:
    return Batch(base, [Record(0, 0, key, bytes(6))], attributes=TRANSACTIONAL | CONTROL, producer=producer)


def with_checksum(batch: bytearray) -> bytes:
    CRC.pack_into(batch, CRC_AT, google_crc32c.value(bytes(batch[CHECKED_FROM:])))
    return bytes(batch)


def with_checksums(data: bytes) -> bytes:
    """Return a fetch with right checksums wherever its lengths lead to a batch."""
    out, at = bytearray(data), 0
    while at + HEADER.size <= len(out):
        end = at + BEFORE_LENGTH + struct.unpack_from(">i", out, at + LENGTH_AT)[0]
        if not at + HEADER.size <= end <= len(out):
            break
        out[at:end] = with_checksum(out[at:end])
        at = end
    return bytes(out)


Aborted = Sequence[tuple[int, int]]
Read = RawRecords | type[BaseException]
"""The records of a fetch, or the kind of error."""


def read(data: bytes, offset: int, aborted: Aborted = (), *, is_raw: bool = True) -> Read:
    try:
        return read_fetch(data, offset, aborted, is_raw=is_raw)
    except Exception as error:  # noqa: BLE001 - its kind is what is asked for
        return type(error)


class _PythonRecords(fetches._LenientRecords):
    def __init__(self, data: bytes) -> None:
        super().__init__(data, 0)
        self.data = data


def read_in_python(data: bytes, offset: int, aborted: Aborted = ()) -> Read:
    """Read by aiokafka's parser in Python, whatever is compiled here."""
    source, check_crcs = TopicPartition("", 0), True
    data_of = _PythonRecords(data), list(aborted), offset
    client = fetches._PartitionRecords(source, *data_of, as_fetched, None, check_crcs, READ_COMMITTED)
    try:
        return raw_records(list(client), client.next_fetch_offset)
    except Exception as error:  # noqa: BLE001 - its kind is what is asked for
        return type(error)


def as_lists(found: Read) -> object:
    if isinstance(found, type):
        return found
    headers = [list(each) for each in found.headers]
    return [headers, *(list(column) for column in found[:2] + found[3:5]), found.position]


def is_raw(found: Read) -> bool:
    """Tell whether the raw path has found something; where there are no records it shows nothing else."""
    return (
        isinstance(found, RawRecords)
        and isinstance(found.values, Spans)
        and isinstance(found.headers, HeaderSpans)
    )


def check_paths_agree(data: bytes, offset: int, aborted: Aborted = ()) -> Read:
    """Return what the raw path says, which is what the ordinary one does, and aiokafka's Python of what it accepts."""
    raw = read(data, offset, aborted)
    assert as_lists(raw) == as_lists(read(data, offset, aborted, is_raw=False))
    if is_raw(raw):
        assert as_lists(raw) == as_lists(read_in_python(data, offset, aborted))
        assert isinstance(raw, RawRecords)
        assert isinstance(raw.values, Spans)
        gathered = raw.values.gathered(3).tobytes()
        assert gathered == b"".join(filter(None, raw.values)) + bytes(3)
    return raw


def shifted(batches: Sequence[Batch], gaps: Sequence[int]) -> list[Batch]:
    """Return batches one behind another, with gaps before them."""
    out, base = [], 0
    for batch, gap in zip(batches, gaps, strict=True):
        out.append(replace(batch, base=base + gap))
        base = out[-1].end
    return out
