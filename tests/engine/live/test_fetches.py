"""Whole fetches by the raw path: the same records as by the client's own, and the same errors."""

import gc
import logging
import sys
from collections.abc import Iterable, Sequence

import aiokafka
import numpy as np
import pytest
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException, UnsupportedCodecError
from hypothesis import given, settings
from hypothesis import strategies as st
from json_texts import GOOD, texts
from kafka_batches import (
    ABORT,
    COMMIT,
    CONTROL,
    LOG_APPEND_TIME,
    TRANSACTIONAL,
    Aborted,
    Batch,
    Record,
    as_lists,
    check_paths_agree,
    is_raw,
    marker,
    read,
    shifted,
    with_checksums,
)
from schedules import some

from rfmstream.engine.live.decode import Decoder
from rfmstream.engine.live.kafka import fetches, raw_check
from rfmstream.engine.live.kafka.fetches import install, joined, read_fetch
from rfmstream.engine.live.model import LogBatch, RawRecords, Rejection
from rfmstream.engine.live.spans import Spans, cut_by_bytes, value_bytes

PRODUCERS = (1, 2)
CODECS = (0, 1, 2, 3, 4, 5)

short = st.binary(max_size=40)
any_value = st.none() | short
header_names = st.one_of(st.sampled_from([b"content-type", b"", b"\xff", b"Content-Type"]), short)
headers = st.one_of(
    st.just(()),
    st.just(((b"content-type", b"application/json"),)),
    st.lists(st.tuples(header_names, st.none() | short), max_size=3),
)


@st.composite
def record_lists(draw: st.DrawFn, values: st.SearchStrategy[bytes | None]) -> list[Record]:
    deltas = sorted(draw(st.sets(st.integers(0, 300), max_size=6)))
    times = st.integers(-(10**13), 10**13)
    return [
        Record(delta, draw(times), draw(st.none() | short), draw(values), draw(headers)) for delta in deltas
    ]


@st.composite
def batches_of(
    draw: st.DrawFn, values: st.SearchStrategy[bytes | None], *, damaged: bool = False
) -> list[Batch]:
    out = []
    for _ in range(draw(st.integers(0, 5))):
        producer = draw(st.sampled_from(PRODUCERS))
        kind = draw(st.sampled_from(["plain", "plain", "transaction", "marker"]))
        if kind == "marker":
            out.append(marker(0, producer, draw(st.sampled_from([ABORT, COMMIT]))))
            continue
        records = draw(record_lists(values))
        last = records[-1].delta if records else 0
        codec = draw(st.sampled_from(CODECS)) if records else 0
        attributes = draw(st.sampled_from([0, LOG_APPEND_TIME]))
        damage = draw(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=2))
        out.append(
            Batch(
                0,
                records,
                codec,
                attributes | (TRANSACTIONAL if kind == "transaction" else 0),
                producer if kind == "transaction" else -1,
                # What a compaction took at the end of a batch.
                draw(st.sampled_from([None, last, last + 3])),
                damage=damage if damaged else (),
            )
        )
    return shifted(out, [draw(st.sampled_from([0, 0, 7])) for _ in out])


@st.composite
def fetched(
    draw: st.DrawFn, values: st.SearchStrategy[bytes | None] = any_value, *, damaged: bool = False
) -> tuple[bytes, int, Aborted]:
    """Draw a fetch, the offset that was asked for, and aborted transactions."""
    batches = draw(batches_of(values, damaged=damaged))
    data = b"".join(batch.encoded() for batch in batches)
    cut_off = draw(st.sampled_from([b"", b"\0" * 5, Batch(9, [Record(0)]).encoded()[:-1]]))
    end = batches[0].end - 1 if batches else 0
    aborted = st.tuples(st.sampled_from(PRODUCERS), st.integers(0, 1000))
    return data + cut_off, draw(st.integers(0, end)), draw(st.lists(aborted, max_size=3))


@settings(max_examples=some(200), deadline=None)
@given(fetch=fetched())
def test_both_paths_read_the_same(fetch: tuple[bytes, int, Aborted]) -> None:
    found = check_paths_agree(*fetch)
    assert isinstance(found, RawRecords)
    assert is_raw(found) or not found.offsets


@settings(max_examples=some(400), deadline=None)
@given(fetch=fetched(damaged=True))
def test_damaged_records_are_the_same_to_both_paths(fetch: tuple[bytes, int, Aborted]) -> None:
    check_paths_agree(*fetch)


@settings(max_examples=some(400), deadline=None)
@given(
    fetch=fetched(),
    damage=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=4),
    cut=st.integers(0, 30),
    checked=st.booleans(),
)
def test_damaged_bytes_are_the_same_to_both_paths(
    fetch: tuple[bytes, int, Aborted], damage: Sequence[tuple[int, int]], cut: int, *, checked: bool
) -> None:
    data, offset, aborted = bytearray(fetch[0]), *fetch[1:]
    for at, byte in damage:
        if data:
            data[at % len(data)] = byte
    damaged = bytes(data[: len(data) - cut])
    check_paths_agree(with_checksums(damaged) if checked else damaged, offset, aborted)


def same_rows(raw: LogBatch, ordinary: LogBatch) -> None:
    assert raw.orders.equals(ordinary.orders)
    assert raw.refused == ordinary.refused
    assert raw.record_of.tolist() == ordinary.record_of.tolist()
    assert raw.firsts.tolist() == ordinary.firsts.tolist()
    assert raw.position == ordinary.position
    assert as_lists(raw.records) == as_lists(ordinary.records)


@settings(max_examples=some(150), deadline=None)
@given(
    several=st.lists(
        fetched(st.one_of(st.none(), texts(), texts().map(lambda text: text + b"\n" + text))), max_size=3
    )
)
def test_orders_are_the_same_by_both_paths(several: Sequence[tuple[bytes, int, Aborted]]) -> None:
    decoder = Decoder(currency="CNY", record_bytes_max=2000)
    raw = [read_fetch(*fetch) for fetch in several]
    ordinary = [read_fetch(*fetch, is_raw=False) for fetch in several]
    for a, b in zip(raw, ordinary, strict=True):
        same_rows(decoder.decode(a), decoder.decode(b))
        assert value_bytes(a) == value_bytes(b)
    filled = [(a, b) for a, b in zip(raw, ordinary, strict=True) if a.offsets]
    if filled:
        all_raw, all_ordinary = (joined(each) for each in zip(*filled, strict=True))
        same_rows(decoder.decode(all_raw), decoder.decode(all_ordinary))
        mixed = [pair[at % 2] for at, pair in enumerate(filled)]
        same_rows(decoder.decode(joined(mixed)), decoder.decode(all_ordinary))


@settings(max_examples=some(150), deadline=None)
@given(
    several=st.lists(fetched(st.one_of(st.none(), texts())), min_size=1, max_size=3),
    bytes_max=st.integers(1, 2000),
)
def test_parts_are_the_records_one_after_another(
    several: Sequence[tuple[bytes, int, Aborted]], bytes_max: int
) -> None:
    decoder = Decoder(currency="CNY")
    for raw in (True, False):
        records = joined([read_fetch(*fetch, is_raw=raw) for fetch in several])
        cut = list(cut_by_bytes(records, bytes_max))
        assert all(value_bytes(part) <= bytes_max or len(part.offsets) == 1 for part in cut)
        assert as_lists(joined(cut)) == as_lists(records)
        begins = [part.offsets[0] for part in cut[1:]]
        assert [part.position for part in cut] == [*begins, records.position]
        orders, refused = judged(map(decoder.decode, cut))
        assert (orders, refused) == judged([decoder.decode(records)])
        assert len(orders) + len(refused) >= len(records.offsets)


def judged(batches: Iterable[LogBatch]) -> tuple[list[object], list[Rejection]]:
    """Return the orders with their offsets, and the rows that are none."""
    orders, refused = [], []
    for batch in batches:
        rows = batch.orders.drop_columns("row").to_pylist()
        offsets = np.array(batch.records.offsets, np.int64)[batch.record_of]
        orders += zip(offsets.tolist(), rows, strict=True)
        refused += batch.refused
    return orders, refused


# What a consumer has to be told, one case each.


def plain(base: int = 0, count: int = 3, **options: int) -> Batch:
    return Batch(base, [Record(at, at, b"k%d" % at, GOOD) for at in range(count)], **options)


def test_records_come_from_the_offset_asked_for_on() -> None:
    found = read_fetch(plain(10).encoded(), 11)
    assert list(found.offsets) == [11, 12]
    assert list(found.keys) == [b"k1", b"k2"]
    assert found.keys[-1] == b"k2"
    assert found.values[:1] == [GOOD]
    assert found.position == 13
    assert is_raw(found)


def test_a_position_passes_by_what_is_no_record() -> None:
    batches = [
        plain(0, attributes=TRANSACTIONAL, producer=1),
        marker(3, 1, ABORT),
        plain(4, attributes=TRANSACTIONAL, producer=1),
        marker(7, 1, COMMIT),
    ]
    data = b"".join(batch.encoded() for batch in batches)
    found = check_paths_agree(data, 0, [(1, 0)])
    assert isinstance(found, RawRecords)
    assert (list(found.offsets), found.position) == ([4, 5, 6], 8)
    nothing = check_paths_agree(data[: len(data) // 2], 0, [(1, 0)])
    assert isinstance(nothing, RawRecords)
    assert (list(nothing.offsets), nothing.position) == ([], 4)


@pytest.mark.parametrize("path", ["raw", "ordinary"])
def test_what_is_too_much_is_left_to_be_fetched_again(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spaces = b" " * 1000
    batches = [
        Batch(base, [Record(at, value=GOOD + spaces) for at in range(3)], codec)
        for base, codec in zip(range(0, 60, 10), CODECS, strict=True)
    ]
    whole = read_fetch(b"".join(batch.encoded() for batch in batches), 0)
    # The first one that is beyond it belongs to what is read: else nothing might ever be.
    for bytes_max, pieces in ((1, 6), (5000, 3), (1 << 20, 1)):
        monkeypatch.setattr("rfmstream.engine.live.kafka.fetches.READ_BYTES_MAX", bytes_max)
        position, found = 0, []
        while position < batches[-1].end:
            data = b"".join(batch.encoded() for batch in batches if batch.end > position)
            found.append(read_fetch(data, position, is_raw=path == "raw"))
            position = found[-1].position
        assert len(found) == pieces
        assert as_lists(joined(found)) == as_lists(whole)


@pytest.mark.parametrize("path", ["raw", "ordinary"])
@pytest.mark.parametrize("codec", [0, 3])
def test_nothing_keeps_the_bytes_of_a_fetch_once_its_records_are_gone(path: str, codec: int) -> None:
    data = b"".join(batch.encoded() for batch in shifted([Batch(0, [Record(0)], codec)] * 3, [0] * 3))
    gc.disable()
    try:
        before = sys.getrefcount(data)
        assert len(read_fetch(data, 0, is_raw=path == "raw").offsets) == 3
        assert sys.getrefcount(data) == before
    finally:
        gc.enable()


def test_log_append_time_is_that_of_the_batch() -> None:
    found = read_fetch(plain(attributes=LOG_APPEND_TIME, max_ms=5).encoded(), 0)
    assert list(found.timestamps_ms) == [5, 5, 5]


def test_names_of_headers_need_not_be_utf8() -> None:
    found = read_fetch(Batch(0, [Record(0, headers=[(b"\xff", None), (b"a", b"\xff")])]).encoded(), 0)
    assert is_raw(found)
    assert found.headers[0] == [("\ufffd", None), ("a", b"\xff")]


@pytest.mark.parametrize(
    ("batch", "error"),
    [
        (plain(count=2).encoded()[:-1] + b"\1", CorruptRecordException),
        (with_checksums(plain().encoded()[:-1] + b"\1"), CorruptRecordException),
        (plain(attributes=7).encoded(), UnsupportedCodecError),
        (Batch(0, [Record(0)], count=2).encoded(), CorruptRecordException),
        (Batch(0, [Record(0)], count=1 << 30).encoded(), CorruptRecordException),
        (Batch(0, [Record(0)], count=0).encoded(), CorruptRecordException),
    ],
)
def test_errors_are_those_of_the_client(batch: bytes, error: type[Exception]) -> None:
    assert read(batch, 0) is error
    assert read(batch, 0, is_raw=False) is error
    # Behind a good one, too: nothing of a fetch is brought twice.
    assert read(plain().encoded() + batch, 0) is error


@pytest.mark.parametrize(
    "records",
    [
        [Record(1), Record(0)],
        [Record(0), Record(0)],
        [Record(0, time_delta=1 << 62)],
        [Record(0, time_delta=-(1 << 63))],
    ],
)
def test_what_no_client_writes_takes_the_ordinary_path(records: Sequence[Record]) -> None:
    found = check_paths_agree(Batch(0, records, last_delta=1).encoded(), 0)
    assert isinstance(found, RawRecords)
    assert not is_raw(found)


def test_offsets_that_fall_are_the_same_to_both_paths() -> None:
    for first in (plain(7), marker(1 << 40, 1, COMMIT)):
        check_paths_agree(first.encoded() + plain(3).encoded(), 0)


def test_batches_before_the_offset_asked_for_are_the_same_to_both_paths() -> None:
    for offset in (3, 4, 50):
        check_paths_agree(plain().encoded() + plain(3).encoded(), offset)


def test_old_formats_take_the_ordinary_path() -> None:
    from aiokafka.record.legacy_records import LegacyRecordBatchBuilder  # noqa: PLC0415

    builder = LegacyRecordBatchBuilder(1, 0, 1 << 20)
    builder.append(0, 5, b"k", b"v")
    found = check_paths_agree(bytes(builder.build()), 0)
    assert isinstance(found, RawRecords)
    assert list(found.values) == [b"v"]
    assert not is_raw(found)


def test_a_control_batch_that_says_nothing_is_the_same_to_both_paths() -> None:
    for key in (None, b"", b"\0", b"\0\0\0\7", b"\0\0\0\0more"):
        record = Record(0, 0, key, b"")
        data = Batch(0, [record], attributes=TRANSACTIONAL | CONTROL, producer=1).encoded()
        check_paths_agree(data + plain(1).encoded(), 0, [(1, 0)])


def test_headers_are_read_once_where_they_are_the_same() -> None:
    kinds = [((b"a", b"1"),), ((b"a", b"1"),), (), ((b"b", b"1"),), ((b"a", b"1"),)]
    found = read_fetch(Batch(0, [Record(at, headers=each) for at, each in enumerate(kinds)]).encoded(), 0)
    asked: list[object] = []

    def number(headers: Sequence[tuple[str, bytes]]) -> int:
        asked.append(headers)
        return len(asked)

    assert found.headers.mapped(number).tolist() == [1, 1, 2, 3, 1]
    assert asked == [[("a", b"1")], [], [("b", b"1")]]


# Which path is taken.


@pytest.fixture
def _raw_again() -> object:
    yield
    install(is_raw=True)


def is_taken() -> bool:
    return fetcher.PartitionRecords.__name__ == "_RawPartitionRecords"


@pytest.mark.usefixtures("_raw_again")
def test_the_raw_path_is_taken_where_a_sample_is_the_same(caplog: pytest.LogCaptureFixture) -> None:
    # Other tests may have left the client's own lines on.
    caplog.set_level(logging.WARNING)
    install(is_raw=False)
    raw_check.choose_path()
    assert is_taken()
    assert not caplog.records


@pytest.mark.usefixtures("_raw_again")
@pytest.mark.parametrize(
    ("whose", "name", "value"),
    [
        pytest.param(aiokafka, "__version__", "0.15.0", id="an unknown client"),
        pytest.param(
            Spans,
            "gathered",
            lambda self, pad: np.zeros(self.nbytes + pad, np.uint8),
            id="a sample that differs",
        ),
    ],
)
def test_what_is_not_to_be_trusted_takes_the_ordinary_path(
    whose: object,
    name: str,
    value: object,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(whose, name, value)
    raw_check.choose_path()
    assert not is_taken()
    assert [record.levelname for record in caplog.records] == ["WARNING"]


@pytest.mark.usefixtures("_raw_again")
def test_a_client_that_fails_on_the_sample_takes_the_ordinary_path(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.WARNING)
    monkeypatch.delattr(fetches._RawPartitionRecords, "_raw")
    raw_check.choose_path()
    assert not is_taken()
    assert len(caplog.records) == 1
