"""Kafka's record batch, format v2: the layout of its header, and its checksum.

Source  Kafka's protocol guide, "Record Batch"
"""

import struct
from collections.abc import Callable
from functools import reduce
from typing import Any, Final

import google_crc32c
from aiokafka.record.util import calc_crc32c

MAGIC: Final = 2

HEADER: Final = struct.Struct(">qiibIhiqqqhii")
"""Base offset, length, leader epoch, magic, checksum, attributes, last offset delta, first and newest time, producer's
id and epoch, base sequence, number of records."""

LENGTH: Final = struct.Struct(">i")
LENGTH_AT: Final = 8
BEFORE_LENGTH: Final = 12
"""Bytes that the length does not count."""

MAGIC_AT: Final = 16
CRC: Final = struct.Struct(">I")
CRC_AT: Final = 17
CHECKED_FROM: Final = 21
ATTRIBUTES_AT: Final = 22
"""The lower byte of them, which has all that are in use."""

PRODUCER: Final = struct.Struct(">qhi")
PRODUCER_AT: Final = 43

CODEC: Final = 0x07
LOG_APPEND_TIME: Final = 0x08
TRANSACTIONAL: Final = 0x10
CONTROL: Final = 0x20


def _extended(*parts: Any) -> int:  # noqa: ANN401 - bytes or arrays of them
    return reduce(google_crc32c.extend, parts, 0)


def _joined(*parts: Any) -> int:  # noqa: ANN401
    return int(calc_crc32c(b"".join(parts)))


crc32c: Final[Callable[..., int]] = _extended if google_crc32c.implementation == "c" else _joined
"""The checksum of parts one after another, bytes or u8[]; ten times as fast as aiokafka's own where it is compiled."""
