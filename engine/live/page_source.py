"""What the page shows of a worker's own partitions, through one view of the orders."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson
import pyarrow as pa

from rfmstream.engine.events.instants import to_text
from rfmstream.engine.live.asked import AskedView, chosen
from rfmstream.engine.live.board import READY_STATES, Board
from rfmstream.engine.live.census import Census
from rfmstream.engine.live.data import Data
from rfmstream.engine.live.page import Held
from rfmstream.engine.live.stats import ViewStats
from rfmstream.schemas.errors import TransportError
from rfmstream.schemas.plan import View
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
        self._censuses: dict[str, Census] = {}

    def asked(self, view: str | None, population: str | None) -> AskedView:
        """Return what names choose.

        Errors  ConfigError  there is no such view, or it has no populations
        """
        return chosen(self._board.views, self._board.ruleset, view, population)

    def look(self, asked: AskedView) -> "BoardLook":
        """Return what is seen of a view and a population."""
        return BoardLook(self._board, self._data, asked, self._census(asked))

    async def populations(self, asked: AskedView) -> dict[str, int]:
        """Return the populations of a view and the customers of each; none where it does not part them."""
        census = self._census(asked)
        return {} if census is None else await census.populations()

    def _census(self, asked: AskedView) -> Census | None:
        view = asked.view
        if view is None or view.per is None:
            return None
        return self._censuses.setdefault(view.name, Census(self._board, view))


class BoardLook:
    """One view of them, or one population of it.

    In      census  counts the view's populations; None: it has none
    """

    def __init__(self, board: Board, data: Data, asked: AskedView, census: Census | None) -> None:
        self._board = board
        self._data = data
        self._asked = asked
        self._census = census
        self._feed = board.feed_of(asked.view)
        self._newest: list[Any] = []
        self._seen = 0
        self._changes: int | None = 0

    @property
    def ruleset(self) -> Ruleset:
        """That of what is shown."""
        return self._asked.ruleset

    @property
    def is_drawn(self) -> bool:
        """Whether there are so few customers that pictures can be drawn."""
        return sum(one.customers for one in self._counted()) <= DRAWN_MAX

    def begin(self) -> None:
        """Nothing has to be followed: all of it is here."""

    def end(self) -> None:
        """Nothing was followed."""

    async def state(self) -> dict[str, Any]:
        """Return what is told of partitions, tiers and the newest changes."""
        board, ruleset = self._board, self._asked.ruleset
        partitions = sorted(board.partitions.items())
        stats = self._counted()
        await self._see_newest()
        if self._census is not None and self._asked.population is not None:
            cells = await self._census.tiers(self._asked.population)
            customers, tiers = sum(cells), cells[1:]
            # Nobody counts a population's orders as they come in.
            applied, changes = None, self._changes
        else:
            applied = sum(one.applied for one in stats)
            customers = sum(one.customers for one in stats)
            tiers = [sum(one.tiers[tier.id] for one in stats) for tier in ruleset.tiers]
            changes = self._all_changes(stats)
        return {
            "ready": board.ready,
            **choice_of(self._asked, board.views),
            "tiers": tiers_shown(ruleset, tiers),
            "customers": customers,
            "applied": applied,
            "rejected": sum(sum(one.stats.rejected.values()) for _, one in partitions),
            "changes": changes,
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
            "newest": self._newest,
        }

    async def held(self) -> Held:
        """Return what pictures are made of.

        Errors  TransportError  partitions are being recovered
        """
        board, asked = self._board, self._asked
        partitions = dict(sorted(board.partitions.items()))
        if not board.ready:
            raise TransportError("partitions are being recovered")
        # By the events' clock time has passed in each partition as far as its own events say.
        present_us = self._data.present_us(partitions)
        if board.clock == "log":
            tables = [columns_of(table) async for table in self._data.tables(partitions, None, asked)]
        else:
            tables = [columns_of(asked.only(await asked.snapshot(one, None))) for one in partitions.values()]
        kept = [] if self._feed is None else self._feed.since(0, asked.name)
        changes = await asyncio.to_thread(lambda: [asked.only(table) for table in kept])
        return Held(tables, changes, present_us)

    def _counted(self) -> list[ViewStats]:
        """Return what each partition has counted of the view."""
        stats = [one.stats for _, one in sorted(self._board.partitions.items())]
        return [one if self._asked.name is None else one.of(self._asked.name) for one in stats]

    def _all_changes(self, stats: Sequence[ViewStats]) -> int:
        """Return how many changes of the view there have been since the worker's start."""
        if self._asked.view is not None:
            return sum(one.changes.total() for one in stats)
        return 0 if self._feed is None else self._feed.end

    async def _see_newest(self) -> None:
        """Take note of the changes since the last time: how many, and the newest as their topic has them."""
        feed, asked = self._feed, self._asked
        if feed is None or self._seen == feed.end:
            return
        if self._seen < feed.begin:
            # Some are not kept any more, and nobody knows how many of them were this population's.
            self._changes = None
        kept, self._seen = feed.since(self._seen, asked.name), feed.end
        if asked.population is not None:
            kept = await asyncio.to_thread(lambda: [asked.only(table) for table in kept])
        for table in kept:
            self._changes = None if self._changes is None else self._changes + table.num_rows
        newest: list[Any] = []
        for table in reversed(kept):
            lines = feed.encoded(table.slice(max(table.num_rows - NEWEST + len(newest), 0)), 0)
            newest += [orjson.loads(line.value) for line in reversed(lines)]
            if len(newest) >= NEWEST:
                break
        self._newest = (newest + self._newest)[:NEWEST]


def choice_of(asked: AskedView, views: Sequence[View]) -> dict[str, Any]:
    """Return what the page is told of what it shows, and of what else there is to choose from."""
    ruleset = asked.ruleset
    return {
        "view": asked.name,
        "population": asked.population,
        "ruleset": ruleset.identity,
        "time_zone": ruleset.time_zone,
        "currency": ruleset.currency,
        "currency_exponent": ruleset.currency_exponent,
        "views": [
            {
                "name": view.name,
                "ruleset": view.ruleset.identity,
                "title": view.ruleset.title,
                "where": {column: list(values) for column, values in view.where},
                "per": view.per,
                "shadow": view.shadow,
            }
            for view in views
        ],
    }


def tiers_shown(ruleset: Ruleset, customers: Sequence[int]) -> list[Mapping[str, Any]]:
    """Return what the page is told of each tier.

    In      customers  of each, in the ruleset's order
    """
    return [
        {"id": tier.id, "label_en": tier.label_en, "label_zh": tier.label_zh, "customers": count}
        for tier, count in zip(ruleset.tiers, customers, strict=True)
    ]


def columns_of(table: pa.Table) -> pa.Table:
    """Return the columns of a snapshot that pictures need."""
    return table.select(_COLUMNS)


def _notes(board: Board) -> list[dict[str, object]]:
    """Return what whoever looks should know, by its key in the page's texts; nothing where all is well."""
    stats = [one.stats for one in board.partitions.values()]
    found: list[dict[str, object]] = []
    if any(one.placement is not None and one.placement.is_mixed for one in stats):
        found.append({"key": "producers_mixed", "count": 0})
    if ahead := sum(one.times_ahead for one in stats):
        found.append({"key": "times_ahead", "count": ahead})
    return found
