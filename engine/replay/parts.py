"""What every replay does besides folding: dates left out, progress, tables put to files, counters of a run alone."""

import time
from collections.abc import Callable
from threading import Event

import pyarrow as pa

from rfmstream.engine.core.engine import Engine
from rfmstream.engine.events.instants import to_text
from rfmstream.engine.files.background import WriteBehind
from rfmstream.engine.files.sorting import times_us
from rfmstream.engine.files.source import Progress
from rfmstream.schemas.codes import NEVER_US
from rfmstream.schemas.errors import ConfigError, InputError

OnProgress = Callable[[Progress], None]


class Dates:
    """Leaves out what is dated at or after an instant, and counts what is dated after the wall clock.

    Results do not depend on the wall clock: it is read for the summary alone.
    """

    def __init__(self, until_us: int | None) -> None:
        self._until_us = until_us
        self._now_us = time.time_ns() // 1000
        self.after_until = self.ahead = 0
        self.newest_ahead_us = NEVER_US

    def before(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return the orders of a batch that are to be applied."""
        if batch.num_rows == 0:
            return batch
        us = times_us(batch)
        if self._until_us is not None and us.max() >= self._until_us:
            wanted = us < self._until_us
            batch, us = batch.filter(pa.array(wanted)), us[wanted]
            self.after_until += len(wanted) - len(us)
        ahead = us[us > self._now_us]
        if len(ahead):
            self.ahead += len(ahead)
            self.newest_ahead_us = max(self.newest_ahead_us, int(ahead.max()))
        return batch


class Listener:
    """Passes progress on, and lets the reading thread, which calls it once a block, leave early."""

    def __init__(self, on_progress: OnProgress | None) -> None:
        self._on_progress = on_progress
        self._stopped = Event()

    def stop(self) -> None:
        """Let the next call raise."""
        self._stopped.set()

    def __call__(self, progress: Progress) -> None:
        """Pass progress on."""
        if self._stopped.is_set():
            raise InputError("reading was stopped")
        if self._on_progress is not None:
            self._on_progress(progress)


def drop(_: pa.RecordBatch) -> None:
    """Write nowhere: nobody asked for the changes."""


def put(out: WriteBehind[pa.RecordBatch], table: pa.Table) -> None:
    """Hand on the batches of a table."""
    for batch in table.to_batches():
        out.put(batch)


def check_as_of(engine: Engine, as_of_us: int | None) -> None:
    """Refuse an end of time before an engine's clock."""
    if as_of_us is not None and engine.clock_us != NEVER_US and as_of_us < engine.clock_us:
        raise ConfigError(
            f"{to_text(as_of_us)} lies before the clock, {to_text(engine.clock_us)}:"
            " the newest event or an earlier as-of",
            key="as-of",
            fix="choose that instant or a later one; time does not go back",
        )
