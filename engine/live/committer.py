"""Commits the steps of one partition, each exactly once, whatever the log answers.

Each commit has a token of its own. After an error it is unknown whether the commit happened. The committer then opens
the log anew, which ends every open transaction, and reads the token there. This commit's token: the step is
committed. The token of the commit before: it is not, and is sent again. Any other token: another owner has committed
meanwhile.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from typing import TypeVar
from uuid import uuid4

from rfmstream.engine.live.model import Committed, FencedError, PartitionLog, Rejection, Source, Step
from rfmstream.engine.live.notices import Notices
from rfmstream.engine.live.stats import PartitionStats, count_changes, count_signals
from rfmstream.schemas.errors import TransportError

_T = TypeVar("_T")

_log = logging.getLogger(__name__)
_notices = Notices(_log)


class Committer:
    """One owner's side of a partition's log.

    In      retries        how often a call is tried again before TransportError leaves here
            backoff_s      wait before the first of them; doubles up to backoff_max_s
            stats          is told of what was committed
    Fields  is_leaving     whether to try again no more
    """

    def __init__(  # noqa: PLR0913 - each by name
        self,
        source: Source,
        log: PartitionLog,
        *,
        retries: int,
        backoff_s: float,
        backoff_max_s: float,
        stats: PartitionStats,
    ) -> None:
        self._source = source
        self._log = log
        self._retries = retries
        self._backoff_s = backoff_s
        self._backoff_max_s = backoff_max_s
        self._stats = stats
        self._tokens = (f"{name}-{number}" for name in [uuid4().hex] for number in count(1))
        self._committed = Committed(None, "")
        self._doubtful: tuple[Step, str] | None = None
        self._is_opened = False
        self.is_leaving = False

    @property
    def is_settled(self) -> bool:
        """Whether it is known of every step that it is committed."""
        return self._doubtful is None

    @property
    def is_foreign(self) -> bool:
        """Whether an offset is committed that no worker committed: it has no token."""
        return self._committed.position is not None and not self._committed.token

    async def open(self) -> int | None:
        """Take the partition over; return the committed offset. A step in doubt is forgotten."""
        self._doubtful = None
        self._committed = await self.ask(self._log.open)
        self._is_opened = True
        return self._committed.position

    async def take_back(self) -> bool:
        """Take the partition over again, and settle the step in doubt; False if others have committed meanwhile."""
        committed = await self.ask(self._log.open)
        self._is_opened = True
        if self._doubtful is not None and committed == _as_committed(*self._doubtful):
            self._settled(*self._doubtful)
        elif committed != self._committed:
            return False
        elif self._doubtful is not None:
            await self._settle(*self._doubtful)
        return True

    async def commit(self, step: Step) -> None:
        """Commit a step; after an error it is in doubt."""
        assert self._doubtful is None
        self._doubtful = step, next(self._tokens)
        started = time.perf_counter()
        await self._settle(*self._doubtful)
        self._stats.commit.observe(time.perf_counter() - started)

    async def ask(self, call: Callable[[], Awaitable[_T]]) -> _T:
        """Make a call again until it is answered, a bounded number of times."""
        delay_s = self._backoff_s
        for tried in count():
            try:
                return await call()
            except FencedError:
                self._stats.state = "fenced"
                raise
            except TransportError as error:
                if tried >= self._retries or self.is_leaving:
                    self._stats.state = "failed"
                    raise TransportError(
                        error.problem, endpoint=error.endpoint, retries=tried, fix=error.fix
                    ) from error
                self._stats.retries += 1
                _log.warning("no answer", extra={"partition": str(self._source), "reason": str(error)})
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, self._backoff_max_s)
        raise AssertionError

    async def _settle(self, step: Step, token: str) -> None:
        async def attempt() -> None:
            if not self._is_opened:
                committed = await self._log.open()
                self._is_opened = True
                if committed == _as_committed(step, token):
                    return
                if committed != self._committed:
                    raise FencedError("another owner has committed", endpoint=str(self._source))
            self._is_opened = False
            await self._log.commit(step, token)
            self._is_opened = True

        await self.ask(attempt)
        self._settled(step, token)

    def _settled(self, step: Step, token: str) -> None:
        """Take note that a step is committed."""
        self._doubtful = None
        self._committed = _as_committed(step, token)
        self._stats.committed = step.position
        self._stats.ticks += step.tick is not None
        for told in step.told:
            of = self._stats.of(told.view)
            count_changes(told.changes, of.changes, of.tiers)
            if told.signals is not None:
                of.signals.update(count_signals(told.signals))
            if self._stats.told is not None:
                self._stats.told(told.view, told.changes)
        self._stats.committed_us = time.time_ns() // 1000
        if self._stats.unsaved_us is None:
            self._stats.unsaved_us = self._stats.committed_us
        self._tell_rejections(step.rejections)

    def _tell_rejections(self, rejections: Sequence[Rejection]) -> None:
        """Count what was rejected, and say so by reason with an example, of which nothing but the place is told."""
        counts = Counter(rejection.reason for rejection in rejections)
        self._stats.rejected.update(counts)
        for rejection in rejections if counts else ():
            count = counts.pop(rejection.reason, 0)
            if count:
                source, offset = self._log.place(rejection.offset)
                _notices.warn(
                    (self._source.topic, rejection.reason),
                    "rows rejected",
                    count,
                    reason=rejection.reason,
                    example=f"{source} offset {offset} row {rejection.row}",
                )


def _as_committed(step: Step, token: str) -> Committed:
    return Committed(step.position, token)
