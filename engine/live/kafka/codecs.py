"""Decompression with a bound: a batch of some kilobytes may decompress to gigabytes.

Output is counted while it is made, so a batch that holds too much takes no more memory than the bound. aiokafka's own
functions have no bound. `bound_the_client` puts these in their place, for the batches that aiokafka reads itself.

Source  Kafka's protocol guide, "Record Batch"; aiokafka (0.14, aiokafka/codec.py) for the two frames of snappy
"""

import importlib
from collections.abc import Iterator
from typing import Any, Final

import cramjam
import pyarrow as pa
from aiokafka.errors import CorruptRecordException

BATCH_BYTES_MAX: Final = 64 << 20
"""What a batch may be when it is decompressed, where the settings allow no longer records: producers fill batches of
16 KiB to some MiB, as they are before compression."""
BATCH_RECORDS_MAX: Final = 1 << 19
"""How many records a batch may hold: as many orders of 60 bytes take half of that."""

NAMES: Final = {1: "gzip", 2: "snappy", 3: "lz4", 4: "zstd"}

_FIRST_READ: Final = 1 << 16
_USUAL_RATIO: Final = 16
_GROWTH: Final = 4
_XERIAL: Final = b"\x82SNAPPY\0" + bytes((0, 0, 0, 1, 0, 0, 0, 1))
"""How a frame of snappy begins: with the only version there is, twice. What begins otherwise is a block by itself."""
_LENGTH_BYTES: Final = 4


class TooLargeError(CorruptRecordException):
    """A batch that is refused for its decompressed size; a retry would end alike."""


class DamagedError(CorruptRecordException):
    """Bytes that the codec cannot read."""


def refusal(first: int, last: int) -> bytes:
    """Return what stands in the place of the records of a batch that is refused: text that is no order.

    In      first, last  its offsets
    """
    return (
        f"offsets {first} to {last} are one batch that was not read: it holds more than may be decompressed at once"
    ).encode()


def decode(codec: int, data: bytes, bytes_max: int) -> bytes:
    """Return the records of a batch.

    In      codec  of NAMES
    Errors  TooLargeError  they are more than `bytes_max`
            DamagedError   they are not what the codec writes
    """
    try:
        pieces = list(
            _snappy(data, bytes_max) if NAMES.get(codec) == "snappy" else _stream(codec, data, bytes_max)
        )
    except (OSError, ValueError, KeyError, cramjam.DecompressionError) as error:
        raise DamagedError(f"the records of a batch cannot be decompressed: {error}") from error
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _stream(codec: int, data: bytes, bytes_max: int) -> Iterator[bytes]:
    """Yield pieces: the first one is all of what is usual, each next one is larger."""
    if not data:
        raise DamagedError("a batch that is compressed has no bytes")
    left, size = bytes_max, max(_FIRST_READ, _USUAL_RATIO * len(data))
    with pa.CompressedInputStream(pa.BufferReader(data), NAMES[codec]) as stream:
        # One byte beyond the bound shows that there is more.
        while piece := stream.read(min(size, left + 1)):
            left -= len(piece)
            if left < 0:
                raise TooLargeError
            yield piece
            size *= _GROWTH


def _snappy(data: bytes, bytes_max: int) -> Iterator[bytes]:
    """Yield the blocks of a frame, or what has none; each says its size before it is read."""
    left = bytes_max
    for block in _blocks(data):
        left -= int(cramjam.snappy.decompress_raw_len(block))
        if left < 0:
            raise TooLargeError
        yield bytes(cramjam.snappy.decompress_raw(block))


def _blocks(data: bytes) -> Iterator[bytes]:
    if not data.startswith(_XERIAL):
        yield data
        return
    at = len(_XERIAL)
    while at < len(data):
        size = int.from_bytes(data[at : at + _LENGTH_BYTES], "big", signed=True)
        at += _LENGTH_BYTES
        if not 0 < size <= len(data) - at:
            raise DamagedError("a block of snappy is cut off")
        yield data[at : at + size]
        at += size


def bound_the_client(bytes_max: int) -> None:
    """Let aiokafka's readers of records, of both formats and whether compiled or not, decompress no more than that."""

    def bounded(codec: int) -> Any:  # noqa: ANN401 - a function of theirs
        return lambda data: decode(codec, bytes(data), bytes_max)

    for module in (
        "default_records",
        "legacy_records",
        "_crecords.default_records",
        "_crecords.legacy_records",
    ):
        try:
            reader = importlib.import_module(f"aiokafka.record.{module}")
        except ImportError:  # not compiled here
            continue
        for codec, name in NAMES.items():
            if hasattr(reader, f"{name}_decode"):
                setattr(reader, f"{name}_decode", bounded(codec))
