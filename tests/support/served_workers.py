"""The status pages of a worker over a real connection, its partitions being engines the test holds."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa

from rfmstream import Engine
from rfmstream.engine.core.lookup import rows_of
from rfmstream.engine.live.board import Board, Watched
from rfmstream.engine.live.http import StatusServer
from rfmstream.engine.live.model import Source
from rfmstream.engine.live.page import Draws
from rfmstream.engine.live.stats import PartitionStats, tiers_of


@contextmanager
def served(*engines: Engine) -> Iterator[str]:
    """Serve engines of one ruleset as the partitions of a worker, and give its URL."""
    partitions = {Source("orders.v1", number): watched(engine) for number, engine in enumerate(engines)}
    with serving(Board(engines[0].ruleset, "event", partitions, joined=True)) as url:
        yield url


@contextmanager
def serving(board: Board, draws: Draws | None = None) -> Iterator[str]:
    """Run a status server in a thread of its own, as a worker elsewhere would, and give its URL."""
    loop = asyncio.new_event_loop()
    server = StatusServer(("127.0.0.1", 0), board, draws=draws)
    loop.run_until_complete(server.start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield server.url
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(server.stop())
        loop.close()


def watched(engine: Engine) -> Watched:
    """Return an engine as a board shows the partition of one."""

    async def snapshot(as_of_us: int | None) -> pa.Table:
        return engine.snapshot(as_of_us)

    async def some(ids: Sequence[str], as_of_us: int | None) -> pa.Table:
        return rows_of(engine, ids, as_of_us)

    stats = PartitionStats(state="live", tiers=tiers_of(engine), customers=engine.customers)
    stats.clock_us = engine.clock_us
    return Watched(stats, snapshot, some)
