"""One ownership of a partition, from its recovery until it is lost: the state, and what moves it on.

First the records and ticks that are committed are applied again in silence (`is_live` is False). From then on each step
is computed, then committed together with its position, and only then the next one is computed.

Source: docs/decisions/ (exactly once), docs/semantics.md 5 and 8.
"""

import logging
import time
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from rfmstream.engine.core.flaps import take_flaps
from rfmstream.engine.core.machine import Mode
from rfmstream.engine.live.context import PartitionContext
from rfmstream.engine.live.joining import Joining
from rfmstream.engine.live.model import LogBatch, RawRecords, Rejection, Step, Tick, Told
from rfmstream.engine.live.notices import Notices
from rfmstream.engine.live.options import RunnerOptions
from rfmstream.engine.live.partition import Partition
from rfmstream.engine.live.spans import times_us
from rfmstream.engine.live.stats import tiers_of
from rfmstream.engine.live.touched import Touched
from rfmstream.schemas.codes import NEVER_US

_T = TypeVar("_T")

Joined = Callable[[Sequence[Told], Sequence[Rejection], Mapping[str, Any] | None], Awaitable[None]]

_SMALL_US = 2_000_000
"""Over so short a time little can be due."""

_log = logging.getLogger(__name__)
_notices = Notices(_log)


def mode_of(options: RunnerOptions) -> Mode:
    """Return what changes say of themselves."""
    return "replay" if options.clock == "event" else "live"


class Ownership:
    """Moves one partition's state on, a step at a time. Its methods are called one at a time.

    In      partition  the state, as a checkpoint or nothing gave it
            until      what comes before this offset is committed, and applied in silence
            ticks      the committed ticks to apply in silence, oldest first
            end        the offset that was the partition's end at the recovery
            mark       of the log, as the checkpoint of the recovery says
            save_in_time  is called between steps: begins to write a checkpoint if one is due
    Fields  is_live    whether the silent replay is over
            is_moving  whether a step is being computed; where that was interrupted the state is of no use
            is_finished  whether, with options.until_end, all there was to do is done and committed
            on_the_way   whose orders the step has that is being committed; None: nobody knows, or there is none
    """

    def __init__(  # noqa: PLR0913 - each by name
        self,
        context: PartitionContext,
        partition: Partition,
        *,
        until: int,
        ticks: list[Tick],
        end: int,
        mark: int,
        save_in_time: Callable[[], None],
    ) -> None:
        self.partition = partition
        self.is_live = self.is_moving = self.is_finished = False
        self.on_the_way: Touched | None = None
        self._context = context
        self.end = end
        self._until, self._ticks = until, ticks
        self._mark = self._cap_mark = mark
        self._present_us = NEVER_US
        self._counted: dict[str, tuple[int, int]] = {}
        self._joining: Joining | None = None
        self._save_in_time = save_in_time

    @property
    def position(self) -> int:
        """The offset to read next."""
        return self.partition.position if self._joining is None else self._joining.position

    @property
    def is_joined(self) -> bool:
        """Whether all views are there."""
        return self._joining is None

    async def join(self, joining: Joining, then: Joined) -> None:
        """Let views join before anything else is read.

        In      then  is called once they are there, with what they have not told yet, the rows they rejected, and how
                      they have joined
        """
        self._joining, self._then = joining, then
        await self._arrive(joining)

    async def _read_joining(self, joining: Joining, batch: LogBatch) -> bool:
        """Read records in views that join; return whether they have arrived."""
        context = self._context
        async with context.hold:
            if not await self._read_history(joining):
                return False
            before = joining.position
            await self.compute(partial(joining.read, batch))
            await self._tell_joining(joining)
            context.stats.replayed += bisect_left(batch.records.offsets, joining.position) - bisect_left(
                batch.records.offsets, before
            )
            return await self._arrive(joining)

    async def _read_history(self, joining: Joining) -> bool:
        """Read the files of history that views begin with; return whether all is read: not where we leave."""
        has_more = True
        while has_more and not self._context.commits.is_leaving:
            has_more = await self.compute(joining.read_history)
            await self._tell_joining(joining)
        return not has_more

    async def _tell_joining(self, joining: Joining) -> None:
        """Tell what views that join have to tell once there is a step of it."""
        context = self._context
        if joining.count >= context.options.step_changes and not context.commits.is_leaving:
            step = await self.compute(partial(joining.take, self.partition.position))
            await context.commits.commit(step)

    async def _arrive(self, joining: Joining) -> bool:
        """Go on with all views if those that join have arrived; return whether they have."""
        if not await self._read_history(joining) or not joining.has_arrived:
            return False
        partition = self.partition
        state, told, rejections = await self.compute(partial(joining.arrive, partition.clock_us))
        state.use_mode(mode_of(self._context.options))
        partition.state = partition.state.with_views(state, self._context.plan.names)
        partition.state.follow_flaps()
        self._joining = None
        await self._then(told, rejections, joining.noted)
        _log.info(
            "views have joined",
            extra={
                "partition": str(self._context.source),
                "views": ", ".join(state.names),
                **joining.history_told,
            },
        )
        # Until there is a checkpoint they would have to join again after a kill, from the same files.
        self._context.saver.hasten()
        return True

    @property
    def mark(self) -> int:
        """Where in the log the ticks begin that a checkpoint of now needs."""
        mark = self._context.log.mark if self.is_live else self._mark
        if any((cap.until or 0) > self.partition.position for cap in self.partition.caps):
            mark = min(mark, self._cap_mark)
        return mark

    async def feed(self, batch: LogBatch, *, small: bool) -> None:
        """Apply records and commit what they bring.

        In      small  the records are so few that they are applied where they are
        """
        context, partition, records = self._context, self.partition, batch.records
        offsets = records.offsets
        if self._joining is not None and not await self._read_joining(self._joining, batch):
            return
        first = bisect_left(offsets, partition.position)
        end = bisect_left(offsets, self.end) if context.options.until_end else len(offsets)
        if not self.is_live:
            first = await self._repeat(batch, first)
        if self.is_live and first < end:
            await self._apply(batch, first, end, small=small)
        if not context.commits.is_leaving:
            context.stats.position = max(context.stats.position, partition.position, records.position)
            context.stats.end = max(context.stats.end, context.stats.position)
            await self._finish(records.position)

    async def idle(self, position: int, confirmed_us: int | None) -> None:
        """Let time pass; see `engine.live.runner.Runner.idle`."""
        context, partition = self._context, self.partition
        context.stats.position = max(position, partition.position)
        context.stats.end = max(context.stats.end if confirmed_us is None else 0, context.stats.position)
        if self._joining is not None:
            async with context.hold:
                joining = self._joining
                if await self._read_history(joining):
                    joining.skip_to(position)
                if not await self._arrive(joining):
                    return
        if not self.is_live and position >= self._until:
            await self._go_live()
        is_log = context.options.clock == "log" and not context.options.until_end
        if confirmed_us is not None and is_log and self.is_live:
            self._present_us = confirmed_us
            small = self._is_soon(confirmed_us)
            await self._commit_all(partition.pass_time(confirmed_us), small=small, touched=Touched(None))
        await self._finish(position)

    async def write_order(self, position: int) -> None:
        """Of several topics: write down in which order records before a position are read, if nobody has.

        What is noted of records that are not applied yet is noted of their places in that order.
        """
        if self.is_live and self.is_joined:
            async with self._context.hold:
                step = self.partition.nothing(self.partition.position)
                await self._context.commits.commit(replace(step, ordered=position))

    async def catch_up(self) -> None:
        """Apply the ticks behind the last committed record; from here on everything is told."""
        while self._ticks:
            await self.compute(partial(self.partition.repeat_tick, self._ticks[0]))
            del self._ticks[0]
        self.partition.position = max(self.partition.position, self._until)
        self.observe()
        for of in self.partition.state.views:
            self._context.stats.of(of.view.name).tiers = tiers_of(of.engine)
        self.is_live = True
        self._context.stats.state = "live"

    async def compute(self, function: Callable[[], _T], *, small: bool = False) -> _T:
        """Move the state. What interrupts this leaves it in doubt, and so of no use."""
        self.is_moving = True
        result = await self._context.run(function, small=small)
        self.is_moving = False
        return result

    def observe(self) -> None:
        """Show in the stats what the state is now."""
        stats = self._context.stats
        stats.clock_us = self.partition.clock_us
        for of in self.partition.state.views:
            engine, own = of.engine, stats.of(of.view.name)
            flaps, counters = take_flaps(engine), engine.counters
            if self.is_live:
                own.flaps.update(flaps)
                applied, duplicates = self._counted.get(of.view.name, (0, 0))
                own.applied += counters.applied - applied
                own.duplicates += counters.duplicates - duplicates
            self._counted[of.view.name] = counters.applied, counters.duplicates
            own.customers, own.orders, own.memory = engine.customers, engine.orders, engine.memory

    async def _repeat(self, batch: LogBatch, first: int) -> int:
        """Apply what was committed before; return the ordinal of the first record that was not."""
        partition, offsets = self.partition, batch.records.offsets
        stop = bisect_left(offsets, self._until)
        async with self._context.hold:
            # A gap may lie behind the last committed record; a checkpoint there would be one of the future.
            behind = self._until if stop < len(offsets) else min(batch.position, self._until)
            behind = max(partition.position, behind)
            done = await self.compute(partial(partition.repeat, batch, first, max(first, stop), self._ticks))
            del self._ticks[:done]
            partition.position = behind
        self._context.stats.replayed += max(stop - first, 0)
        self.observe()
        if partition.position >= self._until:
            await self._go_live()
        return max(first, stop)

    async def _go_live(self) -> None:
        async with self._context.hold:
            await self.catch_up()

    async def _apply(self, batch: LogBatch, first: int, end: int, *, small: bool) -> None:
        partition, offsets = self.partition, batch.records.offsets
        behind = offsets[end] if end < len(offsets) else batch.position
        await self._note_ahead(batch.records, first, end)
        newest_us = partition.counted_us(batch.records, end - 1)
        await self._stay_in_present(partition.counted_us(batch.records, first))
        small = small and self._is_soon(newest_us)
        steps = partition.apply(batch, first, end)
        await self._commit_all(steps, behind, small=small, touched=Touched(batch))
        if partition.position == behind:
            self._context.stats.records += end - first
            self._context.stats.log_us = max(self._context.stats.log_us, newest_us)

    async def _note_ahead(self, records: RawRecords, first: int, end: int) -> None:
        """Note which records' time is ahead of the wall clock, before they are applied: they count as of now."""
        context, partition = self._context, self.partition
        now_us = context.now_us()
        ahead = partition.ahead(records, first, end, now_us)
        if not ahead:
            return
        async with context.hold:
            if not any((cap.until or 0) > partition.position for cap in partition.caps):
                self._cap_mark = context.log.mark
            await context.commits.commit(partition.cap(records, first, end, now_us))
        context.stats.times_ahead += ahead
        newest_us = int(times_us(records, first, end).max())
        _notices.warn(
            (context.source, "ahead"),
            "records are ahead of the wall clock and count as of now: a producer's clock, or this machine's, is wrong",
            ahead,
            partition=str(context.source),
            ahead_s=round((newest_us - now_us) / 1e6),
        )

    async def _stay_in_present(self, record_us: int) -> None:
        """Note that time has passed while the partition was idle, where a record of before would take it back.

        Records come a little after their time. As far as the tolerance reaches that changes nothing: to note it each
        time would cost a transaction, and a replay of the same orders would tell other instants.
        """
        behind_us = self._present_us - self._context.options.tolerance_us
        if max(record_us, self.partition.clock_us) < behind_us:
            await self._commit_all(self.partition.pass_time(self._present_us, to_the_end=True))

    def _is_soon(self, until_us: int) -> bool:
        """Tell whether so little time passes that little can be due."""
        return until_us - self.partition.clock_us <= _SMALL_US

    async def _commit_all(
        self,
        steps: Iterator[Step],
        behind: int | None = None,
        *,
        small: bool = False,
        touched: Touched | None = None,
    ) -> None:
        """Compute and commit steps one after another; the last one ends `behind`, if that is known.

        In      touched  whose orders are in them; None: nobody knows
        """
        context = self._context
        while not context.commits.is_leaving:
            async with context.hold:
                started = time.perf_counter()
                step: Step | None = await self.compute(partial(next, steps, None), small=small)
                if step is None:
                    return
                context.stats.step.observe(time.perf_counter() - started)
                self.on_the_way = touched
                try:
                    await context.commits.commit(step)
                finally:
                    self.on_the_way = None
            self.observe()
            if step.position == behind:
                return
            self._save_in_time()

    async def _finish(self, position: int) -> None:
        """With until_end: let time pass to its end once all records were applied."""
        options = self._context.options
        if not options.until_end or not self.is_live or position < self.end or self.is_finished:
            return
        if options.as_of_us is not None:
            await self._commit_all(self.partition.pass_time(options.as_of_us, to_the_end=True))
        if not self._context.commits.is_leaving:
            self.is_finished = True
            self._context.stats.state = "finished"
