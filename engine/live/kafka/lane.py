"""A lane: passes the fetches of one partition to its runner, in order, as long as this worker owns the partition."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, Protocol

from rfmstream.engine.live.kafka.fetches import joined
from rfmstream.engine.live.kafka.transport import CONFIRM_EVERY_MS, Fetched
from rfmstream.engine.live.model import FencedError, Source
from rfmstream.engine.live.runner import Runner
from rfmstream.engine.live.spans import value_bytes
from rfmstream.engine.live.stats import PartitionStats
from rfmstream.schemas.codes import NEVER_US
from rfmstream.schemas.errors import TransportError

BACKLOG_BYTES_MAX: Final = 4 << 20
"""With so many bytes of records waiting, a lane asks for no more: one fetch, or many where segments are small."""

FENCED_WAIT_S: Final = 10.0
"""After it was fenced, a worker learns from its next heartbeat that the group goes on without it. One that still has
the partition after this time was fenced for nothing: a transaction took too long."""

FENCED_MAX: Final = 3
REVOKE_S_MAX: Final = 20.0
STOP_S_MAX: Final = 8.0

_log = logging.getLogger(__name__)


class Reads(Protocol):
    """What a lane asks of the consumer."""

    async def seek_lane(self, source: Source, offset: int, epoch: int) -> bool:
        """Read a partition from an offset on; False if it is not ours any more."""
        ...

    def withhold(self, source: Source) -> None:
        """Bring nothing of a partition until `release`."""
        ...

    def release(self, source: Source) -> None:
        """Bring more."""
        ...


class Lane:
    """The lane of one partition.

    In      runner    of the partition: new, or parked by an earlier lane
            gather_s  how long to wait for more records before they are applied
            failed    called with an error that ends the worker
            finished  called when the runner has reached the end it was told to reach
            caught_up called once, when the partition has been read to its end for the first time
    """

    def __init__(  # noqa: PLR0913 - each by name
        self,
        source: Source,
        runner: Runner,
        stats: PartitionStats,
        *,
        parked: bool,
        reads: Reads,
        gather_s: float,
        failed: Callable[[BaseException], None],
        finished: Callable[[], None],
        caught_up: Callable[[Source], None] = lambda _: None,
    ) -> None:
        self.source = source
        self.runner = runner
        self.stats = stats
        self._parked = parked
        self.reads = reads
        self._gather_s = gather_s
        self._failed = failed
        self._finished = finished
        self._caught_up: Callable[[Source], None] | None = caught_up
        self._items: deque[Fetched] = deque()
        self._items_bytes = 0
        self._arrived = asyncio.Event()
        self._epoch = 0
        self._expected = 0
        self._idled_us = NEVER_US
        self._has_taken = False
        self._recovered = False
        self._ending = False
        self._broken = False
        self._fenced = 0
        self._task = asyncio.create_task(self._run(), name=f"lane {source}")

    def receive(self, fetched: Fetched) -> None:
        """Queue a fetch; called in order."""
        if fetched.epoch != self._epoch or self._ending:
            return
        # Even while a step hangs.
        self.stats.end = max(self.stats.end, fetched.end)
        if not self._is_news(fetched):
            if self._items:
                self._items[-1] = self._items[-1]._replace(end=fetched.end)
            return
        self._items.append(fetched)
        self._items_bytes += value_bytes(fetched.records)
        self._arrived.set()
        if self._items_bytes >= BACKLOG_BYTES_MAX:
            self.reads.withhold(self.source)

    def _is_news(self, fetched: Fetched) -> bool:
        """Tell whether a fetch says more than that the partition has another end, as most that bring no records do."""
        expected = self._items[-1].records.position if self._items else self._expected
        is_same = fetched.begin == fetched.records.position == expected and fetched.confirmed_us is None
        # Whoever has just sought is told where it stands.
        return not (is_same and self._has_taken and self.runner.live)

    async def park(self) -> Runner | None:
        """Finish what is in flight and return the runner with its state; None if there is no state to keep."""
        return self.runner if await self._end(self.runner.park, REVOKE_S_MAX) else None

    async def stop(self) -> None:
        """Finish what is in flight, and have a last checkpoint written."""
        await self._end(self.runner.stop, STOP_S_MAX)

    async def _end(self, leave: Callable[[], Awaitable[None]], seconds: float) -> bool:
        """Make the runner leave; False if that failed or took too long, and the state is lost."""
        self._ending = True
        self._arrived.set()
        if self._recovered and not self._broken:
            with suppress(Exception):
                async with asyncio.timeout(seconds):
                    await leave()
                    await self._task
                return not self._broken
            _log.warning(
                "step not finished in time", extra={"partition": str(self.source), "seconds": seconds}
            )
        # Otherwise nothing is in flight, and loading a state may take long.
        self._task.cancel()
        await asyncio.wait([self._task])
        await self.runner.close()
        return False

    async def _run(self) -> None:
        try:
            while not self._ending:
                try:
                    await self._recover()
                    await self._work()
                except FencedError as error:
                    await self._rest_after(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, it ends the worker
            self._broken = True
            self._failed(error)

    async def _recover(self) -> None:
        again = self._parked or self._fenced > 0
        offset = await (self.runner.resume() if again else self.runner.recover())
        self._recovered = True
        await self._seek(offset)

    async def _seek(self, offset: int) -> None:
        self._epoch += 1
        self._clear()
        self._expected = offset
        self._has_taken = False
        await self.reads.seek_lane(self.source, offset, self._epoch)
        if self.runner.finished:
            self._finished()

    async def _work(self) -> None:
        while not self._ending:
            await self._arrived.wait()
            self._arrived.clear()
            if self._ending:
                return
            if self._worth_waiting():
                await asyncio.sleep(self._gather_s)
            items = list(self._items)
            self._clear()
            if items:
                await self._take(items)

    def _clear(self) -> None:
        self._items.clear()
        self._items_bytes = 0
        self.reads.release(self.source)

    def _worth_waiting(self) -> bool:
        """Tell whether to wait for more records: some are queued, and the partition is read to its end."""
        if not self._gather_s or not self._items or self._items[-1].confirmed_us is None:
            return False
        return any(item.records.offsets for item in self._items)

    async def _take(self, items: list[Fetched]) -> None:
        if any(item.begin != before for item, before in zip(items, self._ends(items), strict=True)):
            # A fetch was dropped on the way.
            await self._seek(self.runner.position)
            return
        newest = items[-1]
        self._has_taken = True
        self._expected = newest.records.position
        self.stats.end = newest.end
        some = [item.records for item in items if item.records.offsets]
        if some:
            # Offsets behind the last record hold no record.
            await self.runner.feed(joined(some)._replace(position=self._expected))
        if not some or self._is_due(newest.confirmed_us):
            await self.runner.idle(self._expected, newest.confirmed_us)
        self._fenced = 0
        if newest.confirmed_us is not None and self._caught_up is not None:
            self._caught_up(self.source)
            self._caught_up = None
        if self.runner.finished:
            self._finished()

    def _is_due(self, confirmed_us: int | None) -> bool:
        """Tell whether to let time pass behind records, which have brought it with them up to their own time.

        A partition that falls silent is confirmed again as soon as that is due.
        """
        if confirmed_us is None or confirmed_us < self._idled_us + CONFIRM_EVERY_MS * 1000:
            return False
        self._idled_us = confirmed_us
        return True

    def _ends(self, items: list[Fetched]) -> list[int]:
        """Return where each item has to begin."""
        return [self._expected, *(item.records.position for item in items[:-1])]

    async def _rest_after(self, error: FencedError) -> None:
        self._fenced += 1
        if self._fenced >= FENCED_MAX:
            raise TransportError(
                f"{self.source}: another worker writes for this partition, again and again",
                endpoint=error.endpoint,
                fix="stop it, or give it another app_id",
            ) from error
        _log.warning(
            "fenced: waiting for the group to say whose it is", extra={"partition": str(self.source)}
        )
        deadline = asyncio.get_running_loop().time() + FENCED_WAIT_S
        while not self._ending and asyncio.get_running_loop().time() < deadline:
            self._arrived.clear()
            await _within(self._arrived.wait(), deadline - asyncio.get_running_loop().time())


async def _within(waiting: Awaitable[object], seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(max(seconds, 0)):
            await waiting
