"""A worker's board over views of two partitions that a test feeds, served from a thread of its own."""

import asyncio
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future

import pyarrow as pa
from served_workers import watched

from rfmstream.engine.core.views import Views
from rfmstream.engine.insight.report.live_page import LivePage
from rfmstream.engine.live.board import Board
from rfmstream.engine.live.feed import Feed
from rfmstream.engine.live.http import StatusServer
from rfmstream.engine.live.model import Source
from rfmstream.engine.live.plain import is_plain
from rfmstream.engine.live.state import State
from rfmstream.engine.live.stats import count_changes
from rfmstream.schemas.plan import Plan
from rfmstream.schemas.ruleset_file import read_ruleset_file, shipped_path

PARTITIONS = 2


class Shop:
    """A worker of a plan of built-in rulesets.

    Fields  views   of each partition
            server  where the page is
    """

    def __init__(self, plan: Plan, token: str | None = None) -> None:
        first = next((view for view in plan.views if not view.shadow), plan.views[0])
        paths = {view.ruleset.identity: shipped_path(view.ruleset.name) for view in plan.views}
        self._feeds = {shadow: Feed(first.ruleset, views=plan.views) for shadow in (False, True)}
        self.board = Board(
            first.ruleset,
            "event",
            joined=True,
            rules={identity: read_ruleset_file(path) for identity, path in paths.items() if path is not None},
            feed=self._feeds[False],
            shadows=self._feeds[True],
            views=() if is_plain(plan) else plan.views,
        )
        self.views = [Views(plan, mode="live") for _ in range(PARTITIONS)]
        self.board.expected = [Source("orders.v1", number) for number in range(PARTITIONS)]
        for source, views in zip(self.board.expected, self.views, strict=True):
            self.board.partitions[source] = watched(State(views.views.values()))
        self._loop = asyncio.new_event_loop()
        self.server = StatusServer(("127.0.0.1", 0), self.board, token, draws=LivePage())
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self.server.start(), self._loop).result(60)

    def order(
        self,
        rows: Sequence[tuple[str, str, str, str]],
        partition: int = 0,
        **attributes: Sequence[str],
    ) -> None:
        """Apply orders (customer, order, instant, amount) and tell their changes, as a committed step does."""
        names = ("customer_id", "order_id", "occurred_at", "amount")
        columns: Mapping[str, Sequence[str]] = dict(zip(names, zip(*rows, strict=True), strict=True))
        table = pa.table({name: list(values) for name, values in (columns | attributes).items()})
        done: Future[None] = Future()

        def apply() -> None:
            try:
                self._apply(table, partition)
                done.set_result(None)
            except BaseException as error:  # noqa: BLE001 - it is the test's
                done.set_exception(error)

        self._loop.call_soon_threadsafe(apply)
        done.result(60)

    def _apply(self, table: pa.Table, partition: int) -> None:
        views, stats = self.views[partition], list(self.board.partitions.values())[partition].stats
        results = views.step(table).views
        # As a worker's views, they have come to one instant.
        clock_us = max(of.engine.clock_us for of in views.views.values())
        for name, of in views.views.items():
            passed = of.engine.advance(clock_us)
            counts = stats.of(name)
            counts.customers = of.engine.customers
            counts.applied += table.num_rows
            for changes in (results[name].changes, passed):
                count_changes(changes, counts.changes, counts.tiers)
                self._feeds[of.view.shadow].add(changes)
        stats.clock_us, stats.committed = clock_us, stats.committed + table.num_rows

    def customers(self, view: str) -> int:
        """How many customers a view has."""
        return sum(views.views[view].engine.customers for views in self.views)

    def close(self) -> None:
        """Serve no more."""
        asyncio.run_coroutine_threadsafe(self.server.stop(), self._loop).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
