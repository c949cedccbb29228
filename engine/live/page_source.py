"""What the page shows of a worker's own partitions."""

from typing import Any, Final

import orjson
import pyarrow as pa

from rfmstream.engine.events.instants import to_text
from rfmstream.engine.live.asked import AskedView
from rfmstream.engine.live.board import READY_STATES, Board
from rfmstream.engine.live.data import Data
from rfmstream.engine.live.feed import view_of
from rfmstream.engine.live.page import Held
from rfmstream.engine.live.stats import ViewStats
from rfmstream.schemas.errors import TransportError
from rfmstream.schemas.ruleset import Ruleset

NEWEST: Final = 10
DRAWN_MAX: Final = 1_000_000
"""Of more customers a worker draws no pictures: that would hold its orders up. `rfmstream page` does, elsewhere."""

_COLUMNS: Final = (
    *("tier", "r_band", "f_band", "m_band", "last_paid_at", "first_paid_at", "recency_days", "frequency"),
    *("monetary_minor", "lifetime_orders", "lifetime_monetary_minor", "next_change_at", "next_tier"),
    "effective_at",
)
"""Those that pictures need: no customer's id among them."""


class BoardSource:
    """One worker's partitions."""

    def __init__(self, board: Board, data: Data) -> None:
        self._board = board
        self._data = data
        # Of several views the first that is no shadow, as everywhere where none is named.
        self._view = next((view for view in board.views if not view.shadow), None)
        self._newest: tuple[int, list[Any]] = (-1, [])

    @property
    def ruleset(self) -> Ruleset | None:
        """That of what is shown."""
        return self._asked.ruleset

    @property
    def _asked(self) -> AskedView:
        return AskedView(self._board.ruleset if self._view is None else self._view.ruleset, self._view)

    def _counted(self) -> list[ViewStats]:
        """Return what each partition has counted of what is shown."""
        stats = [one.stats for _, one in sorted(self._board.partitions.items())]
        return [one if self._view is None else one.of(self._view.name) for one in stats]

    @property
    def is_drawn(self) -> bool:
        """Whether there are so few customers that pictures can be drawn."""
        return sum(one.customers for one in self._counted()) <= DRAWN_MAX

    async def state(self) -> dict[str, Any]:
        """Return what is told of partitions, tiers and the newest changes."""
        board = self._board
        ruleset = self._asked.ruleset
        partitions = sorted(board.partitions.items())
        stats = self._counted()
        counted = {tier.id: sum(one.tiers[tier.id] for one in stats) for tier in ruleset.tiers}
        return {
            "ready": board.ready,
            "ruleset": ruleset.identity,
            "time_zone": ruleset.time_zone,
            "currency": ruleset.currency,
            "currency_exponent": ruleset.currency_exponent,
            "tiers": [
                {
                    "id": tier.id,
                    "label_en": tier.label_en,
                    "label_zh": tier.label_zh,
                    "customers": counted[tier.id],
                }
                for tier in ruleset.tiers
            ],
            "customers": sum(one.customers for one in stats),
            "applied": sum(one.applied for one in stats),
            "rejected": sum(sum(one.stats.rejected.values()) for _, one in partitions),
            "changes": self._changes(stats),
            "expected": len(board.expected) or len(partitions),
            "missing": [str(source) for source in board.expected if source not in board.partitions],
            "partitions": [
                {
                    "name": str(source),
                    "state": one.stats.state,
                    "lag": one.stats.lag,
                    "position": one.stats.position,
                    "clock": None if one.stats.state not in READY_STATES else to_text(one.stats.clock_us),
                    "rejected": sum(one.stats.rejected.values()),
                }
                for source, one in partitions
            ],
            "notes": _notes(board),
            "newest": await self._newest_changes(),
        }

    async def held(self) -> Held:
        """Return what pictures are made of.

        Errors  TransportError  partitions are being recovered
        """
        board = self._board
        partitions = dict(sorted(board.partitions.items()))
        if not board.ready:
            raise TransportError("partitions are being recovered")
        # By the events' clock time has passed in each partition as far as its own events say.
        present_us = self._data.present_us(partitions)
        if board.clock == "log":
            tables = [columns_of(table) async for table in self._data.tables(partitions, None, self._asked)]
        else:
            tables = [columns_of(await self._asked.snapshot(one, None)) for one in partitions.values()]
        changes = [] if board.feed is None else board.feed.tables()
        if self._view is not None:
            changes = [table for table in changes if view_of(table) == self._view.name]
        return Held(tables, changes, present_us)

    def _changes(self, stats: list[ViewStats]) -> int:
        """Return how many changes there have been of what is shown."""
        if self._view is not None:
            return sum(one.changes.total() for one in stats)
        return 0 if self._board.feed is None else self._board.feed.end

    async def _newest_changes(self) -> list[Any]:
        """Return the newest changes, newest first, as their topic has them."""
        feed = self._board.feed
        if feed is None:
            return []
        end, newest = self._newest
        if end != feed.end:
            end = feed.end
            lines = await feed.newest(NEWEST, self._asked.name)
            newest = [orjson.loads(line.value) for line in reversed(lines)]
            self._newest = end, newest
        return newest


def _notes(board: Board) -> list[dict[str, object]]:
    """Return what whoever looks should know, by its key in the page's texts; nothing where all is well."""
    stats = [one.stats for one in board.partitions.values()]
    found: list[dict[str, object]] = []
    if any(one.placement is not None and one.placement.is_mixed for one in stats):
        found.append({"key": "producers_mixed", "count": 0})
    if ahead := sum(one.times_ahead for one in stats):
        found.append({"key": "times_ahead", "count": ahead})
    return found


def columns_of(table: pa.Table) -> pa.Table:
    """Return the columns of a snapshot that pictures need."""
    return table.select(_COLUMNS)
