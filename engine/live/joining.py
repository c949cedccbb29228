"""Views that join a running state: they read what came before in silence of the others, and tell all of it.

They begin with files of history, if there are some, then with the topic's first record, and go on to where the others
are. What they tell says the mode `replay`. It leaves in steps that commit the others' offset once more, each with a
note of how far it is told: the rows of the files, and the offset. A view that is broken off begins again and is silent
up to its note. Cutting a history anywhere changes nothing of it, so every change is told once.

Source: docs/semantics.md 8, 10; docs/views.md
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from rfmstream.engine.core.buffers import values_of
from rfmstream.engine.core.machine import STEP_ROWS
from rfmstream.engine.core.view import NOT_OURS, ViewEngine
from rfmstream.engine.events.instants import FIRST_US
from rfmstream.engine.live.model import LogBatch, Rejection, Step, Tick, Told
from rfmstream.engine.live.partition import Partition
from rfmstream.engine.live.rows import erasure_runs, forgotten
from rfmstream.engine.live.state import State
from rfmstream.engine.live.telling import Telling
from rfmstream.schemas.codes import Outcome
from rfmstream.schemas.orders import CANONICAL_SCHEMA

if TYPE_CHECKING:
    from rfmstream.engine.live.view_history import Part

_AT: Final = CANONICAL_SCHEMA.get_field_index("occurred_at")


class Begun(NamedTuple):
    """How far a view that joins is, or has told.

    Fields  rows    of the files of history that are in it
            offset  records before it are in it
    """

    rows: int
    offset: int


class Own(NamedTuple):
    """What a view that joins is given.

    Fields  by     what determines all that it tells: its rules and where it begins
            begun  what it has told already is before this; None: nothing
            part   its orders in the files of history; None: there are no files
    """

    by: Mapping[str, Any]
    begun: Begun | None = None
    part: "Part | None" = None


class Joining:
    """Views on their way into a state.

    In      partition  of their engines, at the topic's first record
            until      the offset of the others
            clock_us   the instant that the others have come to
            ticks      all that were committed, oldest first
            views      what each is given, by name
            tells      whether what they bring is told; else it was told before
            has_clock  whether time is that of the log; else of the events
            tells_rejected  whether rows that they reject are told, too: the log must know where they came from
    Fields  left_out   rows of history by view that are dated after the others' clock: the topic brings them
            refused    rows of history that a view rejects, by reason
    """

    def __init__(  # noqa: PLR0913 - each by name
        self,
        partition: Partition,
        *,
        until: int,
        clock_us: int,
        ticks: Sequence[Tick],
        views: Mapping[str, Own],
        tells: bool,
        has_clock: bool,
        tells_rejected: bool = True,
    ) -> None:
        self._partition = partition
        self._until = until
        self._clock_us = clock_us
        self._ticks = list(ticks)
        self._views = views
        self._tells = tells
        self._has_clock = has_clock
        self._tells_rejected = tells_rejected
        self._heard: set[str] = set()
        self._telling: dict[str, Telling] = {}
        self._rows = dict.fromkeys(views, 0)
        self._history = self._read_history()
        self._rejections: list[Rejection] = []
        self.count = 0
        """Changes, signals and rejected rows that are not handed on."""
        self.left_out = dict.fromkeys(views, 0)
        self.refused: dict[str, int] = {}
        partition.repeated = self._take
        self._begin_telling()

    @property
    def names(self) -> tuple[str, ...]:
        """The views."""
        return tuple(self._views)

    @property
    def position(self) -> int:
        """The offset to read next."""
        return self._partition.position

    @property
    def has_arrived(self) -> bool:
        """Whether all records before the others' offset were read."""
        return self.position >= self._until

    def read_history(self) -> bool:
        """Apply a batch of the files of history; return whether there was one."""
        return next(self._history, None) is not None

    def read(self, batch: LogBatch) -> None:
        """Apply records; those from the others' offset on are left out."""
        partition, offsets = self._partition, batch.records.offsets
        first = bisect_left(offsets, partition.position)
        stop = max(first, bisect_left(offsets, self._until))
        # A gap may lie behind the last of them.
        behind = self._until if stop < len(offsets) else min(batch.position, self._until)
        told = {
            bisect_left(offsets, own.begun.offset) for own in self._views.values() if own.begun is not None
        }
        for end in sorted({edge for edge in told if first < edge < stop} | {stop}):
            self._listen(offsets[first] if first < len(offsets) else behind)
            done = partition.repeat(batch, first, end, self._ticks)
            del self._ticks[:done]
            first = end
        partition.position = max(partition.position, behind)

    def skip_to(self, position: int) -> None:
        """Take note that there are no records before an offset."""
        self._partition.position = max(self._partition.position, min(position, self._until))

    def take(self, position: int) -> Step:
        """Return a step of all that is to be told so far, at the offset that the others have come to."""
        [first, *further], rejections = self._taken()
        return Step(
            first.changes,
            rejections,
            position,
            Tick(position, FIRST_US, joining=self.noted),
            first.signals,
            first.forgotten,
            first.view,
            further,
        )

    @property
    def noted(self) -> dict[str, dict[str, Any]]:
        """What is to be written down of the views."""
        return {
            name: {**own.by, "rows": self._rows[name], "offset": self.position}
            for name, own in self._views.items()
        }

    @property
    def history_told(self) -> dict[str, Any]:
        """What became of the rows of the files of history, for people; nothing without any."""
        if all(own.part is None for own in self._views.values()):
            return {}
        told = {"history": max(self._rows.values()), "after_the_state": max(self.left_out.values())}
        return told | {f"history_{reason}": count for reason, count in sorted(self.refused.items())}

    def arrive(self, clock_us: int) -> tuple[State, list[Told], list[Rejection]]:
        """Let time pass to where the others are; return the state, and what is still to be told, rejected rows last."""
        self._listen(self._until)
        for tick in self._ticks:
            self._partition.repeat_tick(tick)
        for step in self._partition.pass_time(clock_us, to_the_end=True):
            self._take(step)
        return self._partition.state, *self._taken()

    def _listen(self, offset: int) -> None:
        """Hear those views from here on that have not told yet what comes now."""
        self._heard = {
            name
            for name, own in self._views.items()
            if self._tells and (own.begun is None or (self._rows[name], offset) >= own.begun)
        }

    def _take(self, step: Step) -> None:
        for told in step.told:
            if told.view in self._heard:
                self._telling[told.view].go_on(told)
                self.count += told.changes.num_rows + (0 if told.signals is None else told.signals.num_rows)
        for row in step.rejections if self._tells_rejected else ():
            # A view that joins alone needs no name in its own state, and does among the others.
            if views := tuple(name for name in row.views or self.names if name in self._heard):
                self._rejections.append(row._replace(views=views))
                self.count += 1

    def _taken(self) -> tuple[list[Told], list[Rejection]]:
        told, rejections = [telling.told() for telling in self._telling.values()], self._rejections
        self._begin_telling()
        return told, rejections

    def _begin_telling(self) -> None:
        self._telling = {of.view.name: Telling(of) for of in self._partition.state.views}
        self._rejections = []
        self.count = 0

    def _read_history(self) -> Iterator[int]:
        """Apply the files of history in one view after the other, and yield how many rows each batch had."""
        for of in self._partition.state.views:
            part = self._views[of.view.name].part
            if part is None or part.rows == 0:
                continue
            for batch in part.batches():
                due = batch.filter(pa.array(values_of(batch.column(_AT), np.int64) <= self._clock_us))
                self.left_out[of.view.name] += batch.num_rows - due.num_rows
                # Whole batches, where parts of an order must not be torn apart.
                step_rows = max(due.num_rows, 1) if part.has_parts else STEP_ROWS
                for start in range(0, due.num_rows, step_rows):
                    orders = due.slice(start, step_rows)
                    self._listen(self.position)
                    self._apply(of, orders, has_parts=part.has_parts)
                    self._rows[of.view.name] += orders.num_rows
                    yield orders.num_rows

    def _apply(self, of: ViewEngine, orders: pa.RecordBatch, *, has_parts: bool) -> None:
        """Apply orders at the instants at which they happened."""
        telling = Telling(of)
        for start, stop, erases in erasure_runs(orders):
            run = orders.slice(start, stop - start)
            at_us = values_of(run.column(_AT), np.int64)
            log_us = np.maximum.accumulate(np.maximum(at_us, of.engine.clock_us))
            changes, outcome = of.step_log(run, log_us if self._has_clock else None, has_parts=has_parts)
            telling.go_on(Told(of.view.name, changes, of.engine.signals))
            if erases:
                telling.forget(forgotten(of, run, np.flatnonzero(outcome == Outcome.APPLIED)))
            for code in outcome[(outcome >= Outcome.MALFORMED) & (outcome != NOT_OURS)].tolist():
                reason = Outcome(code).name.lower()
                self.refused[reason] = self.refused.get(reason, 0) + 1
        told = telling.told()
        self._take(Step(told.changes, [], self.position, None, told.signals, told.forgotten, told.view))
