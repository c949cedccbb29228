"""When a partition's checkpoints are written, and what is known of the newest one."""

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from rfmstream.engine.core.engine import Engine
from rfmstream.engine.live.model import Runs, Source
from rfmstream.engine.live.stats import PartitionStats
from rfmstream.engine.live.store import SavedCheckpoint, Store
from rfmstream.schemas.errors import StateError, TransportError

_GOLDEN: Final = 0.6180339887498949
"""Multiples of it, without their whole part, are spread evenly: no two partitions write checkpoints at once."""

_log = logging.getLogger(__name__)


class Saver:
    """Writes the checkpoints of a partition.

    In      law, topic_id  written into each
            interval_s  how often one is due
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
        run: Runs,
        now_us: Callable[[], int],
        stats: PartitionStats,
    ) -> None:
        self._source = source
        self._store = store
        self._law = law
        self._topic_id = topic_id
        self._interval_us = int(interval_s * 1_000_000)
        self._run = run
        self._now_us = now_us
        self._stats = stats
        self._newest: tuple[int, int] | None = None
        self.name: str | None = None
        """Of the newest checkpoint that was written here."""
        self._due_us = 0

    def begin(self, newest: tuple[int, int] | None) -> None:
        """Begin to count the time. `newest`: offset and clock of the checkpoint that is there."""
        self._newest = newest
        share = (self._source.partition + 1) * _GOLDEN % 1
        self._due_us = self._now_us() + int(self._interval_us * share)

    def is_due(self) -> bool:
        """Tell whether it is time for a checkpoint; it is not again until the interval has passed."""
        now_us = self._now_us()
        # A wall clock that is set back must not put it off for as long.
        if self._due_us - self._interval_us <= now_us < self._due_us:
            return False
        self._due_us = now_us + self._interval_us
        return True

    def has(self, offset: int, clock_us: int) -> bool:
        """Tell whether the newest checkpoint is of this offset and clock."""
        return self._newest == (offset, clock_us)

    async def save(self, engine: Engine, offset: int, mark: int) -> bool:
        """Write a checkpoint of an engine that does not move; return whether that went well: if not, it is logged."""
        started = time.perf_counter()
        # What is committed from here on is not in it.
        unsaved_us, self._stats.unsaved_us = self._stats.unsaved_us, None
        placement = self._stats.placement
        placements = [] if placement is None else placement.counts.tolist()
        write = partial(
            self._store.save,
            self._source,
            engine,
            offset,
            self._law,
            mark,
            topic_id=self._topic_id,
            placements=placements,
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
        self._newest, self.name = (offset, engine.clock_us), saved.name
        self._stats.checkpoint.observe(time.perf_counter() - started)
        self._stats.checkpoints += 1
        self._stats.checkpoint_us = self._now_us()
        self._stats.checkpoint_offset, self._stats.checkpoint_bytes = offset, saved.bytes
        return True
