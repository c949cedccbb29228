"""Decides when a partition's checkpoint is due, writes it, and remembers the newest one."""

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from rfmstream.engine.live.erasures import Erasures
from rfmstream.engine.live.model import Runs, Source
from rfmstream.engine.live.state import State
from rfmstream.engine.live.stats import PartitionStats
from rfmstream.engine.live.store import Store
from rfmstream.schemas.codes import NEVER_US
from rfmstream.schemas.errors import StateError, TransportError

if TYPE_CHECKING:
    from rfmstream.engine.live.stored import SavedCheckpoint

_GOLDEN: Final = 0.6180339887498949
"""The fractional parts of its multiples are spread evenly, so no two partitions write checkpoints at once."""

ERASE_WITHIN_US: Final = 7 * 86_400_000_000

_TRY_AGAIN_US: Final = 10_000_000
"""Where checkpoints that must go cannot be removed, or the one in their place not be written."""

_log = logging.getLogger(__name__)


class Saver:
    """Writes the checkpoints of a partition.

    In      law, topic_id  written into each
            interval_s  how often one is due
            erase_within_us  a customer that was erased this long ago is in no checkpoint any more
            run, now_us see `engine.live.runner.Runner`
    """

    def __init__(  # noqa: PLR0913 - each by name
        self,
        source: Source,
        store: Store,
        *,
        law: str,
        topic_id: str | None = None,
        interval_s: float,
        erase_within_us: int = ERASE_WITHIN_US,
        run: Runs,
        now_us: Callable[[], int],
        stats: PartitionStats,
    ) -> None:
        self._source = source
        self._store = store
        self._law = law
        self._topic_id = topic_id
        self._interval_us = int(interval_s * 1_000_000)
        self._erase_within_us = erase_within_us
        self._run = run
        self._now_us = now_us
        self._stats = stats
        self._newest: tuple[int, int] | None = None
        self.name: str | None = None
        """Of the newest checkpoint that was written here."""
        self.oldest: int | None = None
        """Offset of the oldest checkpoint that was there when it was."""
        self._due_us = 0
        self._tried_us = NEVER_US

    def begin(self, newest: tuple[int, int] | None) -> None:
        """Begin to count the time. `newest`: offset and clock of the checkpoint that is there."""
        self._newest = newest
        share = (self._source.partition + 1) * _GOLDEN % 1
        self._due_us = self._now_us() + int(self._interval_us * share)

    def hasten(self) -> None:
        """Let a checkpoint be due now."""
        self._due_us = self._now_us()

    def is_due(self, erasures: Erasures | None = None) -> bool:
        """Tell whether it is time for a checkpoint; it is not again until the interval has passed.

        In      erasures  those that older checkpoints know nothing of: once they have to, it is time
        """
        now_us = self._now_us()
        if erasures is not None and self._has_late(erasures, now_us):
            self._tried_us = now_us
            self._due_us = now_us + self._interval_us
            return True
        # If the wall clock is set back, the checkpoint must not wait for it to catch up.
        if self._due_us - self._interval_us <= now_us < self._due_us:
            return False
        self._due_us = now_us + self._interval_us
        return True

    def _has_late(self, erasures: Erasures, now_us: int) -> bool:
        if self._tried_us <= now_us < self._tried_us + _TRY_AGAIN_US:
            return False
        return erasures.overdue(now_us, self._erase_within_us) is not None

    def has(self, offset: int, clock_us: int) -> bool:
        """Tell whether the newest checkpoint is of this offset and clock."""
        return self._newest == (offset, clock_us)

    async def rid(self, erasures: Erasures) -> int | None:
        """Drop the checkpoints that must not hold any more what they hold; if that fails, it is logged.

        In      erasures  as of the newest checkpoint
        Returns the offset of the oldest checkpoint that is there; None: not known
        """
        if not erasures.noted:
            return None
        until = erasures.overdue(self._now_us(), self._erase_within_us)
        if until is None:
            return self.oldest
        try:
            return await self._run(partial(self._store.drop_until, self._source, until))
        except (StateError, TransportError) as error:
            self._stats.checkpoint_failures += 1
            _log.warning(
                "checkpoints that hold erased customers are not removed",
                extra={"partition": str(self._source), "reason": str(error)},
            )
            return None

    async def save(
        self,
        state: State,
        offset: int,
        mark: int,
        erasures: Erasures | None = None,
        came_to_us: int | None = None,
    ) -> bool:
        """Write a checkpoint of a state that does not move; return whether that went well: if not, it is logged.

        In      erasures    those that older checkpoints know nothing of
                came_to_us  the instant that time was let pass to; None: that of the state
        """
        started = time.perf_counter()
        # Commits from here on are not in this checkpoint.
        unsaved_us, self._stats.unsaved_us = self._stats.unsaved_us, None
        placement = self._stats.placement
        placements = [] if placement is None else placement.counts.tolist()
        write = partial(
            self._store.save,
            self._source,
            state,
            offset,
            self._law,
            mark,
            topic_id=self._topic_id,
            placements=placements,
            erasures=[] if erasures is None else erasures.noted,
            came_to_us=came_to_us,
        )
        try:
            saved: SavedCheckpoint = await self._run(write)
        except (StateError, TransportError) as error:
            self._stats.checkpoint_failures += 1
            self._stats.unsaved_us = unsaved_us
            _log.warning(
                "checkpoint not written", extra={"partition": str(self._source), "reason": str(error)}
            )
            return False
        came_to_us = state.clock_us if came_to_us is None else came_to_us
        self._newest, self.name, self.oldest = (offset, came_to_us), saved.name, saved.oldest
        self._stats.checkpoint.observe(time.perf_counter() - started)
        self._stats.checkpoints += 1
        self._stats.checkpoint_us = self._now_us()
        self._stats.checkpoint_offset, self._stats.checkpoint_bytes = offset, saved.bytes
        return True
