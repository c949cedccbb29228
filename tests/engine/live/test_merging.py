"""Several topics read as one: in an order that is written down, and behind it by the times of the records."""

from collections.abc import Sequence
from itertools import pairwise
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rfmstream.engine.live.interleaving import Interleaving, OrderNote, Stretches
from rfmstream.engine.live.merging import Merger
from rfmstream.engine.live.model import RawRecords
from rfmstream.engine.live.spans import HeaderSpans, Piece, Spans
from rfmstream.schemas.errors import StateError

NOW_MS = 10**12
TOPICS = ("pos", "refunds", "web")


class Topic:
    """One topic's records: offsets with gaps, times that mostly rise."""

    def __init__(self, random: Random, name: str, count: int) -> None:
        self.name = name
        self.begin = random.choice([0, 0, 7, 100])
        self.offsets: list[int] = []
        self.times_ms: list[int] = []
        at, time_ms = self.begin, random.randrange(5)
        for _ in range(count):
            at += random.choice([0, 0, 0, 1, 4])
            self.offsets.append(at)
            at += 1
            time_ms += random.choice([0, 0, 1, 5, -3])
            self.times_ms.append(random.choice([time_ms] * 20 + [-1, NOW_MS * 2]))
        self.end = at + random.choice([0, 0, 2])

    def fetch(self, position: int, limit: int, *, spans: bool) -> RawRecords:
        own = [at for at, offset in enumerate(self.offsets) if offset >= position][:limit]
        is_all = not own or own[-1] == len(self.offsets) - 1
        keys = [None if at % 5 == 4 else f"{self.name}-{self.offsets[at]}".encode() for at in own]
        return RawRecords(
            keys=as_spans(keys) if spans else keys,
            values=as_spans([b"v" + (key or b"") for key in keys])
            if spans
            else [b"v" + (k or b"") for k in keys],
            headers=HeaderSpans(as_spans([b"\0"] * len(own))) if spans else [()] * len(own),
            timestamps_ms=np.array([self.times_ms[at] for at in own], np.int64).data,
            offsets=np.array([self.offsets[at] for at in own], np.int64).data,
            position=max(self.end if is_all else self.offsets[own[-1]] + 1, position),
        )


def as_spans(strings: Sequence[bytes | None]) -> Spans:
    data = np.frombuffer(b"".join(one or b"" for one in strings) + b"\0", np.uint8)
    sizes = np.array([-1 if one is None else len(one) for one in strings], np.int64)
    starts = np.cumsum(np.maximum(sizes, 0)) - np.maximum(sizes, 0)
    return Spans([Piece(data, starts.astype(np.int64), sizes)] if strings else [])


def read_all(
    random: Random,
    topics: list[Topic],
    order: Interleaving,
    position: int,
    *,
    spans: bool,
    until: int | None = None,
) -> list[tuple[int, int, bytes | None, bytes | None]]:
    """Read from a place on in fetches of any size; return (place, time, key, value) of each record."""
    merger = Merger([2, 0, 1][: len(topics)])
    at = list(merger.begin(order, position))
    got = []
    expected = position
    while merger.position < sum(topic.end for topic in topics) and (until is None or merger.position < until):
        number = random.randrange(len(topics))
        topic = topics[number]
        records = topic.fetch(at[number], random.choice([1, 2, 7, 100]), spans=spans)
        at[number] = records.position
        is_read = records.position == topic.end
        merger.receive(number, records, topic.end, NOW_MS, 5 if is_read else None, is_read=is_read)
        while (merged := merger.take()) is not None:
            assert merged.begin == expected
            expected = merged.records.position
            if merged.confirmed_us is not None:
                assert expected == merged.end == sum(one.end for one in topics)
            rows = zip(
                merged.records.offsets,
                merged.records.timestamps_ms,
                list(merged.records.keys),
                list(merged.records.values),
                strict=True,
            )
            got += [(int(offset), int(time), key, value) for offset, time, key, value in rows]
            assert len(merged.records.headers) == len(merged.records.offsets)
            assert all(merged.begin <= offset < expected for offset in merged.records.offsets)
    return got


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 10**9), spans=st.booleans(), count=st.sampled_from([2, 3]))
def test_every_record_is_read_once_and_again_in_the_same_order(seed: int, spans: bool, count: int) -> None:  # noqa: FBT001
    random = Random(seed)  # noqa: S311
    topics = [Topic(random, name, random.choice([0, 1, 20, 60])) for name in TOPICS[:count]]
    order = Interleaving([topic.begin for topic in topics])
    got = read_all(random, topics, order, order.begin, spans=spans)
    places = [place for place, *_ in got]
    assert places == sorted(set(places))
    # Each record once, each topic's in its own order, and where it says.
    numbers, offsets = order.records_at(places)
    for number, topic in enumerate(topics):
        own = np.flatnonzero(numbers == number)
        assert offsets[own].tolist() == topic.offsets
        assert [got[at][1] for at in own.tolist()] == topic.times_ms
        assert [got[at][2] for at in own.tolist()] == list(topic.fetch(0, 10**6, spans=False).keys)
    # Written down as far as some place, and read by another worker from a place before it: the same records first.
    written = random.choice([order.begin, order.end, *places])
    edges = sorted({order.begin, written, *random.sample(places, min(len(places), 3))})
    notes = [
        OrderNote.of(note.noted())
        for first, end in pairwise(edges)
        if end <= written
        for note in order.notes(TOPICS[:count], first, end)
    ] or [*order.notes(TOPICS[:count], order.begin, order.begin)]
    again = Interleaving.read(notes)
    assert again.written == again.end == written
    begin = random.choice([place for place in (order.begin, *places) if place <= written])
    for place in (begin, written):
        assert again.offsets_at(place) == order.offsets_at(place)
    more = read_all(random, topics, again, begin, spans=not spans)
    assert [row for row in more if row[0] < written] == [row for row in got if begin <= row[0] < written]
    assert sorted(key or b"" for _, _, key, _ in more) == sorted(
        key or b"" for place, _, key, _ in got if place >= begin
    )


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 10**9))
def test_what_is_not_written_down_is_read_by_time(seed: int) -> None:
    """Against a merge of the whole: the earliest of the first ones, whose times never fall, then the topic's rank."""
    random = Random(seed)  # noqa: S311
    topics = [Topic(random, name, random.choice([1, 20, 60])) for name in TOPICS]
    order = Interleaving([topic.begin for topic in topics])
    got = read_all(random, topics, order, order.begin, spans=True)
    numbers, offsets = order.records_at([place for place, *_ in got])
    heads = [0, 0, 0]
    ranks = [2, 0, 1]
    newest = [-1, -1, -1]
    expected = []
    while any(head < len(topic.offsets) for head, topic in zip(heads, topics, strict=True)):
        keys = [
            (max(min(topic.times_ms[head], NOW_MS), last), rank, number)
            for number, (head, topic, rank, last) in enumerate(zip(heads, topics, ranks, newest, strict=True))
            if head < len(topic.offsets)
        ]
        time_ms, _, number = min(keys)
        expected.append((number, topics[number].offsets[heads[number]]))
        newest[number] = time_ms
        heads[number] += 1
    # Fetches may end between records of one time; then the one that has come is read first.
    assert sorted(zip(numbers.tolist(), offsets.tolist(), strict=True)) == sorted(expected)
    times = [max(min(time, NOW_MS), 0) for _, time, *_ in got]
    by_number = dict(zip(expected, range(len(expected)), strict=True))
    shown = [
        (max_time(topics[number], offset), by_number[number, offset])
        for number, offset in zip(numbers.tolist(), offsets.tolist(), strict=True)
    ]
    assert [time for time, _ in shown] == sorted(time for time, _ in shown)
    assert len(times) == len(expected)


def max_time(topic: Topic, offset: int) -> int:
    at = topic.offsets.index(offset)
    return max(-1, *(min(time, NOW_MS) for time in topic.times_ms[: at + 1]))


def records_of(times_ms: list[int], first: int = 0) -> RawRecords:
    count = len(times_ms)
    strings = [f"{time}".encode() for time in times_ms]
    return RawRecords(
        strings, strings, [()] * count, times_ms, list(range(first, first + count)), first + count
    )


def test_a_topic_whose_records_have_not_come_is_waited_for() -> None:
    merger = Merger([0, 1])
    merger.begin(Interleaving([0, 0]), 0)
    merger.receive(0, records_of([10, 20, 30]), 3, NOW_MS, 1, is_read=True)
    assert merger.take() is None, "nothing is known of the other"
    merger.receive(1, records_of([]), 5, NOW_MS, None, is_read=False)
    assert merger.take() is None, "it holds five records, which may be earlier"
    merger.receive(1, records_of([15, 20]), 5, NOW_MS, None, is_read=False)
    merged = merger.take()
    assert merged is not None
    assert merged.records.values == [b"10", b"15", b"20", b"20"]
    assert (merged.end, merged.confirmed_us) == (8, None)
    assert merger.take() is None, "the other's next may be of 20, too"
    merger.receive(1, records_of([25], 2), 5, NOW_MS, None, is_read=True)
    merged = merger.take()
    assert merged is not None
    assert merged.records.values == [b"25", b"30"], "what is behind an open transaction is not waited for"
    assert merged.confirmed_us is None, "but time does not pass over it"
    merger.receive(1, records_of([], 3), 3, NOW_MS, 7, is_read=True)
    merger.receive(0, records_of([], 3), 3, NOW_MS, 9, is_read=True)
    merged = merger.take()
    assert merged is not None
    assert (merged.begin, merged.records.position, merged.end, merged.confirmed_us) == (6, 6, 6, 7)
    assert merger.take() is None


def test_reading_ends_where_each_topic_ended() -> None:
    merger = Merger([0, 1])
    merger.begin(Interleaving([0, 0]), 0, stops=(2, 1))
    merger.receive(0, records_of([10, 20, 30]), 3, NOW_MS, None, is_read=True)
    merger.receive(1, records_of([5, 6, 7]), 9, NOW_MS, None, is_read=False)
    merged = merger.take()
    assert merged is not None
    assert merged.records.values == [b"5", b"10", b"20"]
    assert (merged.records.position, merged.end) == (3, 3)
    assert merged.confirmed_us is not None


def test_records_that_are_gone_say_where_reading_can_begin() -> None:
    order = Interleaving([0, 10])
    order.add(Stretches(np.array([0, 1, 0, 1], np.uint8), np.array([3, 2, 2, 4])))
    assert (order.begin, order.end) == (10, 21)
    assert order.first_place((0, 10)) == 10
    assert order.first_place((2, 10)) == 12
    assert order.first_place((3, 12)) == 15
    assert order.offsets_at(15) == (3, 12)
    assert order.first_place((4, 10)) == 16
    assert order.first_place((0, 16)) == 21
    assert order.first_place((9, 10)) == 25, "behind all that is known"
    with pytest.raises(StateError, match="order in which topics were read up to 22 is not known"):
        order.offsets_at(22)
    order.forget(15)
    assert order.offsets_at(17) == (5, 12)
    order.cut_off(18)
    assert order.offsets_at(18) == (5, 13)
    with pytest.raises(StateError, match="order"):
        order.offsets_at(14)


def test_a_note_that_is_missing_is_told() -> None:
    order = Interleaving([0, 0])
    order.add(Stretches(np.array([0, 1, 0], np.uint8), np.array([3, 2, 700])))
    first, second = (next(order.notes(("a", "b"), *edges)) for edges in ((0, 4), (5, 705)))
    with pytest.raises(StateError, match="lacks notes of the order"):
        Interleaving.read([first, second])
