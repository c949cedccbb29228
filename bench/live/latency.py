"""How long after an order was sent a consumer of committed records can read the change it brought.

Producer and consumer are processes of their own, so that neither waits for the other. An order happens at the instant
it is sent, and a change takes effect with its order, so a change says by itself when its order was sent.
"""

import asyncio
import json
import sys
import time
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import orjson

from bench.live.feed import percentiles_ms, present
from bench.live.site import ROOT, Site, Worker
from engine.instants import to_us
from engine.live.kafka.fetches import as_fetched, raw_records

KEPT_UP_MS: Final = 1_000
"""A pace whose median is beyond this is one that the worker does not keep."""


class Times(NamedTuple):
    """Seconds that do not count yet, and seconds that do."""

    warm: float
    counted: float

    @property
    def all(self) -> float:
        return self.warm + self.counted


@dataclass(frozen=True)
class Latency:
    """What one pace gave; delays in ms.

    Fields  orders_per_s   asked for; sent_per_s: sent in fact
            acked_*_ms     until the broker had the order: the producer's part
            commit_ms      mean of a transaction
            cores_*        processor time over wall time
    """

    regime: str
    orders_per_s: int
    sent_per_s: float
    changes: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    acked_p50_ms: float
    acked_p99_ms: float
    commits_per_s: float
    commit_ms: float
    worker_cores: float
    broker_cores: float


async def measure(
    site: Site, *, ruleset: str, customers: int, rates: list[int], times: Times, threads: int
) -> list[Latency]:
    """Measure one pace after the other, until one is not kept.

    In      times  of the first; a new broker compiles its code for half a minute, the others need a quarter to get warm
    """
    results: list[Latency] = []
    first_warm_s = times.warm
    for rate in rates:
        worker = site.worker(f"latency.{rate}", f"orders.{rate}", ruleset, threads=threads)
        results.append(await _one(site, worker, customers, rate, times))
        times = Times(first_warm_s / 4, times.counted)
        print(f"{rate:,} orders/s: p50 {results[-1].p50_ms} ms, p99 {results[-1].p99_ms} ms", flush=True)
        if results[-1].p50_ms > KEPT_UP_MS:
            break
    return results


async def _one(site: Site, worker: Worker, customers: int, rate: int, times: Times) -> Latency:
    await site.create(worker.orders)
    tree = worker.start()
    try:
        await site.ready(worker, tree)
        told = json.dumps(times)
        reader = await _started("read", site.bootstrap, worker.changes, told)
        writer = await _started("write", site.bootstrap, worker.orders, told, str(customers), str(rate))
        await asyncio.sleep(times.warm)
        before, metrics_before = site.spent(tree), await asyncio.to_thread(worker.metrics)
        written = json.loads((await writer.communicate())[0])
        spent, metrics = site.spent(tree).since(before), await asyncio.to_thread(worker.metrics)
        read = json.loads((await reader.communicate())[0])
    finally:
        tree.stop()
    site.forget(worker)
    commits, commit_s = (
        metrics[name] - metrics_before[name]
        for name in ("rfmstream_commit_seconds_count", "rfmstream_commit_seconds_sum")
    )
    return Latency(
        regime=f"{worker.ruleset}, {customers:,} customers",
        orders_per_s=rate,
        sent_per_s=round(written["sent_per_s"]),
        changes=read["changes"],
        p50_ms=read["p50"],
        p99_ms=read["p99"],
        max_ms=read["max"],
        acked_p50_ms=written["p50"],
        acked_p99_ms=written["p99"],
        commits_per_s=commits / spent.at_s,
        commit_ms=1000 * commit_s / commits,
        worker_cores=spent.worker_s / spent.at_s,
        broker_cores=spent.broker_s / spent.at_s,
    )


async def _started(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.live.latency", *arguments), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )


async def write(bootstrap: str, topic: str, told: str, customers: str, rate: str) -> dict[str, float]:
    async with present(Site(bootstrap), topic, int(customers)) as orders:
        began = time.monotonic()
        await orders.run(float(rate), Times(*json.loads(told)).all)
        sent_per_s = orders.sent / (time.monotonic() - began)
        return {"sent_per_s": sent_per_s, **percentiles_ms(np.array(orders.acks_us))}


async def read(bootstrap: str, topic: str, told: str) -> dict[str, float]:
    """Read until nothing has come for a while; what was brought by the first orders does not count."""
    delays: list[int] = []
    times = Times(*json.loads(told))
    changes, begins_us = 0, time.time_ns() // 1000 + int(times.warm * 1e6)
    quiet_after = time.monotonic() + times.all + 3
    # Whole fetches: who makes an object of each of 100,000 records a second has nothing else to do, and measures that.
    async with Site(bootstrap).consumer(topic, key_deserializer=as_fetched) as consumer:
        while True:
            found = await consumer.getmany(timeout_ms=200)
            if not found and time.monotonic() > quiet_after:
                break
            now_us = time.time_ns() // 1000
            for fetched in found.values():
                values = raw_records(fetched, 0).values
                changes += len(values)
                # All that comes in one answer has come at one instant: a few of many will do.
                for value in values[:: max(len(values) // 16, 1)]:
                    effective_us = to_us(orjson.loads(value or b"")["effective_at"])
                    if effective_us >= begins_us:
                        delays.append(now_us - effective_us)
    return {"changes": changes, **percentiles_ms(np.array(delays))}


if __name__ == "__main__":
    print(json.dumps(asyncio.run({"read": read, "write": write}[sys.argv[1]](*sys.argv[2:]))))
