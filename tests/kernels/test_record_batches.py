"""Record batches in place: what is found is what was written, and nothing outside the bytes is looked at."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka_batches import LOG_APPEND_TIME, Batch, Record, shifted, varint
from schedules import some

from rfmstream.kernels.record_batches import (
    COLUMNS,
    HEADER_BYTES,
    HEADERS,
    HEADERS_BYTES,
    KEY,
    KEY_BYTES,
    LINE_BYTES,
    OFFSET,
    TIME_MS,
    UNUSUAL,
    VALUE,
    VALUE_BYTES,
    count_records,
    gather,
    has_byte,
    index_records,
    number_runs,
)

GUARD = 64
"""Bytes around what a kernel may read, of a kind that would lead it astray."""

texts = st.none() | st.binary(max_size=80)
records = st.lists(
    st.builds(
        Record,
        st.integers(0, 1000),
        st.integers(-(2**40), 2**40),
        texts,
        texts,
        st.lists(st.tuples(st.binary(max_size=5), texts), max_size=2),
    ),
    max_size=5,
    unique_by=lambda record: record.delta,
).map(lambda some: sorted(some, key=lambda record: record.delta))


def guarded(data: bytes) -> np.ndarray:
    whole = np.frombuffer(b"\xff" * GUARD + data + b"\xff" * GUARD, np.uint8)
    return whole[GUARD : GUARD + len(data)]


def indexed(parts: Sequence[bytes], first_offset: int = 0) -> np.ndarray | None:
    """Return the columns of batches; None: they are unusual."""
    ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
    starts = np.append(0, ends[:-1])[: len(parts)]
    data = guarded(b"".join(parts))
    count = count_records(data, starts, ends)
    if count == UNUSUAL:
        return None
    assert count * 7 <= len(data)
    columns = np.empty((COLUMNS, count), np.int64)
    found = index_records(data, starts, ends, first_offset, columns)
    return None if found == UNUSUAL else columns[:, :found]


def cut(data: bytes, start: int, size: int) -> bytes | None:
    return None if size < 0 else data[start : start + size]


@settings(max_examples=some(300), deadline=None)
@given(
    several=st.lists(records, max_size=3),
    gap=st.integers(0, 3),
    first=st.integers(0, 1500),
    log=st.booleans(),
)
def test_every_record_is_found(several: list[list[Record]], gap: int, first: int, *, log: bool) -> None:
    attributes = LOG_APPEND_TIME if log else 0
    batches = shifted([Batch(0, some, attributes=attributes) for some in several], [gap] * len(several))
    parts = [batch.encoded() for batch in batches]
    data, columns = b"".join(parts), indexed(parts, first)
    assert columns is not None
    written = [(batch, record) for batch in batches for record in batch.records]
    written = [(batch, record) for batch, record in written if batch.base + record.delta >= first]
    assert columns[OFFSET].tolist() == [batch.base + record.delta for batch, record in written]
    assert columns[TIME_MS].tolist() == [
        batch.max_ms if log else batch.first_ms + record.time_delta for batch, record in written
    ]
    for (_, record), row in zip(written, columns.T.tolist(), strict=True):
        assert cut(data, row[KEY], row[KEY_BYTES]) == record.key
        assert cut(data, row[VALUE], row[VALUE_BYTES]) == record.value
        raw = cut(data, row[HEADERS], row[HEADERS_BYTES])
        assert raw is not None
        assert record.encoded().endswith(raw)
        assert raw.startswith(varint(len(record.headers)))
        assert (len(raw) == 1) == (not record.headers)


@settings(max_examples=some(500), deadline=None)
@given(
    some=records,
    damage=st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), max_size=3),
    size=st.integers(HEADER_BYTES, 700),
)
def test_damage_leads_nowhere_else(some: list[Record], damage: Sequence[tuple[int, int]], size: int) -> None:
    data = bytearray(Batch(0, some).encoded())
    for at, byte in damage:
        data[at % len(data)] = byte
    columns = indexed([bytes(data[:size])])
    if columns is not None:
        kept = min(size, len(data))
        for start, sizes in ((KEY, KEY_BYTES), (VALUE, VALUE_BYTES), (HEADERS, HEADERS_BYTES)):
            ends = columns[start] + np.maximum(columns[sizes], 0)
            assert ((columns[start] >= HEADER_BYTES) & (ends <= kept)).all()
        assert (np.diff(columns[OFFSET]) > 0).all()


LONG = b"\x80" * 9 + b"\0"
"""A zero in ten bytes: one more than any length takes."""


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"\x80",
        LONG,
        varint(-1),
        varint(100),
        varint(5) + bytes(5),
        varint(6) + b"\0\0\0\1\1\1",
        varint(6) + b"\0\0\0\1\1\2",
        varint(7) + b"\0\0\0\1\1\0\0",
        varint(6) + b"\0\0\1\1\1\0",
        varint(6) + b"\0\0\0" + varint(63) + b"\1\0",
        varint(14) + b"\0\0\0" + varint((1 << 62) - 1) + b"\1\0",
        varint(15) + b"\0" + LONG + b"\0\1\1\0",
        varint(7) + b"\0\0\0\1\1\2\1",
        varint(8) + b"\0\0\0\1\1\2\0\x06",
    ],
)
def test_what_is_wrong_with_a_record_is_unusual(record: bytes) -> None:
    header = Batch(0, [], count=1).encoded()
    assert indexed([header + record]) is None
    # With room for one, too.
    assert indexed([header + record + b"\xff" * 7]) is None


@pytest.mark.parametrize("count", [-1, 2, 1 << 30])
def test_a_count_has_to_have_room(count: int) -> None:
    assert indexed([Batch(0, [Record(0)], count=count).encoded()]) is None


def test_the_smallest_record_is_one() -> None:
    columns = indexed([Batch(5, [Record(0)]).encoded()])
    assert columns is not None
    assert columns[:, 0].tolist() == [5, 1_767_225_600_000, 66, -1, 67, -1, 67, 1]


@settings(max_examples=some(200), deadline=None)
@given(
    strings=st.lists(texts, max_size=8),
    between=st.integers(0, 40),
    at=st.integers(0, 5),
)
def test_strings_are_gathered(strings: list[bytes | None], between: int, at: int) -> None:
    data, starts = bytearray(), []
    for string in strings:
        data += bytes(between)
        starts.append(len(data))
        data += string or b""
    sizes = np.array([-1 if string is None else len(string) for string in strings], np.int64)
    whole = b"".join(filter(None, strings))
    out = np.full(at + len(whole) + LINE_BYTES, 7, np.uint8)
    end = gather(guarded(bytes(data)), np.array(starts, np.int64), sizes, out, at)
    assert out[:end].tobytes() == b"\7" * at + whole


@settings(max_examples=some(200), deadline=None)
@given(strings=st.lists(st.sampled_from([b"", b"a", b"b", b"ab", b"a" * 50, b"a" * 49 + b"b"]), max_size=8))
def test_runs_of_equal_strings(strings: list[bytes]) -> None:
    sizes = np.array([len(string) for string in strings], np.int64)
    runs = np.empty(len(strings), np.int64)
    number_runs(guarded(b"".join(strings)), np.cumsum(sizes) - sizes, sizes, runs)
    expected: list[int] = []
    for at, string in enumerate(strings):
        expected.append(expected[-1] if at and strings[at - 1] == string else at)
    assert runs.tolist() == expected


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 10_000])
def test_a_byte_is_found_within_the_bytes_only(size: int) -> None:
    data = np.zeros(size + 1, np.uint8)
    data[size] = 10
    assert not has_byte(data, size, np.uint8(10))
    assert has_byte(data, size + 1, np.uint8(10))
    if size:
        data[0] = 10
        assert has_byte(data, size, np.uint8(10))
