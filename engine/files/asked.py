"""What an Arrow stream or file says that its compressed buffers become.

Source  Arrow's columnar format, "Serialization and Interprocess Communication"; FlatBuffers' internals
"""

import struct
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from rfmstream.engine.files.memory import check_asked
from rfmstream.kernels.arrow_streams import unpacked_bytes

_LENGTHS: Final = struct.Struct("<II")
_MARK: Final = 0xFFFFFFFF
_FILE_MARK_BYTES: Final = 8
_HEADER_TYPE, _HEADER, _BODY_BYTES = 1, 2, 3
_DICTIONARY_BATCH: Final = 2
_DICTIONARY_DATA: Final = 1
_COMPRESSION: Final = 3
_OLD_KEY: Final = b"experimental_compression"


def check_arrow(source: pa.NativeFile, name: str | Path, *, is_file: bool) -> None:
    """Refuse an Arrow stream or file one of whose batches asks for more memory than it may.

    Errors  InputError
    """
    at = _FILE_MARK_BYTES if is_file else 0
    size = source.size()
    while at < size:
        source.seek(at)
        head = source.read(_LENGTHS.size)
        if len(head) < _LENGTHS.size:
            break
        mark, length = _LENGTHS.unpack(head)
        before = _LENGTHS.size if mark == _MARK else 4
        length = length if mark == _MARK else mark
        source.seek(at + before)
        metadata = source.read(length) if 0 < length < size else b""
        body_bytes, is_compressed = _look_at(metadata)
        if not metadata or not 0 <= body_bytes <= size:
            break  # the end, or what the reader will find to be damaged
        if is_compressed:
            source.seek(at)
            message = source.read(before + length + body_bytes)
            check_asked(int(unpacked_bytes(np.frombuffer(message, np.uint8))), " in one batch", name)
        at += before + length + body_bytes


def _look_at(metadata: bytes) -> tuple[int, bool]:
    """Return how long a message's body is, and whether it is compressed."""
    try:
        message = _number("<I", metadata, 0)
        body = _field(metadata, message, _BODY_BYTES)
        batch = _followed(metadata, _field(metadata, message, _HEADER))
        kind = _field(metadata, message, _HEADER_TYPE)
        if kind and metadata[kind] == _DICTIONARY_BATCH:
            batch = _followed(metadata, _field(metadata, batch, _DICTIONARY_DATA))
        is_compressed = _field(metadata, batch, _COMPRESSION) != 0 or _OLD_KEY in metadata
        return (_number("<q", metadata, body) if body else 0), is_compressed
    except (struct.error, IndexError):
        return 0, False


def _field(data: bytes, table: int, number: int) -> int:
    """Return where a field of a table stands; 0: it does not."""
    fields = table - _number("<i", data, table)
    if fields < 0 or 4 + 2 * number >= _number("<H", data, fields):
        return 0
    distance = _number("<H", data, fields + 4 + 2 * number)
    return table + distance if distance else 0


def _followed(data: bytes, at: int) -> int:
    return at + _number("<I", data, at)


def _number(form: str, data: bytes, at: int) -> int:
    number: int = struct.unpack_from(form, data, at)[0]
    return number
