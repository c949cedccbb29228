"""How much an Arrow IPC stream asks for: a walk over its messages, before anything is unpacked.

Nothing is read outside the bytes of a stream, whatever they hold.

Source  Arrow's columnar format, "Serialization and Interprocess Communication", and its Message.fbs
        https://arrow.apache.org/docs/format/Columnar.html; FlatBuffers' internals
"""

from typing import Final

import numpy as np

from rfmstream.kernels._jit import jit, part

DAMAGED: Final = -1

_ABSENT: Final = 0
"""No field stands at 0: a stream begins with the length of its first message."""

_MUCH: Final = 1 << 56
_VERSION, _KIND, _HEADER, _BODY_BYTES = 0, 1, 2, 3
"""Fields of a message."""

_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3
_DICTIONARY_DATA: Final = 1
_BUFFERS, _COMPRESSION = 2, 3
"""Fields of a record batch."""

_V4: Final = 3
_OLD_KEY: Final = np.frombuffer(b"experimental_compression", np.uint8)
"""A key of a message's metadata, by which the version before said that a batch is compressed."""


@jit
def unpacked_bytes(data):
    """Return how long the compressed buffers of a stream say they are together; DAMAGED where a message is not whole.

    In      data u8[]  ro
    """
    end, at, total = len(data), 0, 0
    while at < end:
        size = _integer(data, at, 4, end)
        at += 4
        if size == 0xFFFFFFFF:
            size = _integer(data, at, 4, end)
            at += 4
        if size == 0:
            return total
        body = at + size
        if size < 0 or body > end:
            return DAMAGED
        message = _follow(data, at, body)
        body_bytes = _number(data, message, _BODY_BYTES, 8, at, body)
        if body_bytes < 0 or body_bytes > end - body:
            return DAMAGED
        found = _of_message(data, message, at, body, body + body_bytes)
        if found < 0:
            return DAMAGED
        total = min(total + found, _MUCH)
        at = body + body_bytes
    return total


@part
def _of_message(data, message, start, body, end):
    """Return how long the compressed buffers of a message say they are.

    In      message  where its table begins; its metadata is [start, body), its body [body, end)
    """
    kind = _number(data, message, _KIND, 1, start, body)
    if kind not in (_DICTIONARY_BATCH, _RECORD_BATCH):
        return min(kind, 0)
    batch = _follow(data, _field(data, message, _HEADER, start, body), body)
    if kind == _DICTIONARY_BATCH:
        batch = _follow(data, _field(data, batch, _DICTIONARY_DATA, start, body), body)
    compression = _field(data, batch, _COMPRESSION, start, body)
    if compression == _ABSENT:
        version = _number(data, message, _VERSION, 2, start, body)
        if version != _V4 or not _holds(data, start, body, _OLD_KEY):
            return 0
    buffers = _follow(data, _field(data, batch, _BUFFERS, start, body), body)
    count = _integer(data, buffers, 4, body)
    if compression < 0 or count < 0 or count * 16 > body - buffers - 4:
        return DAMAGED
    total = 0
    for i in range(count):
        offset = _integer(data, buffers + 4 + 16 * i, 8, body)
        # Before they are added: their sum may lie beyond int64.
        at = body + offset if 0 <= offset <= end - body else np.int64(-1)
        if _integer(data, buffers + 12 + 16 * i, 8, body) >= 8:
            if at < body or at > end - 8:
                return DAMAGED
            # -1 stands before a buffer that is not compressed.
            total = min(total + min(max(_integer(data, at, 8, end), 0), _MUCH), _MUCH)
    return total


@part
def _integer(data, at, size, end):
    """Return a little-endian integer, without a sign if it has less than 8 bytes; -1: it is not within [0, end)."""
    if at < 0 or at > end - size:
        return -1
    value = 0
    for k in range(size):
        value |= np.int64(data[at + k]) << (8 * k)
    return value


@part
def _follow(data, at, end):
    """Return where a table or vector begins whose distance stands at `at`; -1: nowhere."""
    distance = _integer(data, at, 4, end)
    return at + distance if at != _ABSENT and distance >= 0 else -1


@part
def _field(data, table, number, start, end):
    """Return where a field of a table stands; ABSENT where it does not, -1 where the table is damaged."""
    back = _integer(data, table, 4, end)
    if back < 0:
        return -1
    fields = table - ((back ^ 0x80000000) - 0x80000000)
    size = _integer(data, fields, 2, end) if fields >= start else -1
    if size < 0:
        return -1
    distance = _integer(data, fields + 4 + 2 * number, 2, end) if 4 + 2 * number < size else 0
    return table + distance if distance > 0 else min(distance, 0)


@part
def _number(data, table, number, size, start, end):
    """Return an integer field; 0 where it is absent, -1 where the table is damaged."""
    at = _field(data, table, number, start, end)
    return _integer(data, at, size, end) if at != _ABSENT else 0


@part
def _holds(data, start, end, text):
    """Return whether a text is in the bytes [start, end)."""
    same = 0
    for at in range(start, end):
        # No beginning of the text comes again within it but its first letter.
        same = same + 1 if data[at] == text[same] else int(data[at] == text[0])
        if same == len(text):
            return True
    return False
