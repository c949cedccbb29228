"""A view that joins a running state: it reads the topic from its first record, in silence, up to where the others are.

Then one step tells the newest change of each of its customers, with the mode `replay`, so that whoever keeps the newest
changes has them and automation leaves them alone; from there on it is a view like the others. If it is broken off it
begins again: until that step nobody was told anything.

Source: docs/semantics.md 10; docs/views.md
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

import numpy as np
import pyarrow as pa

from rfmstream.engine.core.engine import Engine
from rfmstream.engine.live.model import LogBatch, Step, Tick
from rfmstream.engine.live.partition import Partition
from rfmstream.engine.live.state import State

_SPARE_ROWS: Final = 1 << 18


class Joining:
    """Views on their way into a state.

    In      partition  of their engines, at the topic's first record
            until      the offset of the others
            ticks      all that were committed, oldest first
    """

    def __init__(self, partition: Partition, *, until: int, ticks: Sequence[Tick]) -> None:
        self._partition = partition
        self._until = until
        self._ticks = list(ticks)
        self._latest = {name: _Latest() for name in partition.state.names}
        partition.repeated = self._take

    @property
    def position(self) -> int:
        """The offset to read next."""
        return self._partition.position

    @property
    def has_arrived(self) -> bool:
        """Whether all records before the others' offset were read."""
        return self.position >= self._until

    def read(self, batch: LogBatch) -> None:
        """Apply records; those from the others' offset on are left out."""
        partition, offsets = self._partition, batch.records.offsets
        first = bisect_left(offsets, partition.position)
        stop = max(first, bisect_left(offsets, self._until))
        # A gap may lie behind the last of them.
        behind = self._until if stop < len(offsets) else min(batch.position, self._until)
        done = partition.repeat(batch, first, stop, self._ticks)
        del self._ticks[:done]
        partition.position = max(partition.position, behind)

    def skip_to(self, position: int) -> None:
        """Take note that there are no records before an offset."""
        self._partition.position = max(self._partition.position, min(position, self._until))

    def arrive(self, clock_us: int) -> tuple[State, dict[str, pa.Table]]:
        """Let time pass to where the others are; return the state, and by view the newest change of each customer."""
        for tick in self._ticks:
            self._partition.repeat_tick(tick)
        for step in self._partition.pass_time(clock_us, to_the_end=True):
            self._take(step)
        state = self._partition.state
        return state, {of.view.name: self._latest[of.view.name].table(of.engine) for of in state.views}

    def _take(self, step: Step) -> None:
        for told in step.told:
            self._latest[told.view].add(told.changes)


class _Latest:
    """The newest change of each customer, of tables in order."""

    def __init__(self) -> None:
        self._tables: list[pa.Table] = []
        self._rows = self._least = 0

    def add(self, changes: pa.Table) -> None:
        self._tables.append(changes)
        self._rows += changes.num_rows
        if self._rows > 2 * self._least + _SPARE_ROWS:
            self._reduce()

    def table(self, engine: Engine) -> pa.Table:
        """Return them; of customers who were erased none."""
        if not self._tables:
            return engine.no_changes
        self._reduce()
        [changes] = self._tables
        gone = changes["reason"].combine_chunks().cast(pa.string()).to_numpy(zero_copy_only=False) == "erased"
        return changes.filter(pa.array(~gone))

    def _reduce(self) -> None:
        changes = pa.concat_tables(self._tables).unify_dictionaries().combine_chunks()
        keys = pa.table(
            {
                "population": changes["population"],
                "customer_id": changes["customer_id"],
                "at": pa.array(np.arange(changes.num_rows)),
            }
        )
        newest = keys.group_by(["population", "customer_id"], use_threads=False).aggregate([("at", "max")])
        kept = np.sort(newest["at_max"].to_numpy())
        self._tables = [changes.take(pa.array(kept))]
        self._rows = self._least = kept.size
