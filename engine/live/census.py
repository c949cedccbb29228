"""How many customers each population of a view has in each tier, counted while somebody looks.

Nobody counts populations as orders come in, of which there may be tens of thousands: their customers' records are gone
through whenever something was committed, in at most a tenth of the time.
"""

import asyncio
import time
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rfmstream.engine.core.engine import Engine
from rfmstream.engine.core.populations import Populations
from rfmstream.engine.live.board import Board, Watched
from rfmstream.schemas.codes import NO_TIER
from rfmstream.schemas.errors import TransportError
from rfmstream.schemas.plan import View

_SHARE: Final = 0.1
_S_MIN: Final = 0.2


class _Counted(NamedTuple):
    """Customers of a partition, i64[populations, 1 + tiers], by the populations' numbers; without a tier first."""

    populations: Populations
    cells: NDArray[np.int64]


class Census:
    """Counts the customers of a view's populations, over all partitions of a worker."""

    def __init__(self, board: Board, view: View) -> None:
        self._board = board
        self._view = view
        self._counted: list[_Counted] = []
        self._of: object = None
        self._next_at = 0.0
        self._counting = asyncio.Lock()

    async def tiers(self, population: str) -> list[int]:
        """Return the customers of one population: those without a tier, then of each tier in the ruleset's order."""
        await self._count_anew()
        total = np.zeros(1 + len(self._view.ruleset.tiers), np.int64)
        for one in self._counted:
            number = one.populations.number(population)
            if number is not None and number < len(one.cells):
                total += one.cells[number]
        return [int(cell) for cell in total]

    async def populations(self) -> dict[str, int]:
        """Return the customers of each population that has any."""
        await self._count_anew()
        found: dict[str, int] = {}
        for one in self._counted:
            for name, count in zip(one.populations.names, one.cells.sum(axis=1).tolist(), strict=False):
                if count:
                    found[name] = found.get(name, 0) + count
        return found

    async def _count_anew(self) -> None:
        """Count again where something was committed since, and long enough after the last time."""
        async with self._counting:
            partitions = [one for _, one in sorted(self._board.partitions.items())]
            now = [(one.stats.committed, one.stats.ticks, one.stats.applied) for one in partitions]
            started = time.monotonic()
            if now == self._of or started < self._next_at:
                return
            try:
                self._counted = await asyncio.gather(*map(self._count, partitions))
            except TransportError:
                # A partition is being recovered: what was counted last is what there is.
                return
            finally:
                took_s = time.monotonic() - started
                self._next_at = time.monotonic() + max(_S_MIN, took_s / _SHARE)
            self._of = now

    async def _count(self, one: Watched) -> _Counted:
        assert one.reads is not None, "a partition of a worker can be asked"
        return await one.reads.ask(_counted, self._view.name)


def _counted(engine: Engine) -> _Counted:
    populations, tiers = engine.populations, len(engine.ruleset.tiers)
    assert populations is not None, "only a view of populations is counted by them"
    cells = np.zeros((len(populations.names), 1 + tiers), np.int64)
    for shard in engine.shards:
        handles = np.arange(1, shard.customers + 1, dtype=np.uint32)
        handles = handles[~shard.hidden(handles)]
        records = shard.customer_records()[0]
        numbers = Populations.numbers_in(records["key0"][handles])
        tier = records["tier"][handles].astype(np.int64) - NO_TIER
        cells += np.bincount(numbers * (1 + tiers) + tier, minlength=cells.size).reshape(cells.shape)
    return _Counted(populations, cells)
