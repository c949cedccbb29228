"""How far a partition has been delivered, and what of that a commit can say.

Kafka keeps one offset a partition and group, and a short text beside it. The offset is the lowest that is unfinished;
the text names the later ones that are finished, so that a restart does not send them again.
"""

import base64
import binascii
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final

METADATA_CHARACTERS_MAX: Final = 3800
"""A broker takes 4,096 (offset.metadata.max.bytes)."""

_MARK: Final = "d1:"


class Progress:
    """The offsets of one partition that were begun and are unfinished, and those finished ahead of them."""

    def __init__(self, position: int) -> None:
        self.position = position
        self._begun: deque[int] = deque()
        self._finished: set[int] = set()

    def __len__(self) -> int:
        return len(self._begun)

    @property
    def lowest(self) -> int:
        """The lowest unfinished offset; the position where there is none."""
        return self._begun[0] if self._begun else self.position

    def begin(self, offset: int) -> None:
        """Take note of the next record."""
        self._begun.append(offset)
        self.position = offset + 1

    def skip(self, position: int) -> None:
        """Take note that there is nothing to do up to a position."""
        self.position = max(self.position, position)

    def finish(self, offset: int) -> None:
        """Take note that nothing remains to be done for a record that was begun."""
        begun, finished = self._begun, self._finished
        if begun[0] != offset:
            finished.add(offset)
            return
        begun.popleft()
        while finished and begun[0] in finished:
            finished.remove(begun.popleft())

    def metadata(self) -> str:
        """Return the text that names the offsets finished ahead of the lowest unfinished one, as far as it can."""
        return encode_finished(self._finished, self.lowest) if self._finished else ""


def encode_finished(finished: Iterable[int], lowest: int) -> str:
    """Write offsets beyond `lowest` as runs: the gap before each and its length, of 7 bits a byte, in base 64."""
    data = bytearray()
    room = METADATA_CHARACTERS_MAX * 3 // 4 - 8
    at = lowest
    for first, last in _runs(finished):
        run = _varint(first - at) + _varint(last - first)
        if len(data) + len(run) > room:
            break
        data += run
        at = last
    return _MARK + base64.b64encode(data).decode()


def decode_finished(metadata: str, lowest: int) -> set[int]:
    """Return the offsets that `encode_finished` wrote; none of a text that it did not write."""
    if not metadata.startswith(_MARK):
        return set()
    try:
        data = base64.b64decode(metadata[len(_MARK) :], validate=True)
    except binascii.Error:
        return set()
    numbers = list(_numbers(data))
    finished: set[int] = set()
    at = lowest
    for gap, more in zip(numbers[::2], numbers[1::2], strict=False):
        finished.update(range(at + gap, at + gap + more + 1))
        at += gap + more
    return finished


def _runs(offsets: Iterable[int]) -> Iterator[tuple[int, int]]:
    first = last = -1
    for offset in sorted(offsets):
        if first < 0:
            first = last = offset
        elif offset == last + 1:
            last = offset
        else:
            yield first, last
            first = last = offset
    if first >= 0:
        yield first, last


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _numbers(data: bytes) -> Iterator[int]:
    value = shift = 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            yield value
            value = shift = 0
