"""The status pages of a worker over a real connection, its partitions being engines the test holds."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from rfmstream import Engine
from rfmstream.engine.live.board import Board, Watched
from rfmstream.engine.live.http import StatusServer
from rfmstream.engine.live.model import Source
from rfmstream.engine.live.stats import PartitionStats


@contextmanager
def served(*engines: Engine) -> Iterator[str]:
    """Serve engines of one ruleset as the partitions of a worker, in a thread of its own, and give its URL."""
    partitions = {Source("orders.v1", number): _watched(engine) for number, engine in enumerate(engines)}
    loop = asyncio.new_event_loop()
    server = StatusServer(("127.0.0.1", 0), Board(engines[0].ruleset, "event", partitions, joined=True))
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


def _watched(engine: Engine) -> Watched:
    async def snapshot(as_of_us: int | None) -> pa.Table:
        return engine.snapshot(as_of_us)

    stats = PartitionStats(state="live")
    stats.clock_us = engine.clock_us
    return Watched(stats, snapshot)
