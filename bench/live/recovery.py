"""How long a worker that was killed is away: from SIGKILL until changes of orders that came afterwards can be read."""

import asyncio
import time
from dataclasses import dataclass

import orjson

from bench.live.feed import History, present
from bench.live.site import Site, Worker
from rfmstream.engine.events.instants import to_us

SESSION_TIMEOUT_S = 10
CHECKPOINT_INTERVAL_S = 10
ORDERS_PER_S = 1_000


@dataclass(frozen=True)
class Recovery:
    """What one kill gave.

    Fields  away_s    until the first change of an order that came after the kill could be read
            beyond_s  the same without the session timeout, which the group waits for before it hands out partitions
            all_away_s  until that held for every partition
            checkpoint_bytes  on disk
    """

    regime: str
    customers: int
    session_timeout_s: int
    away_s: float
    beyond_s: float
    all_away_s: float
    replayed: int
    checkpoint_bytes: int
    rss_bytes: int


async def measure(site: Site, *, ruleset: str, customers: int, threads: int) -> Recovery:
    """Kill a worker that has `customers` of state, start it again at once, and watch its output."""
    topic, name = "orders.recovery", "recovery"
    worker = site.worker(
        name,
        topic,
        ruleset,
        threads=threads,
        session_timeout_s=SESSION_TIMEOUT_S,
        checkpoint_interval_s=CHECKPOINT_INTERVAL_S,
    )
    await site.create(topic)
    # Every customer once, roughly, and the day of the last order is yesterday.
    records = await History(customers, customers, days=20).send(site, topic)
    tree = worker.start()
    try:
        await site.wait_for(worker, tree, records)
        await site.ready(worker, tree)
        async with present(site, topic, customers) as orders:
            feeding = asyncio.create_task(orders.run(ORDERS_PER_S, 600))
            try:
                # All partitions have a checkpoint of the whole state by then, and some orders behind it.
                await asyncio.sleep(3 * CHECKPOINT_INTERVAL_S)
                checkpoint_bytes = (await asyncio.to_thread(worker.metrics))["rfmstream_checkpoint_bytes"]
                tree.kill()
                killed_us, killed_s = time.time_ns() // 1000, time.monotonic()
                tree = worker.start()
                first_s, all_s = await _away(site, worker, killed_us, killed_s)
            finally:
                feeding.cancel()
                await asyncio.wait([feeding])
        metrics = await asyncio.to_thread(worker.metrics)
        rss_bytes = tree.usage().rss_bytes
    finally:
        tree.stop()
    found = Recovery(
        regime=f"{ruleset}, uniform",
        customers=int(metrics["rfmstream_customers"]),
        session_timeout_s=SESSION_TIMEOUT_S,
        away_s=first_s,
        beyond_s=first_s - SESSION_TIMEOUT_S,
        all_away_s=all_s,
        replayed=int(metrics["rfmstream_records_replayed_total"]),
        checkpoint_bytes=int(checkpoint_bytes),
        rss_bytes=rss_bytes,
    )
    site.forget(worker)
    await site.delete([topic])
    return found


async def _away(site: Site, worker: Worker, killed_us: int, killed_s: float) -> tuple[float, float]:
    """Return after how many seconds the first, and after how many all partitions had a change of a later order."""
    seen: dict[int, float] = {}
    async with site.consumer(worker.changes) as consumer:
        await consumer.seek_to_end()
        while len(seen) < len(consumer.assignment()):
            for place, records in (await consumer.getmany(timeout_ms=100)).items():
                newest = orjson.loads(records[-1].value)
                if newest["reason"] != "recency_expired" and to_us(newest["effective_at"]) > killed_us:
                    seen.setdefault(place.partition, time.monotonic() - killed_s)
            if time.monotonic() - killed_s > 300:
                raise RuntimeError(
                    f"only partitions {sorted(seen)} came back:\n{worker.log.read_text()[-2000:]}"
                )
    return min(seen.values()), max(seen.values())
