"""The log of several topics' partitions that are read as one: each topic's offset, and the order they were read in.

The order is written down in the clock topic, in the transaction of the step that goes beyond it: a restart from a
checkpoint reads in that order what was committed, and goes on as the records come. Where something is noted of records
that are still to be applied, by their places, the order up to there is written down with it.
"""

import zlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import orjson
from aiokafka import TopicPartition

from rfmstream.engine.live.interleaving import Interleaving, OrderNote, Stretches
from rfmstream.engine.live.kafka.batches import RecordBatch
from rfmstream.engine.live.kafka.offset_notes import OffsetNote
from rfmstream.engine.live.kafka.output import KafkaPartitionLog
from rfmstream.engine.live.model import Bounds, Committed, Rejection, Source, Step, Tick
from rfmstream.schemas.errors import StateError

_ORDER = "order"


class MergedPartitionLog(KafkaPartitionLog):
    """Implements engine.live.model.PartitionLog for partitions of several topics.

    Fields  order  in which they are read, from what was committed on; there after `bounds`
            ends   of each topic, as of `bounds`
    """

    def __init__(self, source: Source, **options: Any) -> None:  # noqa: ANN401 - those of its base
        super().__init__(source, **options)
        self.order: Interleaving | None = None
        self.ends: tuple[int, ...] = ()
        self._topics = tuple(part.topic for part in source.parts)
        self._offsets: tuple[int, ...] | None = None
        self._committed = 0
        self._notes: list[OrderNote] = []
        self._is_noted = False
        self._ahead_mark = 0
        self._pending: tuple[str, int, int] | None = None

    @property
    def mark(self) -> int:
        """The offset of the clock topic from which on it tells the order behind what is committed."""
        is_ahead = self.order is not None and self.order.written > self._committed
        return min(self._mark, self._ahead_mark) if is_ahead else self._mark

    def _as_committed(self, found: Mapping[Source, tuple[int, OffsetNote]]) -> tuple[Committed, str]:
        offsets, notes = zip(*(found[part] for part in self._source.parts), strict=True)
        self._offsets, self._committed = None, 0
        if max(offsets) < 0:
            return Committed(None, ""), notes[0].writer
        is_ours = min(offsets) >= 0 and len({note.token for note in notes}) == 1
        token = notes[0].token if is_ours else ""
        committed = Committed(sum(max(offset, 0) for offset in offsets), token)
        if token:
            self._offsets = offsets
            self._settle(committed)
        return committed, next((note.writer for note in notes if note.writer), "")

    def _settle(self, committed: Committed) -> None:
        """Take note of what became of the step whose commit was in doubt."""
        pending, self._pending = self._pending, None
        self._committed = committed.position or 0
        if pending is not None and pending[0] == committed.token and self.order is not None:
            self._take_written(*pending[1:])

    def _take_written(self, before: int, written: int) -> None:
        """Take note of how far the order is written down; what lies before that step is not asked for again."""
        assert self.order is not None
        self._is_noted = True
        self.order.written = max(self.order.written, written)
        self.order.forget(max(before, self.order.begin))

    async def ticks(self, mark: int = 0) -> list[Tick]:
        """Return the committed ticks from a mark on, oldest first, and take note of the order."""
        self._notes = []
        self.order, self._pending, self._ahead_mark = None, None, mark
        found = await super().ticks(mark)
        self._is_noted = bool(self._notes)
        self.order = Interleaving.read(self._notes) if self._notes else None
        self._notes = []
        if self._offsets is not None:
            if self.order is None:
                self.order = Interleaving(self._offsets)
            if self.order.offsets_at(sum(self._offsets)) != self._offsets:
                raise StateError(
                    f"partition {self._source}: the committed offsets are not those of the order in which the topics "
                    "were read",
                    fix="let nobody but the workers set the group's offsets; restore them",
                )
        return found

    def _tick_of(self, value: bytes) -> Tick | None:
        try:
            noted = orjson.loads(value)
            if _ORDER not in noted:
                return Tick(**noted)
            self._notes.append(OrderNote.of(noted[_ORDER]))
        except (orjson.JSONDecodeError, TypeError, KeyError, ValueError, zlib.error):
            raise self._no_tick() from None
        return None

    def _forget_notes(self) -> None:
        self._notes.clear()

    def _together(self, found: Sequence[Bounds]) -> Bounds:
        begins, ends = (tuple(getattr(one, name) for one in found) for name in ("begin", "end"))
        self.ends = ends
        if self.order is None:
            self.order = Interleaving(begins)
        for topic, offset, end in zip(self._topics, self._offsets or begins, ends, strict=True):
            if offset > end:
                raise StateError(
                    f"partition {self._source}: offset {offset} of {topic} is committed, but the topic ends at {end}: "
                    "it was made anew",
                    fix="begin anew with another app id and another place for the checkpoints",
                )
        first = self.order.first_place(begins)
        if first > self.order.end:
            # Records are gone that were not read; whoever accepts that goes on behind them.
            now = self.order.offsets_at(self.order.end)
            counts = np.maximum(np.array(begins) - np.array(now), 0)
            gone = np.flatnonzero(counts)
            self.order.add(Stretches(gone.astype(np.uint8), counts[gone]))
        return Bounds(first, sum(ends))

    def place(self, offset: int) -> tuple[Source, int]:
        """Return the topic's partition and the offset there of a record at a place."""
        assert self.order is not None
        [topic], [at] = self.order.records_at([offset])
        return self._source.parts[int(topic)], int(at)

    def _positions(self, position: int) -> Iterable[tuple[TopicPartition, int]]:
        assert self.order is not None
        return zip(self._inputs, self.order.offsets_at(position), strict=True)

    def _noted(self, step: Step, token: str) -> list[RecordBatch]:
        assert self.order is not None
        order = self.order
        until = 0 if step.tick is None else step.tick.until or 0
        written = max(order.written, step.position, step.ordered, until)
        assert written <= order.end, "whoever tells of a record has read it"
        batches = []
        if written > order.written or not self._is_noted:
            notes = order.notes(self._topics, order.written, written)
            batches = [self._batch_of({_ORDER: note.noted()}) for note in notes]
        if order.written <= self._committed:
            self._ahead_mark = self._mark
        self._pending = token, min(self._committed, order.written), written
        return [*batches, *super()._noted(step, token)]

    async def commit(self, step: Step, token: str) -> None:
        """Write all of a step, the positions and the order up to there, or nothing."""
        await super().commit(step, token)
        self._settle(Committed(step.position, token))

    def _rejected(self, rows: Sequence[Rejection]) -> Iterable[tuple[Source, Sequence[Rejection]]]:
        if not rows:
            return
        assert self.order is not None
        topics, offsets = self.order.records_at([row.offset for row in rows])
        placed = [
            (self._source.parts[topic], row._replace(offset=offset))
            for topic, offset, row in zip(topics.tolist(), offsets.tolist(), rows, strict=True)
        ]
        for source, some in groupby(placed, key=lambda one: one[0]):
            yield source, [row for _, row in some]
