"""One partition, from its recovery to its last checkpoint: who may move it, when, and what happens when it is lost.

A step is computed, then committed together with its position, and only then the next one is computed. So between two
steps the state is exactly what the log says is committed; that is when checkpoints and snapshots are taken. Where it
is unknown whether a commit happened, the log is opened anew, which settles it, and asked: every commit has its token.

`takeover` takes the partition over, `ownership` moves its state on until the partition is lost.

Source: docs/decisions/ (exactly once), docs/semantics.md 5 and 8.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, TypeVar

import pyarrow as pa

from rfmstream.engine.core.engine import Engine
from rfmstream.engine.live.committer import Committer
from rfmstream.engine.live.context import PartitionContext
from rfmstream.engine.live.erasures import Erasures
from rfmstream.engine.live.law import Law
from rfmstream.engine.live.model import LogBatch, PartitionLog, RawRecords, Runs, Source
from rfmstream.engine.live.options import Decodes, RunnerOptions
from rfmstream.engine.live.ownership import Ownership
from rfmstream.engine.live.placement import count_and_warn
from rfmstream.engine.live.saver import Saver
from rfmstream.engine.live.spans import cut_by_bytes, cut_out, value_bytes
from rfmstream.engine.live.stats import PartitionStats
from rfmstream.engine.live.store import Store
from rfmstream.engine.live.suspects import Suspects, Tries
from rfmstream.engine.live.takeover import take_over
from rfmstream.schemas.errors import StateError, TransportError
from rfmstream.schemas.plan import Plan, plan_of
from rfmstream.schemas.ruleset import Ruleset

SMALL_BYTES: Final = 256 << 10
"""Records so short, over so short a time, are applied where they are."""

_T = TypeVar("_T")

_log = logging.getLogger(__name__)


class Runner:
    """Runs one partition this worker owns. Methods take turns by themselves; only `close` does not wait.

    In      ruleset  or a plan of views
            run     calls a function here or in another thread
            trials  reads on trial what may have ended a worker; None: nobody looks
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
        ruleset: Ruleset | Plan,
        options: RunnerOptions,
        log: PartitionLog,
        store: Store,
        decoder: Decodes,
        run: Runs,
        now_us: Callable[[], int],
        stats: PartitionStats,
        trials: Tries | None = None,
    ) -> None:
        self.source = source
        self.stats = stats
        plan = plan_of([ruleset]) if isinstance(ruleset, Ruleset) else ruleset
        for name in plan.names:
            stats.of(name)  # each metric exists from the start
        law = Law.of_plan(plan, options.clock, options.tolerance_us, options.input_map)
        commits = Committer(
            source,
            log,
            retries=options.retries,
            backoff_s=options.backoff_s,
            backoff_max_s=options.backoff_max_s,
            stats=stats,
        )
        saver = Saver(
            source,
            store,
            law=str(law),
            topic_id=options.topic_id,
            interval_s=options.checkpoint_interval_s,
            erase_within_us=options.erase_within_us,
            run=run,
            now_us=now_us,
            stats=stats,
        )
        self._context = PartitionContext(
            source, plan, options, law, log, store, run, now_us, stats, commits, saver
        )
        self._decoder = decoder
        self._suspects = Suspects(source, store, trials)
        self._ownership: Ownership | None = None
        self._is_broken = False
        # Held by what moves the partition on, from its records to their commit.
        self._turn = asyncio.Lock()
        self._writing = asyncio.Lock()
        self._writer: asyncio.Task[bool] | None = None

    @property
    def position(self) -> int:
        """The offset to read next."""
        return 0 if self._ownership is None else self._ownership.position

    @property
    def live(self) -> bool:
        """Whether the silent replay is over."""
        return self._ownership is not None and self._ownership.is_live

    @property
    def finished(self) -> bool:
        """Whether, with options.until_end, all there was to do is done and committed."""
        return self._ownership is not None and self._ownership.is_finished

    async def recover(self) -> int:
        """Take the partition over: fence earlier owners, load the newest checkpoint; return the offset to seek to."""
        async with self._turn, self._context.hold:
            self._context.commits.is_leaving = False
            return await self._recover()

    async def feed(self, records: RawRecords) -> None:
        """Apply records and commit what they bring; those before `position` are left out."""
        async with self._moved_on() as ownership:
            if ownership is None:
                return
            for some in cut_by_bytes(records, self._context.options.feed_bytes_max):
                rest: RawRecords | None = some
                while rest is not None and not self._context.commits.is_leaving:
                    rest = await self._feed(ownership, rest)
            self._save_in_time()

    async def idle(self, position: int, confirmed_us: int | None) -> None:
        """Let time pass: the partition has been read to `position`, which was its end at the instant `confirmed_us`.

        None: more is there that cannot be read yet, so no time passes.

        Cheap where nothing is due; a tier change by time alone is as late as the calls are apart.
        """
        async with self._moved_on() as ownership:
            if ownership is None:
                return
            await ownership.idle(position, confirmed_us)
            self._save_in_time()

    async def checkpoint(self) -> bool:
        """Write a checkpoint if anything happened since the last one; return whether one was written.

        `feed` and `idle` see to it themselves, every checkpoint_interval_s. A failure is logged and counted.
        """
        context = self._context
        async with self._writing:
            async with context.hold:
                ownership = self._ownership
                if ownership is None or ownership.is_moving or not context.commits.is_settled:
                    return False
                if not ownership.is_joined:
                    return False
                partition = ownership.partition
                offset, erasures = partition.position, Erasures(partition.erasures.noted)
                came_to_us = partition.clock_us
                if context.saver.has(offset, came_to_us):
                    partition.erasures.settle(await context.saver.rid(erasures))
                    return False
                mark = ownership.mark
                frozen = await context.run(partition.state.frozen)
            is_written = await context.saver.save(frozen, offset, mark, erasures, came_to_us)
            if is_written and erasures.noted:
                oldest = await context.saver.rid(erasures)
                async with context.hold:
                    partition.erasures.settle(oldest)
            return is_written

    async def park(self) -> None:
        """Finish the step in flight and keep the state: the partition was revoked, and may come back."""
        self._context.commits.is_leaving = True
        async with self._turn:
            self.stats.state = "parked"
            await self._context.run(self._suspects.leave)

    async def resume(self) -> int:
        """Go on with the state in memory if nobody else committed, else recover; return the offset to seek to."""
        async with self._turn, self._context.hold:
            commits, ownership = self._context.commits, self._ownership
            commits.is_leaving = False
            if ownership is None or ownership.is_moving or not await commits.take_back():
                return await self._recover()
            await self._context.run(self._suspects.take)
            self._is_broken = False
            self.stats.state = "live" if ownership.is_live else "replaying"
            return ownership.position

    async def stop(self) -> None:
        """Finish the step in flight, write a last checkpoint, let go of the log."""
        self._context.commits.is_leaving = True
        async with self._turn:
            if self._writer is not None:
                await asyncio.wait([self._writer])
            await self.checkpoint()
            await self._context.run(self._suspects.leave)
            await self.close()

    async def close(self) -> None:
        """Drop everything as it is; never raises."""
        self._context.commits.is_leaving = True
        self._forget()
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.wait([self._writer])
        await self._context.log.close()
        self.stats.state = "stopped"

    async def snapshot(self, as_of_us: int | None = None, view: str | None = None) -> pa.Table:
        """Return one row a customer as of an instant (None: the clock), of what is committed.

        In      view  None: the first one that is no shadow
        Errors  ConfigError     `as_of_us` lies before the clock, or there is no such view
                TransportError  the partition is being recovered, or a step is in doubt
        """
        return await self.ask(lambda engine: engine.snapshot(as_of_us), view)

    def committed(self, ids: Sequence[str], as_of_us: int, view: str | None = None) -> Engine | None:
        """Return the engine of a view, to be read before anything else is awaited; None: `ask` for it.

        It is there where what it says of some customers at an instant is committed, and no step is in the making. Of
        whoever has no order in the step that is being committed it is: nobody has to wait for that.

        Errors  ConfigError  there is no such view
        """
        ownership = self._ownership
        if ownership is None or not ownership.is_live or ownership.is_moving:
            return None
        on_the_way = ownership.on_the_way
        if not self._context.commits.is_settled and (on_the_way is None or on_the_way.has_any(ids)):
            return None
        engine = ownership.partition.state.view(view).engine
        return engine if engine.clock_us <= as_of_us else None

    async def ask(
        self, question: Callable[[Engine], _T], view: str | None = None, *, small: bool = False
    ) -> _T:
        """Wait until all is committed, and return what a question finds in a view's engine, which it leaves as it is.

        In      view   None: the first one that is no shadow
                small  so little is asked that another thread is not worth it
        Errors  ConfigError     there is no such view
                TransportError  the partition is being recovered, or a step is in doubt
        """
        async with self._context.hold:
            ownership = self._ownership
            is_known = ownership is not None and ownership.is_live and not ownership.is_moving
            if ownership is None or not is_known or not self._context.commits.is_settled:
                raise TransportError("the partition is being recovered", endpoint=str(self.source))
            of = ownership.partition.state.view(view)
            return await self._context.run(partial(question, of.engine), small=small)

    @asynccontextmanager
    async def _moved_on(self) -> AsyncIterator[Ownership | None]:
        """Take a turn at moving the partition on; None: it is being left."""
        async with self._turn:
            if self._context.commits.is_leaving:
                yield None
                return
            if self._ownership is None or self._is_broken:
                raise StateError(f"partition {self.source}: it is not resumed after an error")
            self._is_broken = True
            yield self._ownership
            self._is_broken = False

    async def _recover(self) -> int:
        self._forget()
        self.stats.state = "recovering"
        taken = await take_over(self._context, self._save_in_time)
        self._ownership, self._is_broken = taken.ownership, True
        plan, end = taken.plan, taken.ownership.end
        await self._context.run(partial(self._suspects.begin, plan.offset, plan.until, end))
        await taken.begin()
        self._is_broken = False
        position = taken.ownership.position
        _log.info(
            "partition recovered",
            extra={
                "partition": str(self.source),
                "checkpoint": taken.loaded,
                "offset": position,
                "committed": taken.plan.until,
            },
        )
        return position

    async def _feed(self, ownership: Ownership, given: RawRecords) -> RawRecords | None:
        """Apply records; return the last of them where they were too many to be decoded at once."""
        small = value_bytes(given) <= SMALL_BYTES
        is_suspect = self._suspects.are_in(given)
        if is_suspect and self.source.is_merged:
            await ownership.write_order(given.position)
        is_short = small and not is_suspect and not self._decoder.blocks
        batch: LogBatch = await self._context.run(partial(self._decode, given), small=is_short)
        await ownership.feed(batch, small=small)
        done, count = len(batch.records.offsets), len(given.offsets)
        return cut_out(given, done, count) if done < count else None

    def _decode(self, given: RawRecords) -> LogBatch:
        batch = self._suspects.decode(self._decoder, given)
        self.stats.left_out += batch.left_out
        if self.stats.placement is not None:
            count_and_warn(self.stats.placement, batch.records.keys, self.source)
        return batch

    def _forget(self) -> None:
        self._ownership = None
        self._is_broken = False

    def _save_in_time(self) -> None:
        """Begin to write a checkpoint if one is due."""
        if self._writer is not None and not self._writer.done():
            return
        erasures = None if self._ownership is None else self._ownership.partition.erasures
        if self._context.saver.is_due(erasures):
            self._writer = asyncio.create_task(self.checkpoint())
