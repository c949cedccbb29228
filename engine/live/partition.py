"""One partition's state machine: records and instants in, steps out. No I/O, no clock, no await.

The state follows from the records, in order of their offsets, and from the ticks alone. How records were cut into
batches changes nothing. With the clock `log`, time passes before each record up to the record's time. After a day
without the worker, or in a topic of history, that is a long time. So time passes in pieces of a day, and a step that
holds enough changes and signals ends between two records or two pieces. A step that ends between two pieces has a
tick.

Source: docs/semantics.md 5.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rfmstream.engine.core.engine import Engine
from rfmstream.engine.core.view import NOT_OURS, ViewEngine
from rfmstream.engine.events.instants import FIRST_US, LAST_US
from rfmstream.engine.live.erasures import Erasures
from rfmstream.engine.live.law import Clock, Law
from rfmstream.engine.live.model import LogBatch, RawRecords, Step, Tick
from rfmstream.engine.live.rejected import Rejected
from rfmstream.engine.live.rows import ReadRows, Rows
from rfmstream.engine.live.spans import integers, times_us
from rfmstream.engine.live.state import State
from rfmstream.engine.live.telling import Made, Telling
from rfmstream.kernels.layout import DAY_US
from rfmstream.schemas.codes import NEVER_US, Outcome
from rfmstream.schemas.ruleset import Ruleset

STEP_CHANGES: Final = 1 << 16
"""A step with so many changes and signals ends where it can: it has tens of megabytes, written in a second or two."""

_DAY_US: Final = int(DAY_US)
_PIECE_US_MAX: Final = 512 * _DAY_US


class Partition:
    """Applies the records of one partition to an engine.

    In      state         or one engine; of one shard each; nobody else may change it
            clock         log: the records' time and ticks; event: the newest event applied
            tolerance_us  clock log: how far beyond the clock an event may be dated
            position      the offset to read next
            step_changes  see STEP_CHANGES
    """

    def __init__(
        self,
        state: Engine | State,
        *,
        clock: Clock,
        tolerance_us: int,
        position: int,
        step_changes: int = STEP_CHANGES,
    ) -> None:
        self.state = State.of(state)
        self.position = position
        self._is_log = clock == "log"
        self._tolerance_us = tolerance_us
        self._step_changes = step_changes
        self._piece_us = _DAY_US
        self.caps: list[Tick] = []
        """Notes of which record times count as the wall clock of their first reading; see `Tick.until`."""
        self.erasures = Erasures()
        """Those that older checkpoints know nothing of."""
        self.repeated: Callable[[Step], None] = lambda _: None
        """Is given what is repeated, which nobody is told."""
        self._came_to_us = NEVER_US

    @property
    def engine(self) -> Engine:
        """The first view's engine."""
        return self.state.engine

    @property
    def clock_us(self) -> int:
        """The newest instant that was come to; NEVER_US before the first."""
        return max(self.state.clock_us, self._came_to_us)

    def ahead(self, records: RawRecords, first: int, end: int, now_us: int) -> int:
        """Count the records of ordinals [first, end) whose time is too far ahead of the wall clock, and not noted."""
        if not self._is_log:
            return 0
        limit_us = now_us + self._tolerance_us
        if int(integers(records.timestamps_ms[first:end]).max(initial=0)) * 1000 <= limit_us:
            return 0
        return int((self._counted_us(records)[first:end] > limit_us).sum())

    def cap(self, records: RawRecords, first: int, end: int, now_us: int) -> Step:
        """Count what `ahead` counted as of `now_us`, and return the step that notes it, to be committed first."""
        offsets = records.offsets
        noted = max((cap.until or 0 for cap in self.caps), default=0)
        note = Tick(max(int(offsets[first]), noted), now_us, until=int(offsets[end - 1]) + 1)
        self.caps = [cap for cap in self.caps if (cap.until or 0) > self.position]
        self.caps.append(note)
        return self.nothing(self.position, note)

    def nothing(self, position: int, tick: Tick | None = None) -> Step:
        """Return a step in which no view tells anything."""
        first, *_ = self.state.views
        return Step(first.engine.no_changes, [], position, tick, view=first.view.name)

    def apply(self, batch: LogBatch, first: int = 0, end: int | None = None) -> Iterator[Step]:
        """Apply the records of ordinals [first, end) and yield the steps they make.

        When a step is yielded the state is that of its end, so the caller may commit it and write a checkpoint, and may
        stop there. The last one's position is behind the records: the batch's, where it ends with them.
        """
        offsets = batch.records.offsets
        end = len(offsets) if end is None else end
        rows, clock_us = ReadRows(batch, self.state), self._clock(batch.records, first)
        made = Made(self.state)
        while first < end:
            until_us = int(clock_us[end - 1])
            reach_us = self._reach_us(until_us, self._piece_us) if self._is_log else until_us
            stop = int(np.searchsorted(clock_us[:end], reach_us, "right"))
            tick = None
            if stop > first:
                before = made.count
                self._fold(made, rows, clock_us, first, stop)
                self._adapt(made.count - before)
                first = stop
            else:
                reach_us = self._reach_us(until_us)
                self._advance(made, reach_us)
                tick = Tick(int(offsets[first]), reach_us)
            if first < end and made.count >= self._step_changes:
                yield self._step(made, int(offsets[first]), tick)
                made = Made(self.state)
        yield self._step(made, int(offsets[end]) if end < len(offsets) else batch.position, None)

    def pass_time(self, until_us: int, *, to_the_end: bool = False) -> Iterator[Step]:
        """Let time pass up to `until_us` and yield the steps that makes, each with a tick; none if nothing is due.

        to_the_end  let it pass even if nothing is due
        """
        until_us = min(until_us, LAST_US)
        made, reached_us = Made(self.state), self.clock_us
        while self.state.next_due_us(until_us) <= until_us:
            reached_us = min(self._reach_us(until_us), until_us)
            self._advance(made, reached_us)
            if made.count >= self._step_changes:
                yield self._step(made, self.position, Tick(self.position, reached_us))
                made = Made(self.state)
        if to_the_end and until_us > self.state.past_us:
            reached_us = until_us
            self._advance(made, until_us)
        if made.is_touched:
            yield self._step(made, self.position, Tick(self.position, reached_us))

    def change_law(
        self, rulesets: Mapping[str, Ruleset] | Ruleset, law: Law, at_us: int | None = None
    ) -> Step:
        """Go on by another law. The clock moves by 1 µs, so that the tick is one.

        In      rulesets  by view; a single one is the first view's
                at_us     the instant of the tick, where it is there already or the present is known
        """
        if at_us is None:
            at_us = max(self.clock_us, FIRST_US) + 1
        if isinstance(rulesets, Ruleset):
            rulesets = {self.state.views[0].view.name: rulesets}
        others = {}
        for of in self.state.views:
            ruleset, before = rulesets.get(of.view.name), of.engine.ruleset
            if ruleset is not None and (ruleset.identity, ruleset.fingerprint) != (
                before.identity,
                before.fingerprint,
            ):
                others[of.view.name] = ruleset
        # Where time is the events' each view has its own, which is nobody else's to move.
        passes = self._is_log or len(self.state.views) == 1
        tables = self.state.resegment(others, at_us, passes=passes)
        made = Made(self.state)
        for told, of, changes in zip(made.views, self.state.views, tables, strict=True):
            made.add(told, changes, of.engine.signals)
        return self._step(made, self.position, Tick(self.position, at_us, str(law)))

    def repeat(self, batch: LogBatch, first: int, end: int, ticks: Sequence[Tick]) -> int:
        """Apply the records of ordinals [first, end) again, and the ticks among them; nobody is told.

        In      ticks  those not applied yet, oldest first
        Returns how many of the ticks were applied
        """
        for count, tick in enumerate(ticks):
            before = bisect_left(batch.records.offsets, tick.position, first, end)
            self._repeat(batch, first, before)
            first = before
            if first == end:
                return count
            self.repeat_tick(tick)
        self._repeat(batch, first, end)
        return len(ticks)

    def repeat_tick(self, tick: Tick) -> None:
        """Let the time pass that a tick says; nobody is told."""
        for step in self.pass_time(tick.clock_us, to_the_end=True):
            self.repeated(step)

    def _repeat(self, batch: LogBatch, first: int, end: int) -> None:
        if first < end:
            for step in self.apply(batch, first, end):
                self.repeated(step)

    def _clock(self, records: RawRecords, first: int) -> NDArray[np.int64]:
        """Return i64[records], what the log's clock says at each record from the ordinal `first` on.

        All 0 where the clock is the events'.
        """
        if not self._is_log:
            return np.zeros(len(records.offsets), dtype=np.int64)
        counted_us = self._counted_us(records)
        # Those before were applied already, and what their times counted as may be forgotten.
        counted_us[:first] = NEVER_US
        clock_us: NDArray[np.int64] = np.maximum.accumulate(np.maximum(counted_us, self.clock_us))
        return clock_us

    def counted_us(self, records: RawRecords, record: int) -> int:
        """Return what the time of a record counts as; NEVER_US where it has none."""
        return (
            int(self._counted_us(records)[record])
            if self.caps
            else int(times_us(records, record, record + 1)[0])
        )

    def _counted_us(self, records: RawRecords) -> NDArray[np.int64]:
        """Return i64[records], what their times count as."""
        counted_us = times_us(records)
        if self.caps and len(counted_us):
            offsets = integers(records.offsets)
            for cap in self.caps:
                first, stop = np.searchsorted(offsets, [cap.position, cap.until or 0]).tolist()
                of_cap = counted_us[first:stop]
                of_cap[of_cap > cap.clock_us + self._tolerance_us] = cap.clock_us
        return counted_us

    def _reach_us(self, until_us: int, piece_us: int = _DAY_US) -> int:
        """Return how far time may pass at once on the way to `until_us`: a piece from what is due first."""
        clock_us = self.clock_us
        if clock_us == NEVER_US or until_us - clock_us <= piece_us:
            return until_us
        # Not to the same instant of the next day: midnights, at which most of it happens, go one by one.
        return min(self.state.next_due_us(until_us), LAST_US - piece_us) + piece_us - 1

    def _adapt(self, changes: int) -> None:
        """Let more time pass at once where it brought few changes: a history has many days, and a fold its price."""
        if changes < self._step_changes // 16:
            self._piece_us = min(2 * self._piece_us, _PIECE_US_MAX)
        elif changes > self._step_changes // 4:
            self._piece_us = _DAY_US

    def _fold(self, made: Made, read: ReadRows, clock_us: NDArray[np.int64], first: int, end: int) -> None:
        """Apply the records of ordinals [first, end) in every view."""
        rejected = Rejected(self.state)
        for of, told in zip(self.state.views, made.views, strict=True):
            rows = read.rows_of(of)
            refused = rejected.refuse(of, rows.refused(first, end), rows.batch)
            of.engine.counters.reject(refused)
            start, stop = rows.span(first, end)
            for first_row, end_row, erases in rows.runs(start, stop):
                self._fold_rows(made, told, of, rows, clock_us, (first_row, end_row, erases), rejected)
        made.rejections += rejected.sorted()
        # Records without an order pass time, too.
        if self._is_log and clock_us[end - 1] > max(self.state.past_us, FIRST_US):
            self._advance(made, int(clock_us[end - 1]))

    def _fold_rows(  # noqa: PLR0913, PLR0917 - what a view is given
        self,
        made: Made,
        told: Telling,
        of: ViewEngine,
        rows: Rows,
        clock_us: NDArray[np.int64],
        run: tuple[int, int, bool],
        rejected: Rejected,
    ) -> None:
        """Apply some orders in a view, either none of them an erasure or all."""
        start, stop, erases = run
        changes, outcomes = of.step_log(
            rows.orders(start, stop),
            clock_us[rows.batch.record_of[start:stop]] if self._is_log else None,
            tolerance_us=self._tolerance_us,
        )
        made.add(told, changes, of.engine.signals)
        is_rejected = (outcomes >= Outcome.MALFORMED) & (outcomes != NOT_OURS)
        for at in np.flatnonzero(is_rejected).tolist():
            rejected.add(of, rows.rejection(start + at, Outcome(outcomes[at]).name.lower()))
        if erases:
            erased = start + np.flatnonzero(outcomes == Outcome.APPLIED)
            told.forget(rows.forgotten(of, erased))
            self.erasures.note(*rows.placed(erased))

    def _advance(self, made: Made, until_us: int) -> None:
        """Let time pass in every view, and add what that brings."""
        for of, told in zip(self.state.views, made.views, strict=True):
            changes = of.engine.advance(until_us)
            made.add(told, changes, of.engine.signals)

    def _step(self, made: Made, position: int, tick: Tick | None) -> Step:
        self.position = position
        if tick is not None:
            self._came_to_us = max(self._came_to_us, tick.clock_us)
        [first, *further] = made.told
        return Step(
            first.changes,
            made.rejections,
            position,
            tick,
            first.signals,
            first.forgotten,
            first.view,
            [told for told in further if told.changes.num_rows or told.signals is not None or told.forgotten],
        )
