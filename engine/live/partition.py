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
from itertools import pairwise
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rfmstream.engine.core.buffers import values_of
from rfmstream.engine.core.engine import Engine
from rfmstream.engine.core.view import NOT_OURS, ViewEngine
from rfmstream.engine.events.instants import FIRST_US, LAST_US
from rfmstream.engine.live.erasures import Erasures
from rfmstream.engine.live.law import Clock, Law
from rfmstream.engine.live.model import Forgotten, LogBatch, RawRecords, Rejection, Step, Tick, Told
from rfmstream.engine.live.originals import Originals
from rfmstream.engine.live.rejected import Rejected
from rfmstream.engine.live.spans import integers, rejection, times_us
from rfmstream.engine.live.state import State, populations_of
from rfmstream.kernels.layout import DAY_US
from rfmstream.schemas.codes import NEVER_US, OrderType, Outcome
from rfmstream.schemas.orders import CANONICAL_SCHEMA
from rfmstream.schemas.plan import ATTRIBUTE
from rfmstream.schemas.ruleset import Ruleset

STEP_CHANGES: Final = 1 << 16
"""A step with so many changes and signals ends where it can: it has tens of megabytes, written in a second or two."""

_DAY_US: Final = int(DAY_US)
_PIECE_US_MAX: Final = 512 * _DAY_US
_ROW: Final = CANONICAL_SCHEMA.get_field_index("row")
_TYPE: Final = CANONICAL_SCHEMA.get_field_index("type")
_CUSTOMER: Final = CANONICAL_SCHEMA.get_field_index("customer_id")


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
        rows, clock_us = _Read(batch, self.state), self._clock(batch.records, first)
        made = _Made(self.state)
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
                made = _Made(self.state)
        yield self._step(made, int(offsets[end]) if end < len(offsets) else batch.position, None)

    def pass_time(self, until_us: int, *, to_the_end: bool = False) -> Iterator[Step]:
        """Let time pass up to `until_us` and yield the steps that makes, each with a tick; none if nothing is due.

        to_the_end  let it pass even if nothing is due
        """
        until_us = min(until_us, LAST_US)
        made, reached_us = _Made(self.state), self.clock_us
        while self.state.next_due_us(until_us) <= until_us:
            reached_us = min(self._reach_us(until_us), until_us)
            self._advance(made, reached_us)
            if made.count >= self._step_changes:
                yield self._step(made, self.position, Tick(self.position, reached_us))
                made = _Made(self.state)
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
        made = _Made(self.state)
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

    def _fold(self, made: "_Made", read: "_Read", clock_us: NDArray[np.int64], first: int, end: int) -> None:
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
        made: "_Made",
        told: "_Telling",
        of: ViewEngine,
        rows: "_Rows",
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

    def _advance(self, made: "_Made", until_us: int) -> None:
        """Let time pass in every view, and add what that brings."""
        for of, told in zip(self.state.views, made.views, strict=True):
            changes = of.engine.advance(until_us)
            made.add(told, changes, of.engine.signals)

    def _step(self, made: "_Made", position: int, tick: Tick | None) -> Step:
        self.position = position
        if tick is not None:
            self._came_to_us = max(self._came_to_us, tick.clock_us)
        [first, *further] = [told.told() for told in made.views]
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


class _Telling:
    """What a view tells in a step so far."""

    def __init__(self, of: ViewEngine) -> None:
        self._of = of
        self.tables: list[pa.Table] = []
        self.signals: list[pa.Table] = []
        self.changes = 0
        self._forgotten: list[Forgotten] = []

    def forget(self, customers: list[tuple[str, str | None]]) -> None:
        """Take note of customers, and their populations, that were erased by what was added last."""
        self._forgotten += [Forgotten(self.changes, *customer) for customer in customers]

    def told(self) -> Told:
        changes = pa.concat_tables(self.tables) if self.tables else self._of.engine.no_changes
        signals = pa.concat_tables(self.signals) if self.signals else None
        return Told(self._of.view.name, changes, signals, self._forgotten)


class _Made:
    """The contents of a step that is being made.

    Fields  count  changes and signals of all views
            is_touched  whether anything was added, if only nothing
    """

    def __init__(self, state: State) -> None:
        self.views = [_Telling(of) for of in state.views]
        self.rejections: list[Rejection] = []
        self.count = 0
        self.is_touched = False

    def add(self, told: _Telling, changes: pa.Table, signals: pa.Table) -> None:
        told.tables.append(changes)
        told.changes += changes.num_rows
        if signals.num_rows:
            told.signals.append(signals)
        self.count += changes.num_rows + signals.num_rows
        self.is_touched = True


class _Read:
    """The rows of a batch as each view reads them."""

    def __init__(self, batch: LogBatch, state: State) -> None:
        rows: dict[tuple[str, str], _Rows] = {}
        self._rows: dict[str, _Rows] = {}
        for of in state.views:
            reading = of.view.ruleset.currency, of.view.ruleset.time_zone
            if reading not in rows:
                rows[reading] = _Rows(batch.read_by(reading))
            self._rows[of.view.name] = rows[reading]

    def rows_of(self, of: ViewEngine) -> "_Rows":
        """Return the rows of a view."""
        return self._rows[of.view.name]


class _Rows:
    """The rows of a batch, found by the ordinals of their records."""

    def __init__(self, batch: LogBatch) -> None:
        self.batch = batch
        self._refused_at = [rejection.offset for rejection in batch.refused]
        self._originals = Originals(batch)
        self._cut: tuple[int, int, pa.RecordBatch] = 0, 0, batch.orders.slice(0, 0)

    def orders(self, start: int, stop: int) -> pa.RecordBatch:
        """Return the orders [start, stop); the same batch where the same ones are asked for by the next view."""
        if self._cut[:2] != (start, stop):
            self._cut = start, stop, self.batch.orders.slice(start, stop - start)
        return self._cut[2]

    def span(self, first: int, end: int) -> tuple[int, int]:
        """Return the orders [start, stop) of records [first, end)."""
        start, stop = np.searchsorted(self.batch.record_of, [first, end]).tolist()
        return start, stop

    def runs(self, start: int, stop: int) -> Iterator[tuple[int, int, bool]]:
        """Cut the orders [start, stop) where erasures begin and end: (first, end, whether they are erasures).

        So it is known which tier changes come before an erasure and which behind it.
        """
        types = values_of(self.batch.orders.column(_TYPE), np.uint8)[start:stop]
        erases = types == OrderType.ERASED
        if not erases.any():
            yield start, stop, False
            return
        edges = [0, *(np.flatnonzero(erases[1:] != erases[:-1]) + 1).tolist(), stop - start]
        for first, end in pairwise(edges):
            yield start + first, start + end, bool(erases[first])

    def forgotten(self, of: ViewEngine, orders: NDArray[np.int64]) -> list[tuple[str, str | None]]:
        """Return who is erased in a view by these orders, and in which population."""
        places = pa.array(orders)
        ids: list[str] = self.batch.orders.column(_CUSTOMER).take(places).to_pylist()
        if of.view.per is None:
            return [(customer, None) for customer in ids]
        names = self.batch.orders.column(ATTRIBUTE + of.view.per).take(places).to_pylist()
        return [
            (customer, name)
            for customer, own in zip(ids, names, strict=True)
            for name in ([own] if own is not None else populations_of(of.engine, customer))
        ]

    def placed(self, orders: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the offsets of orders' records, and the times of these, in µs."""
        records = self.batch.record_of[orders]
        return integers(self.batch.records.offsets)[records], times_us(self.batch.records)[records]

    def refused(self, first: int, end: int) -> list[Rejection]:
        """Return what was refused before it could be applied, of records [first, end)."""
        offsets, at = self.batch.records.offsets, self._refused_at
        stop = bisect_left(at, offsets[end]) if end < len(offsets) else len(at)
        return self.batch.refused[bisect_left(at, offsets[first]) : stop]

    def rejection(self, order: int, reason: str) -> Rejection:
        """Return the rejection of an order, by its place among the orders of the batch."""
        record = int(self.batch.record_of[order])
        place = self.batch.orders.column(_ROW)[order].as_py() - int(self.batch.firsts[record])
        return rejection(self.batch.records, record, place, reason, self._originals.of(record, place))
