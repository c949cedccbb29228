"""How fast a worker works off a topic that is already full: exactly once, from Kafka to Kafka."""

import asyncio
from dataclasses import dataclass

from bench.live.feed import Digest, History, digest_of
from bench.live.site import OUTPUTS, Site, Spent, Worker
from bench.peers.stream.processes import Tree


@dataclass(frozen=True)
class Throughput:
    """What one run gave. Time counts from the first commit on, and so do orders: a start is measured elsewhere.

    Fields  changes   committed; is_equal: whether they are those of a replay
            commits   transactions
            input_bytes, output_bytes  on the broker's disk: the orders, and all that the worker wrote
    """

    regime: str
    orders: int
    wall_s: float
    worker_s: float
    broker_s: float
    changes: int
    is_equal: bool
    rss_bytes: int
    commits: int
    input_bytes: int
    output_bytes: int

    @property
    def orders_per_s(self) -> float:
        return self.orders / self.wall_s

    @property
    def orders_per_cpu_s(self) -> float:
        # The clock of processor time ticks every hundredth of a second.
        return self.orders / max(self.worker_s, 0.01)


async def measure(
    site: Site, history: History, rulesets: list[tuple[str, Digest]], *, threads: int, name: str
) -> list[Throughput]:
    """Fill a topic and let a worker of each ruleset, with what it must bring, work it off."""
    topic = f"orders.{name}"
    await site.create(topic)
    records = await history.send(site, topic)
    results = []
    for ruleset, expected in rulesets:
        worker = site.worker(f"{name}.{ruleset}", topic, ruleset, threads=threads)
        results.append(await _one(site, worker, history, records, expected))
        print(f"{results[-1].regime}: {results[-1].orders_per_s:,.0f} orders/s", flush=True)
    await site.delete([topic])
    return results


async def _one(site: Site, worker: Worker, history: History, records: int, expected: Digest) -> Throughput:
    regime = f"{worker.ruleset}, {history.keys}, {history.form}"
    tree = worker.start()
    try:
        begun, start, end = await _watch(site, worker, tree, records)
        spent = end.since(start)
        await _settled(worker)
        metrics = await asyncio.to_thread(worker.metrics)
        rss_bytes = tree.usage().rss_bytes
    finally:
        tree.stop()
    found = await digest_of(site, worker.changes)
    outputs = [f"{worker.name}.{kind}" for kind in OUTPUTS]
    output_bytes = site.log_bytes(*outputs)
    if found != expected:
        print(f"{regime}: {found}, expected {expected}")
    site.forget(worker)
    await site.delete(outputs)
    return Throughput(
        regime=regime,
        orders=round(history.orders * (1 - begun / records)),
        wall_s=spent.at_s,
        worker_s=spent.worker_s,
        broker_s=spent.broker_s,
        changes=found.count,
        is_equal=found == expected,
        rss_bytes=rss_bytes,
        commits=int(metrics["rfmstream_commit_seconds_count"]),
        input_bytes=site.log_bytes(worker.orders),
        output_bytes=output_bytes,
    )


async def _watch(site: Site, worker: Worker, tree: Tree, records: int) -> tuple[int, Spent, Spent]:
    """Return how much was committed at the first look at which anything was, what was spent then, and at the end."""
    start = await site.wait_for(worker, tree, 1)  # a new partition's first commit is one of no records
    async with site.admin() as admin:
        begun = await site.committed(admin, worker)
    return begun, start, await site.wait_for(worker, tree, records)


async def _settled(worker: Worker) -> None:
    """Wait until the worker lives in the present: everybody who is due by now has aged out."""
    before = -1.0
    while True:
        metrics = await asyncio.to_thread(worker.metrics)
        made = metrics.get("rfmstream_tier_changes_total", 0.0)
        if made == before:
            return
        before = made
        await asyncio.sleep(1)
