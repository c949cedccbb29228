"""One partition, from its recovery to its last checkpoint: the only place where state, log and store meet.

A step is computed, then committed together with its position, and only then the next one is computed. So between two
steps the state is exactly what the log says is committed; that is when checkpoints and snapshots are taken. Where it
is unknown whether a commit happened, the log is opened anew, which settles it, and asked: every commit has its token.

Source: docs/decisions/ (exactly once), docs/semantics.md 5 and 8.
"""

import asyncio
import logging
import time
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Final, TypeVar

import pyarrow as pa

from rfmstream.engine.core.engine import Engine
from rfmstream.engine.core.flaps import follow_flaps, take_flaps
from rfmstream.engine.core.lookup import rows_of
from rfmstream.engine.events.instants import FIRST_US
from rfmstream.engine.live.committer import Committer
from rfmstream.engine.live.erasures import Erasures
from rfmstream.engine.live.law import Law
from rfmstream.engine.live.model import LogBatch, PartitionLog, RawRecords, Runs, Source, Step, Tick
from rfmstream.engine.live.notices import Notices
from rfmstream.engine.live.options import Decodes, RunnerOptions
from rfmstream.engine.live.partition import Partition
from rfmstream.engine.live.recovery import Plan, Progress, first_tick, plan_recovery
from rfmstream.engine.live.saver import Saver
from rfmstream.engine.live.spans import part, parts, times_us, value_bytes
from rfmstream.engine.live.stats import PartitionStats, tiers_of
from rfmstream.engine.live.store import LoadedCheckpoint, Store
from rfmstream.schemas.codes import NEVER_US
from rfmstream.schemas.errors import StateError, TransportError
from rfmstream.schemas.ruleset import Ruleset

_T = TypeVar("_T")

SMALL_BYTES: Final = 256 << 10
SMALL_US: Final = 2_000_000
"""Records so short, over so short a time, are applied where they are."""

_log = logging.getLogger(__name__)
_notices = Notices(_log)


class Runner:
    """Runs one partition this worker owns. Methods take turns by themselves; only `close` does not wait.

    In      run     calls a function here or in another thread
            now_us  the wall clock
            stats   kept up to date
    Errors  of every method; after one, `resume` before anything else, as records may have been fetched in vain:
            FencedError     another owner took over; `resume` only while the partition is still ours
            TransportError  the log did not answer after all retries
            StateError      the history cannot be gone on with: stop
    """

    def __init__(  # noqa: PLR0913 - each by name
        self,
        source: Source,
        *,
        ruleset: Ruleset,
        options: RunnerOptions,
        log: PartitionLog,
        store: Store,
        decoder: Decodes,
        run: Runs,
        now_us: Callable[[], int],
        stats: PartitionStats,
    ) -> None:
        self.source = source
        self.stats = stats
        self._ruleset = ruleset
        self._options = options
        self._law = Law.of(ruleset, options.clock, options.tolerance_us)
        self._log = log
        self._store = store
        self._decoder = decoder
        self._run = run
        self._now_us = now_us
        self._commits = Committer(
            source,
            log,
            retries=options.retries,
            backoff_s=options.backoff_s,
            backoff_max_s=options.backoff_max_s,
            stats=stats,
        )
        self._saver = Saver(
            source,
            store,
            law=str(self._law),
            topic_id=options.topic_id,
            interval_s=options.checkpoint_interval_s,
            erase_within_us=options.erase_within_us,
            run=run,
            now_us=now_us,
            stats=stats,
        )
        # Who moves the partition on, and who touches its state: a checkpoint may be taken between two steps of a feed.
        self._turn = asyncio.Lock()
        self._hold = asyncio.Lock()
        self._writing = asyncio.Lock()
        self._writer: asyncio.Task[bool] | None = None
        self._partition: Partition | None = None
        self._is_moving = False
        self._is_broken = False
        self._is_live = False
        self._finished = False
        self._until = 0
        self._ticks: list[Tick] = []
        self._present_us = NEVER_US
        self._mark = 0
        self._cap_mark = 0
        self._end = 0
        self._counted = (0, 0)

    @property
    def position(self) -> int:
        """The offset to read next."""
        return 0 if self._partition is None else self._partition.position

    @property
    def live(self) -> bool:
        """Whether the silent replay is over."""
        return self._is_live

    @property
    def finished(self) -> bool:
        """Whether, with options.until_end, all there was to do is done and committed."""
        return self._finished

    async def recover(self) -> int:
        """Take the partition over: fence earlier owners, load the newest checkpoint; return the offset to seek to."""
        async with self._turn, self._hold:
            self._commits.is_leaving = False
            return await self._recover()

    async def feed(self, records: RawRecords) -> None:
        """Apply records and commit what they bring; those before `position` are left out."""
        async with self._moved_on() as partition:
            if partition is None:
                return
            for some in parts(records, self._options.feed_bytes_max):
                rest: RawRecords | None = some
                while rest is not None and not self._commits.is_leaving:
                    rest = await self._feed(partition, rest)
            self._save_in_time()

    async def idle(self, position: int, confirmed_us: int | None) -> None:
        """Let time pass: the partition has been read to `position`, which was its end at the instant `confirmed_us`.

        None: more is there that cannot be read yet, so no time passes.

        Cheap where nothing is due; a tier change by time alone is as late as the calls are apart.
        """
        async with self._moved_on() as partition:
            if partition is None:
                return
            self.stats.position = max(position, partition.position)
            self.stats.end = max(self.stats.end if confirmed_us is None else 0, self.stats.position)
            if not self._is_live and position >= self._until:
                await self._go_live(partition)
            is_log = self._options.clock == "log" and not self._options.until_end
            if confirmed_us is not None and is_log and self._is_live:
                self._present_us = confirmed_us
                small = self._is_soon(partition, confirmed_us)
                await self._commit_all(partition, partition.pass_time(confirmed_us), small=small)
            await self._finish(partition, position)
            self._save_in_time()

    async def checkpoint(self) -> bool:
        """Write a checkpoint if anything happened since the last one; return whether one was written.

        `feed` and `idle` see to it themselves, every checkpoint_interval_s. A failure is logged and counted.
        """
        async with self._writing:
            async with self._hold:
                partition = self._partition
                if partition is None or self._is_moving or not self._commits.is_settled:
                    return False
                offset, erasures = partition.position, Erasures(partition.erasures.noted)
                if self._saver.has(offset, partition.engine.clock_us):
                    partition.erasures.settle(await self._saver.rid(erasures))
                    return False
                mark = self._log.mark if self._is_live else self._mark
                if any((cap.until or 0) > offset for cap in partition.caps):
                    mark = min(mark, self._cap_mark)
                frozen = await self._run(partition.engine.frozen)
            is_written = await self._saver.save(frozen, offset, mark, erasures)
            if is_written and erasures.noted:
                oldest = await self._saver.rid(erasures)
                async with self._hold:
                    partition.erasures.settle(oldest)
            return is_written

    async def park(self) -> None:
        """Finish the step in flight and keep the state: the partition was revoked, and may come back."""
        self._commits.is_leaving = True
        async with self._turn:
            self.stats.state = "parked"

    async def resume(self) -> int:
        """Go on with the state in memory if nobody else committed, else recover; return the offset to seek to."""
        async with self._turn, self._hold:
            self._commits.is_leaving = False
            if self._partition is None or self._is_moving or not await self._commits.take_back():
                return await self._recover()
            self._is_broken = False
            self.stats.state = "live" if self._is_live else "replaying"
            return self._partition.position

    async def stop(self) -> None:
        """Finish the step in flight, write a last checkpoint, let go of the log."""
        self._commits.is_leaving = True
        async with self._turn:
            if self._writer is not None:
                await asyncio.wait([self._writer])
            await self.checkpoint()
            await self.close()

    async def close(self) -> None:
        """Drop everything as it is; never raises."""
        self._commits.is_leaving = True
        self._forget()
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.wait([self._writer])
        await self._log.close()
        self.stats.state = "stopped"

    async def snapshot(self, as_of_us: int | None = None) -> pa.Table:
        """Return one row a customer as of an instant (None: the clock), of what is committed.

        Errors  ConfigError     `as_of_us` lies before the clock
                TransportError  the partition is being recovered, or a step is in doubt
        """
        return await self._asked(lambda engine: engine.snapshot(as_of_us))

    async def customers(self, ids: Sequence[str], as_of_us: int | None = None) -> pa.Table:
        """Return the snapshot's rows of some customers, of those that are here.

        Errors  as of `snapshot`
        """
        return await self._asked(lambda engine: rows_of(engine, ids, as_of_us))

    async def _asked(self, question: Callable[[Engine], pa.Table]) -> pa.Table:
        async with self._hold:
            partition = self._partition
            if partition is None or self._is_moving or not self._is_live or not self._commits.is_settled:
                raise TransportError("the partition is being recovered", endpoint=str(self.source))
            return await self._run(partial(question, partition.engine))

    @asynccontextmanager
    async def _moved_on(self) -> AsyncIterator[Partition | None]:
        """Take a turn at moving the partition on; None: it is being left."""
        async with self._turn:
            if self._commits.is_leaving:
                yield None
                return
            if self._partition is None or self._is_broken:
                raise StateError(f"partition {self.source}: it is not resumed after an error")
            self._is_broken = True
            yield self._partition
            self._is_broken = False

    async def _recover(self) -> int:
        self._forget()
        self.stats.state = "recovering"
        ask = self._commits.ask
        committed, now_us = await self._commits.open(), self._now_us()
        bounds = await ask(self._log.bounds)
        is_foreign = self._commits.is_foreign
        load = partial(self._store.load, self.source, None if is_foreign else committed, self._ruleset)
        loaded: LoadedCheckpoint | None = await ask(lambda: self._run(load))
        # Without a committed offset the first tick tells whether there was one.
        self._mark = loaded.mark if loaded is not None and committed is not None and not is_foreign else 0
        ticks = await ask(lambda: self._log.ticks(self._mark))
        progress = Progress(committed, bounds, ticks, is_foreign, self._options.topic_id)
        plan = plan_recovery(
            self.source,
            progress,
            loaded,
            self._ruleset,
            self._law,
            resegment=self._options.resegment,
            accept_gap=self._options.accept_gap,
        )
        partition = Partition(
            plan.engine,
            clock=self._options.clock,
            tolerance_us=self._options.tolerance_us,
            position=plan.offset,
            step_changes=self._options.step_changes,
        )
        partition.caps, self._cap_mark = plan.caps, self._mark
        if loaded is not None:
            partition.erasures = Erasures(loaded.erasures)
        follow_flaps(plan.engine)
        plan.engine.use_mode("replay" if self._options.clock == "event" else "live")
        self._saver.begin(None if loaded is None else (loaded.offset, plan.engine.clock_us))
        if loaded is not None and self.stats.placement is not None:
            self.stats.placement.begin(loaded.placements)
        self._until, self._ticks, self._is_live = plan.until, plan.ticks, False
        self._end = self.stats.end = progress.bounds.end
        self.stats.state = "replaying"
        self.stats.position, self.stats.committed = plan.offset, plan.until
        if plan.law_at_us is not None:
            await self._compute(partial(partition.change_law, self._ruleset, self._law, plan.law_at_us))
        self._partition, self._is_broken = partition, True
        await self._begin(partition, plan, now_us)
        self._is_broken = False
        _log.info(
            "partition recovered",
            extra={
                "partition": str(self.source),
                "checkpoint": None if loaded is None else loaded.name,
                "offset": partition.position,
                "committed": plan.until,
            },
        )
        return partition.position

    async def _begin(self, partition: Partition, plan: Plan, now_us: int) -> None:
        """Make the first steps of a partition that needs no replay."""
        if plan.begins:
            await self._run(partial(self._store.discard, self.source))
            tick = first_tick(plan.offset, self._law, self._options.topic_id, self._options.current_topic)
            await self._commits.commit(Step(partition.engine.no_changes, [], plan.offset, tick))
        if plan.renews:
            await self._renew(partition)
        elif self._options.accept_gap and not plan.begins:
            # What was accepted once needs no accepting again, even if no order comes before the next start.
            await self._commits.commit(Step(partition.engine.no_changes, [], plan.until))
        if plan.offset >= plan.until:
            await self._catch_up(partition)
        if plan.changes:
            # Where nothing is left to read, the clock has gone on since.
            is_present = self._options.clock == "log" and plan.offset >= self._end
            at_us = max(now_us, partition.engine.clock_us) + 1 if is_present else None
            step = await self._compute(partial(partition.change_law, self._ruleset, self._law, at_us))
            await self._commits.commit(step)
            self._observe(partition)

    async def _renew(self, partition: Partition) -> None:
        """Write down that the state goes on in a topic that was made anew; until all is there, nothing has happened."""
        frozen = partition.engine.frozen()
        if not await self._saver.save(frozen, partition.position, self._log.mark):
            raise StateError(f"partition {self.source}: its checkpoint cannot be written")
        at_us = max(partition.engine.clock_us, FIRST_US) + 1
        step = await self._compute(partial(partition.change_law, self._ruleset, self._law, at_us))
        assert step.tick is not None
        tick = step.tick._replace(ruleset=None, topic_id=self._options.topic_id)
        await self._commits.commit(replace(step, tick=tick))
        self._observe(partition)
        await self._run(partial(self._store.discard, self.source, self._saver.name))
        partition.erasures.clear()

    async def _feed(self, partition: Partition, given: RawRecords) -> RawRecords | None:
        """Apply records; return the last of them where they were too many to be decoded at once."""
        small = value_bytes(given) <= SMALL_BYTES
        batch: LogBatch = await self._run(partial(self._decode, given), small=small)
        records = batch.records
        offsets = records.offsets
        first = bisect_left(offsets, partition.position)
        end = bisect_left(offsets, self._end) if self._options.until_end else len(offsets)
        if not self._is_live:
            first = await self._repeat(partition, batch, first)
        if self._is_live and first < end:
            await self._apply(partition, batch, first, end, small=small)
        if not self._commits.is_leaving:
            self.stats.position = max(self.stats.position, partition.position, records.position)
            self.stats.end = max(self.stats.end, self.stats.position)
            await self._finish(partition, records.position)
        count = len(given.offsets)
        return part(given, len(offsets), count) if len(offsets) < count else None

    def _decode(self, given: RawRecords) -> LogBatch:
        batch = self._decoder.decode(given)
        placement = self.stats.placement
        if placement is not None:
            was_mixed = placement.is_mixed
            placement.count(batch.records.keys)
            if placement.is_mixed and not was_mixed:
                _log.warning(
                    "producers choose partitions differently, so a customer may be in two: give all of them murmur2",
                    extra={
                        "partition": str(self.source),
                        "murmur2": placement.murmur2,
                        "elsewhere": placement.elsewhere,
                    },
                )
        return batch

    async def _note_ahead(self, partition: Partition, records: RawRecords, first: int, end: int) -> None:
        """Note which records' time is ahead of the wall clock, before they are applied: they count as of now."""
        now_us = self._now_us()
        ahead = partition.ahead(records, first, end, now_us)
        if not ahead:
            return
        async with self._hold:
            if not any((cap.until or 0) > partition.position for cap in partition.caps):
                self._cap_mark = self._log.mark
            await self._commits.commit(partition.cap(records, first, end, now_us))
        self.stats.times_ahead += ahead
        newest_us = int(times_us(records, first, end).max())
        _notices.warn(
            (self.source, "ahead"),
            "records are ahead of the wall clock and count as of now: a producer's clock, or this machine's, is wrong",
            ahead,
            partition=str(self.source),
            ahead_s=round((newest_us - now_us) / 1e6),
        )

    async def _repeat(self, partition: Partition, batch: LogBatch, first: int) -> int:
        """Apply what was committed before; return the ordinal of the first record that was not."""
        offsets = batch.records.offsets
        stop = bisect_left(offsets, self._until)
        async with self._hold:
            # A gap may lie behind the last committed record; a checkpoint there would be one of the future.
            behind = self._until if stop < len(offsets) else min(batch.position, self._until)
            behind = max(partition.position, behind)
            done = await self._compute(partial(partition.repeat, batch, first, max(first, stop), self._ticks))
            del self._ticks[:done]
            partition.position = behind
        self.stats.replayed += max(stop - first, 0)
        self._observe(partition)
        if partition.position >= self._until:
            await self._go_live(partition)
        return max(first, stop)

    async def _go_live(self, partition: Partition) -> None:
        async with self._hold:
            await self._catch_up(partition)

    async def _catch_up(self, partition: Partition) -> None:
        """Apply the ticks behind the last committed record; from here on everything is told."""
        while self._ticks:
            await self._compute(partial(partition.repeat_tick, self._ticks[0]))
            del self._ticks[0]
        partition.position = max(partition.position, self._until)
        self._observe(partition)
        self.stats.tiers = tiers_of(partition.engine)
        self._is_live = True
        self.stats.state = "live"

    async def _apply(
        self, partition: Partition, batch: LogBatch, first: int, end: int, *, small: bool
    ) -> None:
        offsets = batch.records.offsets
        behind = offsets[end] if end < len(offsets) else batch.position
        await self._note_ahead(partition, batch.records, first, end)
        newest_us = partition.counted_us(batch.records, end - 1)
        await self._stay_in_present(partition, partition.counted_us(batch.records, first))
        small = small and self._is_soon(partition, newest_us)
        await self._commit_all(partition, partition.apply(batch, first, end), behind, small=small)
        if partition.position == behind:
            self.stats.records += end - first
            self.stats.log_us = max(self.stats.log_us, newest_us)

    async def _stay_in_present(self, partition: Partition, record_us: int) -> None:
        """Note that time has passed while the partition was idle, where a record of before would take it back.

        Records come a little after their time. As far as the tolerance reaches that changes nothing: to note it each
        time would cost a transaction, and a replay of the same orders would tell other instants.
        """
        behind_us = self._present_us - self._options.tolerance_us
        if max(record_us, partition.engine.clock_us) < behind_us:
            await self._commit_all(partition, partition.pass_time(self._present_us, to_the_end=True))

    @staticmethod
    def _is_soon(partition: Partition, until_us: int) -> bool:
        """Tell whether so little time passes that little can be due."""
        return until_us - partition.engine.clock_us <= SMALL_US

    async def _commit_all(
        self, partition: Partition, steps: Iterator[Step], behind: int | None = None, *, small: bool = False
    ) -> None:
        """Compute and commit steps one after another; the last one ends `behind`, if that is known."""
        while not self._commits.is_leaving:
            async with self._hold:
                started = time.perf_counter()
                step: Step | None = await self._compute(partial(next, steps, None), small=small)
                if step is None:
                    return
                self.stats.step.observe(time.perf_counter() - started)
                await self._commits.commit(step)
            self._observe(partition)
            if step.position == behind:
                return
            self._save_in_time()

    async def _finish(self, partition: Partition, position: int) -> None:
        """With until_end: let time pass to its end once all records were applied."""
        if not self._options.until_end or not self._is_live or position < self._end or self._finished:
            return
        as_of_us = self._options.as_of_us
        if as_of_us is not None:
            await self._commit_all(partition, partition.pass_time(as_of_us, to_the_end=True))
        if not self._commits.is_leaving:
            self._finished = True
            self.stats.state = "finished"

    def _observe(self, partition: Partition) -> None:
        engine = partition.engine
        if self._is_live:
            self.stats.applied += engine.counters.applied - self._counted[0]
            self.stats.duplicates += engine.counters.duplicates - self._counted[1]
        flaps = take_flaps(engine)
        if self._is_live:
            self.stats.flaps.update(flaps)
        self._counted = (engine.counters.applied, engine.counters.duplicates)
        self.stats.clock_us = engine.clock_us
        self.stats.customers, self.stats.orders, self.stats.memory = (
            engine.customers,
            engine.orders,
            engine.memory,
        )

    async def _compute(self, function: Callable[[], _T], *, small: bool = False) -> _T:
        """Move the state. What interrupts this leaves it in doubt, and so of no use."""
        self._is_moving = True
        result = await self._run(function, small=small)
        self._is_moving = False
        return result

    def _forget(self) -> None:
        self._partition = None
        self._ticks = []
        self._present_us = NEVER_US
        self._is_live = self._is_moving = self._is_broken = self._finished = False

    def _save_in_time(self) -> None:
        """Begin to write a checkpoint if one is due."""
        if self._writer is not None and not self._writer.done():
            return
        if self._saver.is_due(None if self._partition is None else self._partition.erasures):
            self._writer = asyncio.create_task(self.checkpoint())
