"""Reads the partitions of several topics as one log: in the order that was written down, and behind it by their times.

Behind what is written down the record whose time is the earliest comes next, of equal ones that of the topic that is
named first. So a history in several topics is read as it happened. A topic that holds records which have not come yet
is waited for: they may be earlier. One that has been read to the end of what can be read is not.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rfmstream.engine.live.interleaving import Interleaving, Stretches
from rfmstream.engine.live.model import Headers, RawRecords
from rfmstream.engine.live.spans import (
    HeaderSpans,
    Piece,
    Spans,
    cut_out,
    integers,
    value_bytes,
)

RECORDS_MAX: Final = 1 << 16
"""So many records of a topic are merged at a time."""
_AHEAD: Final = 1 << 16
"""So many stretches of what is written down are looked at at a time."""
_FEW: Final = 8
"""So many stretches are put one behind another as they are; the bytes of more are brought together."""


class Merged(NamedTuple):
    """Records of several topics in their order.

    Fields  records    their offsets are places, see `engine.live.interleaving`; perhaps none
            begin, end places: of the first offset, and one after the last that is known of
            confirmed_us  the instant at which `records.position` was known to be the end of all; None: it is not
    """

    begin: int
    records: RawRecords
    end: int
    confirmed_us: int | None


class _Topic:
    """What has come of one topic and was not merged yet."""

    def __init__(self, offset: int, stop: int | None) -> None:
        self.offset = offset  # what comes before was merged
        self.fetched = offset
        self.stop = stop
        self.end = offset
        self.is_known = self.is_read = False
        self.confirmed_us: int | None = None
        self.waiting: list[RawRecords] = []
        self.times: list[NDArray[np.int64]] = []
        self.newest_ms = -1

    @property
    def offsets(self) -> NDArray[np.int64]:
        return np.concatenate([np.empty(0, np.int64), *(integers(some.offsets) for some in self.waiting)])

    @property
    def times_ms(self) -> NDArray[np.int64]:
        """i64[waiting], never falling: a record is not read before those in front of it."""
        return np.concatenate([np.empty(0, np.int64), *self.times])

    def receive(self, records: RawRecords, now_ms: int) -> None:
        if self.stop is not None and records.position > self.stop:
            count = int(np.searchsorted(integers(records.offsets), self.stop))
            records = cut_out(records, 0, count)._replace(position=max(self.stop, self.offset))
        self.fetched = max(self.fetched, records.position)
        if not len(records.offsets):
            return
        # What a wrong clock dates ahead must not come behind all that will ever be in the other topics.
        times_ms = np.minimum(integers(records.timestamps_ms), now_ms)
        times_ms = np.maximum(np.maximum.accumulate(times_ms), self.newest_ms)
        self.newest_ms = int(times_ms[-1])
        self.waiting.append(records)
        self.times.append(times_ms)

    def take(self, count: int) -> list[RawRecords]:
        """Return the first records that wait."""
        taken: list[RawRecords] = []
        while count:
            records, times = self.waiting[0], self.times[0]
            here = len(records.offsets)
            if here <= count:
                taken.append(records)
                del self.waiting[0], self.times[0]
            else:
                taken.append(cut_out(records, 0, count))
                self.waiting[0], self.times[0] = cut_out(records, count, here), times[count:]
            count -= min(here, count)
        return taken


class Merger:
    """Puts fetches of several topics into one order.

    In      ranks  of each topic, what decides between records of one time: the lowest comes first
    """

    def __init__(self, ranks: Sequence[int]) -> None:
        self._ranks = list(ranks)
        self._topics = [_Topic(0, None) for _ in ranks]
        self._order = Interleaving([0] * len(self._ranks))
        self._plan = Stretches.none()
        self._told: tuple[int, int, int | None] | None = None
        self.position = 0

    def begin(
        self, order: Interleaving, position: int, stops: Sequence[int] | None = None
    ) -> tuple[int, ...]:
        """Go on from a place; return the offset that each topic is to be read from.

        In      order  what is written down of it is followed, then it is gone on with
                stops  the offset in each topic before which reading ends; None: it does not
        Errors  StateError  the order at that place is not known
        """
        order.cut_off(max(order.written, position))
        offsets = order.offsets_at(position)
        self._order, self.position = order, position
        topics, counts = order.stretches(position, order.end)
        self._plan = Stretches(topics, counts.copy())
        self._topics = [
            _Topic(offset, None if stops is None else max(stops[at], offset))
            for at, offset in enumerate(offsets)
        ]
        self._told = None
        return offsets

    def waiting_bytes(self, topic: int) -> int:
        """Return the bytes of the values that have come of a topic and wait for others."""
        return sum(map(value_bytes, self._topics[topic].waiting))

    def receive(  # noqa: PLR0913 - what a fetch tells
        self,
        topic: int,
        records: RawRecords,
        end: int,
        now_ms: int,
        confirmed_us: int | None,
        *,
        is_read: bool,
    ) -> None:
        """Take in what was fetched of a topic.

        In      end      one after its last record, that of an open transaction too
                now_ms   the wall clock: no record is taken for a later one
                confirmed_us  the instant at which records.position was known to be the end; None: it is not
                is_read  records.position is the end of what can be read
        """
        one = self._topics[topic]
        one.receive(records, now_ms)
        is_done = one.stop is not None and records.position >= one.stop
        one.is_known = True
        one.is_read = is_read or is_done
        one.end = max(end, one.fetched) if one.stop is None else min(max(end, one.fetched), one.stop)
        one.confirmed_us = now_ms * 1000 if confirmed_us is None and is_done else confirmed_us

    def take(self) -> Merged | None:
        """Return what can be read next; None: nothing, or nothing new is known."""
        follows = len(self._plan.topics) > 0
        records = self._follow() if follows else self._choose()
        if records is None:
            return None
        begin, self.position = self.position, records.position
        end = sum(max(one.end, one.fetched) for one in self._topics)
        confirmed_us: int | None = None
        if all(one.confirmed_us is not None and not one.waiting for one in self._topics):
            confirmed_us = min(one.confirmed_us or 0 for one in self._topics)
        told = self.position, end, confirmed_us
        if not len(records.offsets) and told == self._told:
            return None
        self._told = told
        return Merged(begin, records, end, confirmed_us)

    def _follow(self) -> RawRecords | None:
        """Return the next records in the order that is written down; None: they have not come yet."""
        topics, counts = self._plan.part(0, _AHEAD)
        stop = len(topics)
        room = [one.fetched - one.offset for one in self._topics]
        for topic, there in enumerate(room):
            own = np.flatnonzero(topics == topic)
            at = int(np.searchsorted(np.cumsum(counts[own]), there, "right"))
            if at < len(own):
                stop = min(stop, int(own[at]))
        some, rest = self._plan.part(0, stop), self._plan.part(stop)
        if stop < len(topics):
            # As much as has come of the first stretch that has not come whole.
            topic = int(topics[stop])
            part = room[topic] - int(some.totals(len(room))[topic])
            if part > 0:
                some = Stretches.joined([some, Stretches(topics[stop : stop + 1], np.array([part]))])
                rest.counts[0] -= part
        if not len(some.topics):
            return None
        self._plan = rest
        return self._merge(some)

    def _choose(self) -> RawRecords | None:
        """Return the next records by their times, and go on with the order; None: a topic is to be waited for."""
        if any(not one.is_known or (not one.is_read and not one.waiting) for one in self._topics):
            return None
        times = [one.times_ms[:RECORDS_MAX] for one in self._topics]
        # What a topic still holds may be as early as the last record that has come.
        limits = [
            int(own[-1])
            for one, own in zip(self._topics, times, strict=True)
            if not one.is_read or len(own) < sum(map(len, one.times))
        ]
        if limits:
            times = [own[: int(np.searchsorted(own, min(limits), "right"))] for own in times]
        taken = [one.offsets[: len(own)] for one, own in zip(self._topics, times, strict=True)]
        counts = [
            np.diff(offsets, prepend=one.offset - 1) for one, offsets in zip(self._topics, taken, strict=True)
        ]
        by_rank = sorted(range(len(taken)), key=self._ranks.__getitem__)
        order = np.argsort(np.concatenate([times[topic] for topic in by_rank]), kind="stable")
        topics = np.concatenate([np.full(len(taken[topic]), topic, np.uint8) for topic in by_rank])[order]
        counted = np.concatenate([counts[topic] for topic in by_rank])[order]
        # Offsets behind the last record hold no record.
        for topic, one in enumerate(self._topics):
            behind = one.fetched - (int(taken[topic][-1]) + 1 if len(taken[topic]) else one.offset)
            if behind and len(taken[topic]) == sum(map(len, one.times)):
                topics = np.append(topics, np.uint8(topic))
                counted = np.append(counted, behind)
        stretches = _brief(Stretches(topics, counted))
        if len(stretches.topics):
            self._order.add(stretches)
        return self._merge(stretches)

    def _merge(self, stretches: Stretches) -> RawRecords:
        """Return the records within stretches, at their places."""
        ends = self.position + np.cumsum(stretches.counts)
        begins = ends - stretches.counts
        parts, places = [], []
        for topic, one in enumerate(self._topics):
            own = stretches.topics == topic
            lasts = one.offset + np.cumsum(stretches.counts[own])
            one.offset = int(lasts[-1]) if len(lasts) else one.offset
            offsets = one.offsets
            offsets = offsets[: int(np.searchsorted(offsets, one.offset))]
            at = np.searchsorted(lasts, offsets, "right")
            firsts = lasts - stretches.counts[own]
            places.append(begins[own][at] + offsets - firsts[at])
            parts += one.take(len(offsets))
        position = int(ends[-1]) if len(ends) else self.position
        return _arranged(parts, np.concatenate(places), position)


def _brief(stretches: Stretches) -> Stretches:
    """Return stretches of which no two of a topic follow each other."""
    topics, counts = stretches
    if not len(topics):
        return stretches
    firsts = np.flatnonzero(np.concatenate([[True], topics[1:] != topics[:-1]]))
    return Stretches(topics[firsts], np.add.reduceat(counts, firsts))


def _arranged(parts: Sequence[RawRecords], places: NDArray[np.int64], position: int) -> RawRecords:
    """Return records in the order of their places.

    In      places  i64[records]
    """
    order = np.argsort(places, kind="stable")
    return RawRecords(
        keys=_strings([part.keys for part in parts], order),
        values=_strings([part.values for part in parts], order),
        headers=_headers([part.headers for part in parts], order),
        timestamps_ms=_taken([part.timestamps_ms for part in parts], order).data,
        offsets=places[order].data,
        position=position,
    )


def _taken(several: Sequence[Sequence[int]], order: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([np.empty(0, np.int64), *map(integers, several)])[order]


def _strings(several: Sequence[Sequence[bytes | None]], order: NDArray[np.int64]) -> Sequence[bytes | None]:
    spans = [one for one in several if isinstance(one, Spans)]
    if len(spans) < len(several):
        strings = list(chain.from_iterable(several))
        return [strings[at] for at in order.tolist()]
    jumps = np.flatnonzero(np.diff(order) != 1) + 1
    whole = Spans(list(chain.from_iterable(one.pieces for one in spans)))
    if len(jumps) < _FEW:
        runs = np.split(order, jumps)
        pieces = [whole.cut_out(int(run[0]), int(run[-1]) + 1).pieces for run in runs if len(run)]
        return Spans(list(chain.from_iterable(pieces)))
    sizes = whole.sizes()
    ends = np.cumsum(np.maximum(sizes, 0))
    data = whole.gathered(0)
    data.flags.writeable = False  # as what was fetched is, so that no second kernel is compiled
    return Spans([Piece(data, (ends - np.maximum(sizes, 0))[order], sizes[order])])


def _headers(several: Sequence[Sequence[Headers]], order: NDArray[np.int64]) -> Sequence[Headers]:
    raw = [one.raw for one in several if isinstance(one, HeaderSpans)]
    if len(raw) < len(several):
        headers = list(chain.from_iterable(several))
        return [headers[at] for at in order.tolist()]
    strings = _strings(raw, order)
    assert isinstance(strings, Spans)
    return HeaderSpans(strings)
