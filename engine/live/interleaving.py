"""In which order the partitions of several topics are read as one log, and where in it each of their records is.

    web   0 1 2 3 4 5          read as    web 0-2, pos 7-8, web 3-4, refunds 0, web 5
    pos   7 8                  place      7   8 9  10 11    12 13    14         15
    refunds  0

The place of a record counts the offsets that lie before it in every topic: it is the sum of the offsets to be read next
when the record is read. So a place tells nothing without the order, and with it each topic's offset. Stretches of the
order are written down in the transaction of the step that goes beyond them (engine.live.kafka.merged_log); what comes
behind those may be read in any other order after a restart.
"""

import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from rfmstream.schemas.errors import StateError

STRETCHES_MAX: Final = 1 << 16
"""So many stretches are written down in one note: 3 bytes each where all are short and nothing repeats."""

_TYPES: Final = ("<u1", "<u2", "<u4", "<u8")
_FIX: Final = "restore the clock topic, or begin anew with another app_id and another place for checkpoints"


class Stretches(NamedTuple):
    """Consecutive parts of the order.

    Fields  topics  u8[n], whose offsets each is of: the ordinal of the topic
            counts  i64[n], how many
    """

    topics: NDArray[np.uint8]
    counts: NDArray[np.int64]

    @classmethod
    def none(cls) -> Self:
        """Return no stretches."""
        return cls(np.empty(0, np.uint8), np.empty(0, np.int64))

    @classmethod
    def joined(cls, several: Sequence["Stretches"]) -> Self:
        """Return consecutive stretches as one sequence."""
        return cls(
            np.concatenate([np.empty(0, np.uint8), *(one.topics for one in several)]),
            np.concatenate([np.empty(0, np.int64), *(one.counts for one in several)]),
        )

    def part(self, first: int, stop: int | None = None) -> "Stretches":
        """Return those of ordinals [first, stop), in the same memory."""
        return Stretches(self.topics[first:stop], self.counts[first:stop])

    def totals(self, topics: int) -> NDArray[np.int64]:
        """Return i64[topics], the offsets of each topic together."""
        totals = np.zeros(topics, np.int64)
        np.add.at(totals, self.topics, self.counts)
        return totals


class OrderNote(NamedTuple):
    """A part of the order as it is written down.

    Fields  topics     the names of the topics, by their ordinals
            begins     the offset of each at the beginning
            stretches  perhaps none
    """

    topics: tuple[str, ...]
    begins: tuple[int, ...]
    stretches: Stretches

    def noted(self) -> dict[str, Any]:
        """Return what is written down."""
        counts = self.stretches.counts
        kind = next(kind for kind in _TYPES if int(counts.max(initial=0)) <= int(np.iinfo(kind).max))
        packed = zlib.compress(self.stretches.topics.tobytes() + counts.astype(kind).tobytes(), 1)
        return {
            "topics": list(self.topics),
            "begins": list(self.begins),
            "count": len(counts),
            "kind": kind,
            "stretches": b64encode(packed).decode(),
        }

    @classmethod
    def of(cls, noted: Mapping[str, Any]) -> Self:
        """Return what was written down.

        Errors  KeyError, TypeError, ValueError, zlib.error  it was not written by a worker
        """
        count, packed = noted["count"], zlib.decompress(b64decode(noted["stretches"]))
        if noted["kind"] not in _TYPES:
            raise ValueError(noted["kind"])
        stretches = Stretches(
            np.frombuffer(packed, np.uint8, count),
            np.frombuffer(packed, noted["kind"], count, offset=count).astype(np.int64),
        )
        return cls(tuple(noted["topics"]), tuple(map(int, noted["begins"])), stretches)


class Interleaving:
    """The order from a place on: what is written down, and behind it what is not yet.

    In      begins  the offset of each topic at the beginning
    Fields  begin, end  places
            written  the place up to which the order is written down
    """

    def __init__(self, begins: Sequence[int]) -> None:
        self._begins = np.array(begins, np.int64)
        self._stretches = Stretches.none()
        self._ends = np.empty(0, np.int64)  # the place behind each stretch
        self.written = self.begin

    @classmethod
    def read(cls, notes: Sequence[OrderNote]) -> Self:
        """Return the order that consecutive notes tell, of which there is at least one.

        Errors  StateError  one is missing
        """
        order = cls(notes[0].begins)
        totals, at = np.array(notes[0].begins, np.int64), []
        for note in notes:
            if tuple(totals.tolist()) != note.begins:
                raise StateError(
                    "the clock topic lacks notes of the order in which topics were read", fix=_FIX
                )
            totals = totals + note.stretches.totals(len(totals))
            at.append(note.stretches)
        order.add(Stretches.joined(at))
        order.written = order.end
        return order

    @property
    def begin(self) -> int:
        """The first place."""
        return int(self._begins.sum())

    @property
    def end(self) -> int:
        """The place behind the last one."""
        return int(self._ends[-1]) if len(self._ends) else self.begin

    def add(self, stretches: Stretches) -> None:
        """Go on with stretches, none of them empty."""
        end = self.end
        self._stretches = Stretches.joined([self._stretches, stretches])
        self._ends = np.concatenate([self._ends, end + np.cumsum(stretches.counts)])

    def offsets_at(self, place: int) -> tuple[int, ...]:
        """Return the offset to be read next in each topic where all before a place was read.

        Errors  StateError  the order there is not known
        """
        if not self.begin <= place <= self.end:
            raise StateError(f"the order in which topics were read up to {place} is not known", fix=_FIX)
        totals = self.stretches(self.begin, place).totals(len(self._begins))
        return tuple((self._begins + totals).tolist())

    def records_at(self, places: Sequence[int]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return the topics' ordinals and the offsets of the records at some places."""
        topics, counts = self._stretches
        firsts = np.empty(len(topics), np.int64)
        for topic, begin in enumerate(self._begins.tolist()):
            own = topics == topic
            firsts[own] = begin + np.cumsum(counts[own]) - counts[own]
        at = np.searchsorted(self._ends, places, "right")
        return topics[at], firsts[at] + np.asarray(places, np.int64) - (self._ends - counts)[at]

    def first_place(self, begins: Sequence[int]) -> int:
        """Return the first place from which on nothing is before these offsets; beyond the end there may be none.

        Returns  in that case the place that the later offset of each topic would be
        """
        place = self.begin
        for topic, begin in enumerate(begins):
            missing = begin - int(self._begins[topic])
            if missing <= 0:
                continue
            own = np.flatnonzero(self._stretches.topics == topic)
            totals = np.cumsum(self._stretches.counts[own])
            at = int(np.searchsorted(totals, missing))
            if at == len(own):
                return sum(map(max, self.offsets_at(self.end), begins))
            place = max(place, int(self._ends[own[at]] - (totals[at] - missing)))
        return place

    def stretches(self, first: int, end: int) -> Stretches:
        """Return the order between two places."""
        start, stop = np.searchsorted(self._ends, [first, end], "right").tolist()
        if start < len(self._ends) and stop < len(self._ends) and self._begin_of(stop) < end:
            stop += 1
        topics = self._stretches.topics[start:stop]
        ends = np.minimum(self._ends[start:stop], end)
        counts = np.diff(np.concatenate([[first], ends]))
        return Stretches(topics, counts)

    def _begin_of(self, stretch: int) -> int:
        return int(self._ends[stretch - 1]) if stretch else self.begin

    def notes(self, topics: tuple[str, ...], first: int, end: int) -> Iterator[OrderNote]:
        """Yield the order between two places as it is to be written down; of one place where it is."""
        stretches, begins = self.stretches(first, end), np.array(self.offsets_at(first), np.int64)
        for at in range(0, max(len(stretches.topics), 1), STRETCHES_MAX):
            some = stretches.part(at, at + STRETCHES_MAX)
            yield OrderNote(topics, tuple(begins.tolist()), some)
            begins = begins + some.totals(len(begins))

    def cut_off(self, place: int) -> None:
        """Forget what comes behind a place."""
        if place < self.end:
            self._stretches = self.stretches(self.begin, place)
            self._ends = self.begin + np.cumsum(self._stretches.counts)

    def forget(self, place: int) -> None:
        """Forget what comes before a place."""
        begins, kept = self.offsets_at(place), self.stretches(place, self.end)
        self._begins, self._stretches = np.array(begins, np.int64), kept
        self._ends = place + np.cumsum(kept.counts)
