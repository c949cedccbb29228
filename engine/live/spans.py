"""Keys, values and headers of many records, as places in the bytes of a fetch: an object is made when asked for."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import accumulate
from typing import Any, Final, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from rfmstream.engine.events.instants import LAST_US
from rfmstream.engine.live.model import Headers, RawRecords, Rejection
from rfmstream.kernels.record_batches import LINE_BYTES, gather, number_runs
from rfmstream.schemas.codes import NEVER_US

_MORE: Final = 0x80
_MS_US: Final = 1000
_NBYTES: Final = "nbytes"
_NO_HEADERS: Final = b"\0"
"""The bytes of a record's headers where it has none."""


class Piece(NamedTuple):
    """Byte strings within one buffer.

    Fields  data    u8[]
            starts  i64[n]
            sizes   i64[n], -1 where there is none
    """

    data: NDArray[np.uint8]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]


class Spans(Sequence["bytes | None"]):
    """A sequence of byte strings or None, each a place in a buffer that nobody may change.

    Fields  pieces  in order, none of them empty
    """

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self.pieces = pieces
        self._ends = list(accumulate(len(piece.starts) for piece in pieces))

    @classmethod
    def joined(cls, several: Sequence["Spans"]) -> "Spans":
        """Return strings one behind the other; their bytes are not counted again."""
        made = cls([piece for each in several for piece in each.pieces])
        if all(_NBYTES in vars(each) for each in several):
            vars(made)[_NBYTES] = sum(each.nbytes for each in several)
        return made

    @cached_property
    def nbytes(self) -> int:
        """The bytes of all strings together."""
        return sum(int(np.maximum(piece.sizes, 0).sum()) for piece in self.pieces)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, at: int) -> bytes | None: ...
    @overload
    def __getitem__(self, at: slice) -> "list[bytes | None]": ...
    def __getitem__(self, at: int | slice) -> "bytes | list[bytes | None] | None":
        if isinstance(at, slice):
            return [self[each] for each in range(*at.indices(len(self)))]
        place = range(len(self))[at]
        number = bisect_right(self._ends, place)
        data, starts, sizes = self.pieces[number]
        place -= self._ends[number]
        start, size = int(starts[place]), int(sizes[place])
        return None if size < 0 else data[start : start + size].tobytes()

    def cut_out(self, start: int, stop: int) -> "Spans":
        """Return the strings from one to before another, within the same bytes."""
        firsts = [end - len(piece.starts) for piece, end in zip(self.pieces, self._ends, strict=True)]
        cuts = [
            (piece, slice(max(start - first, 0), max(stop - first, 0)))
            for piece, first in zip(self.pieces, firsts, strict=True)
        ]
        cut = [Piece(piece.data, piece.starts[within], piece.sizes[within]) for piece, within in cuts]
        return Spans([piece for piece in cut if len(piece.starts)])

    def sizes(self) -> NDArray[np.int64]:
        """Return i64[n], the bytes of each string; -1: there is none."""
        return np.concatenate([np.empty(0, np.int64), *(piece.sizes for piece in self.pieces)])

    def gathered(self, pad: int, sizes: NDArray[np.int64] | None = None) -> NDArray[np.uint8]:
        """Return the strings one after another, and `pad` zeros behind them.

        sizes  i64[n], those of `sizes()` but for strings that are left out, which have none above 0; None: all
        """
        sizes = self.sizes() if sizes is None else sizes
        out = np.empty(int(np.maximum(sizes, 0).sum()) + max(pad, LINE_BYTES), np.uint8)
        at = 0
        for (data, starts, _), end in zip(self.pieces, self._ends, strict=True):
            at = int(gather(data, starts, sizes[end - len(starts) : end], out, at))
        out[at:] = 0
        return out[: at + pad]


class HeaderSpans(Sequence[Headers]):
    """The headers of records, read when they are asked for.

    In      raw  the headers' bytes: how many there are, and the bytes of each; none is None
    """

    def __init__(self, raw: Spans) -> None:
        self.raw = raw

    def __len__(self) -> int:
        return len(self.raw)

    @overload
    def __getitem__(self, at: int) -> Headers: ...
    @overload
    def __getitem__(self, at: slice) -> list[Headers]: ...
    def __getitem__(self, at: int | slice) -> Headers | list[Headers]:
        if isinstance(at, slice):
            return [self[each] for each in range(*at.indices(len(self)))]
        raw = self.raw[at]
        assert raw is not None, "a record has headers, if only none of them"
        return _headers(raw)

    def mapped(self, function: Callable[[Headers], int]) -> NDArray[np.uint8]:
        """Return u8[n], a function of each record's headers; it is asked once for headers of the same bytes."""
        known: dict[bytes | None, int] = {}
        found = []
        for piece in self.raw.pieces:
            if piece.sizes.max() <= len(_NO_HEADERS):
                if _NO_HEADERS not in known:
                    known[_NO_HEADERS] = function(())
                found.append(np.full(len(piece.sizes), known[_NO_HEADERS], np.uint8))
                continue
            runs = np.empty(len(piece.starts), np.int64)
            number_runs(*piece, runs)
            strings = Spans([piece])
            values = np.empty(len(runs), np.uint8)
            for first in np.flatnonzero(runs == np.arange(len(runs))).tolist():
                raw = strings[first]
                if raw not in known:
                    known[raw] = function(_headers(raw or _NO_HEADERS))
                values[first] = known[raw]
            found.append(values[runs])
        return np.concatenate([np.empty(0, np.uint8), *found])


def value_bytes(records: RawRecords) -> int:
    """Return the bytes of all values of records together."""
    values = records.values
    return values.nbytes if isinstance(values, Spans) else sum(map(len, filter(None, values)))


def cut_by_bytes(records: RawRecords, bytes_max: int) -> Iterator[RawRecords]:
    """Yield records in parts: the values of a part have at most so many bytes together, or it is one record."""
    if value_bytes(records) <= bytes_max:
        yield records
        return
    ends = np.cumsum(np.maximum(sizes_of(records.values), 0))
    first, count = 0, len(ends)
    while first < count:
        before = int(ends[first - 1]) if first else 0
        stop = max(int(np.searchsorted(ends, before + bytes_max, "right")), first + 1)
        yield cut_out(records, first, stop)
        first = stop


def cut_out(records: RawRecords, first: int, stop: int) -> RawRecords:
    """Return the records of ordinals [first, stop)."""
    return RawRecords(
        keys=_part(records.keys, first, stop),
        values=_part(records.values, first, stop),
        headers=_part_of_headers(records.headers, first, stop),
        timestamps_ms=records.timestamps_ms[first:stop],
        offsets=records.offsets[first:stop],
        position=int(records.offsets[stop]) if stop < len(records.offsets) else records.position,
    )


def sizes_of(values: Sequence[bytes | None]) -> NDArray[np.int64]:
    """Return i64[n], the bytes of each value; what is not above 0 has none."""
    if isinstance(values, Spans):
        return values.sizes()
    return np.fromiter((len(value or b"") for value in values), np.int64, len(values))


def _part(values: Sequence[bytes | None], first: int, stop: int) -> Sequence[bytes | None]:
    return values.cut_out(first, stop) if isinstance(values, Spans) else values[first:stop]


def _part_of_headers(headers: Sequence[Headers], first: int, stop: int) -> Sequence[Headers]:
    if isinstance(headers, HeaderSpans):
        return HeaderSpans(headers.raw.cut_out(first, stop))
    return headers[first:stop]


def integers(values: Sequence[int]) -> NDArray[np.int64]:
    """Return i64[n]; of a memoryview, the same memory."""
    return np.asarray(values, np.int64)


def times_us(records: RawRecords, first: int = 0, stop: int | None = None) -> NDArray[np.int64]:
    """Return the times of records in µs; NEVER_US for one that was not given: -1, or what is no instant."""
    ms = integers(records.timestamps_ms[first:stop])
    is_given = (ms >= 0) & (ms <= LAST_US // _MS_US)
    return np.where(is_given, ms * _MS_US, NEVER_US)


def rejection(records: RawRecords, record: int, place: int, reason: str, original: bytes | None) -> Rejection:
    """Return the rejection of a row, by its record's ordinal and its place in it."""
    # The time of its own record: that of those before it depends on where they were cut into batches.
    return Rejection(
        reason=reason,
        key=records.keys[record],
        original=original,
        offset=int(records.offsets[record]),
        row=place,
        log_us=int(times_us(records, record, record + 1)[0]),
    )


def _headers(raw: bytes) -> Headers:
    """Return the headers whose bytes a kernel has found to be whole."""
    count, at = _varint(raw, 0)
    headers: list[tuple[str, Any]] = []
    for _ in range(count):
        size, at = _varint(raw, at)
        # Brokers do not check that names are UTF-8.
        name = raw[at : at + size].decode("utf-8", "replace")
        at += size
        size, at = _varint(raw, at)
        headers.append((name, None if size < 0 else raw[at : at + size]))
        at += max(size, 0)
    return headers


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while raw[at] & _MORE:
        value |= (raw[at] & ~_MORE) << shift
        shift += 7
        at += 1
    value |= raw[at] << shift
    return (value >> 1) ^ -(value & 1), at + 1
