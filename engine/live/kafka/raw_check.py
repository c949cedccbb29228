"""Chooses the way in which fetches are read, before the first one: both ways must read a sample alike.

The raw way relies on insides of aiokafka (engine.live.kafka.fetches). Where its version is unknown, or the sample
differs, fetches are read in the ordinary way, which is slower and otherwise the same.
"""

import logging
import struct
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Final, NamedTuple

import aiokafka
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from rfmstream.engine.live.kafka.batch_format import (
    ATTRIBUTES_AT,
    CHECKED_FROM,
    CONTROL,
    CRC,
    CRC_AT,
    LOG_APPEND_TIME,
    TRANSACTIONAL,
    crc32c,
)
from rfmstream.engine.live.kafka.fetches import install, joined, read_fetch
from rfmstream.engine.live.model import RawRecords
from rfmstream.engine.live.spans import HeaderSpans, Spans

KNOWN_VERSION: Final = "0.14."

_BASE_OFFSET: Final = struct.Struct(">q")
_BUILDER_BYTES: Final = 1 << 30

_ABORTED, _OTHER = 7, 8
"""Producers: one whose transaction is aborted, and another one."""

_log = logging.getLogger(__name__)


class Sample(NamedTuple):
    """A record, as the client's builder takes it; the offset counts from its batch's first one."""

    offset_delta: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()


_AT_MS: Final = 1_767_225_600_000
_ROWS: Final = [
    Sample(0, _AT_MS, b"c1", b'{"customer_id":"c1"}'),
    Sample(1, _AT_MS - 5, None, None),
    Sample(4, -1, b"", b"", [("content-type", b"application/json")]),
    Sample(5, _AT_MS, b"k" * 200, b"v" * 20_000, [("", None), ("\u00fc", b"\xff" * 70)]),
    *(Sample(at, _AT_MS + at, b"c%d" % at, b'{"order_id":%d}' % at) for at in range(6, 100)),
]
_MARKER: Final = [Sample(0, _AT_MS, bytes(4), bytes(6))]
"""Of an abort: version 0, type 0."""


def choose_path() -> None:
    """Take the raw path if it can be trusted here, else say so and take the ordinary one.

    Takes milliseconds, or seconds where its kernels have to be compiled.
    """
    trouble = None
    if not aiokafka.__version__.startswith(KNOWN_VERSION):
        trouble = f"aiokafka {aiokafka.__version__} is not known"
    elif not reads_alike():
        trouble = "a sample was read differently"
    if trouble is not None:
        _log.warning("records are read one by one, which takes more time: %s", trouble)
    install(is_raw=trouble is None)


def reads_alike() -> bool:
    """Return whether a sample, with all that a fetch may hold, is the same by both paths."""
    data = _sample()
    try:
        for offset in (0, 2):
            aborted = [(_ABORTED, 0)]
            parts = [read_fetch(data, offset, aborted, is_raw=is_raw) for is_raw in (True, False)]
            if not _is_raw(parts[0]) or not _are_same(*parts):
                return False
            if not _are_same(joined([parts[0], parts[0]]), joined([parts[1], parts[1]])):
                return False
    except Exception as error:  # noqa: BLE001 - of what kind an unknown client's errors are is not known
        _log.debug("the sample cannot be read: %r", error)
        return False
    return True


def built_batch(
    rows: Sequence[Sample],
    *,
    base_offset: int = 0,
    attributes: int = 0,
    codec: int = 0,
    producer_id: int = -1,
) -> bytes:
    """Return a record batch as the client builds it, as it is in a log.

    In      attributes  that are set beside the codec's
    """
    builder: Any = DefaultRecordBatchBuilder(2, codec, 0, producer_id, 0, 0, _BUILDER_BYTES)
    for row in rows:
        builder.append(*row[:4], list(row.headers))
    batch = bytearray(builder.build())
    _BASE_OFFSET.pack_into(batch, 0, base_offset)
    batch[ATTRIBUTES_AT] |= attributes
    return with_checksum(batch)


def with_checksum(batch: bytearray) -> bytes:
    """Return a batch with the checksum its bytes have."""
    CRC.pack_into(batch, CRC_AT, crc32c(bytes(batch[CHECKED_FROM:])))
    return bytes(batch)


def _sample() -> bytes:
    """Return a fetch: every codec, both times, an aborted transaction with its marker, the beginning of a batch."""
    kinds: list[tuple[Sequence[Sample], dict[str, int]]] = [
        *((_ROWS, {"codec": codec}) for codec in range(5)),
        (_ROWS, {"attributes": TRANSACTIONAL, "producer_id": _ABORTED}),
        (_ROWS, {"attributes": TRANSACTIONAL, "producer_id": _OTHER}),
        (_MARKER, {"attributes": TRANSACTIONAL | CONTROL, "producer_id": _ABORTED}),
        (_ROWS, {"attributes": TRANSACTIONAL, "producer_id": _ABORTED}),
        (_ROWS, {"attributes": LOG_APPEND_TIME}),
    ]
    begins = accumulate((rows[-1].offset_delta + 1 for rows, _ in kinds), initial=0)
    batches = [
        built_batch(rows, base_offset=begin, **options)
        for (rows, options), begin in zip(kinds, begins, strict=False)
    ]
    return b"".join([*batches, batches[0][:-1]])


def _is_raw(records: RawRecords) -> bool:
    return isinstance(records.values, Spans) and isinstance(records.headers, HeaderSpans)


def _are_same(raw: RawRecords, ordinary: RawRecords) -> bool:
    values, headers = raw.values, raw.headers
    assert isinstance(values, Spans)
    assert isinstance(headers, HeaderSpans)
    return (
        _as_lists(raw) == _as_lists(ordinary)
        and values.gathered(0).tobytes() == b"".join(filter(None, ordinary.values))
        and headers.mapped(len).tolist() == list(map(len, ordinary.headers))
    )


def _as_lists(records: RawRecords) -> list[Any]:
    headers = [list(each) for each in records.headers]
    columns = (records.keys, records.values, records.timestamps_ms, records.offsets)
    return [headers, *map(list, columns), records.position]
