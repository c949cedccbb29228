"""How long after a broker has appended an order a consumer of committed records can read the change it brought.

Producer and consumer are processes of their own, so that neither waits for the other. The broker stamps the records,
and a change takes effect at the clock that its record sets, so a change says by itself when its order was appended. It
also says when that payment was made, which is when it was due to be sent.
"""

import asyncio
import json
import sys
import time
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import orjson
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from bench.live.feed import TICK_S, percentiles_ms, present
from bench.live.site import ROOT, Site, Worker
from rfmstream.engine.events.instants import to_us
from rfmstream.engine.live.kafka.fetches import as_fetched, raw_records
from rfmstream.engine.live.kafka.seams import install_fetches

KEPT_UP_MS: Final = 1_000
"""A pace whose median is beyond this is one that the worker does not keep."""

_READY_S: Final = 10e-6
"""To make an order ready to be sent, on a busy machine."""


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
            p*_ms, max_ms  from appended to readable; sent_*_ms: from when it was due to be sent
            acked_*_ms     until the producer knew that the broker has the order
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
    sent_p50_ms: float
    sent_p99_ms: float
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
    async with site.admin() as admin:
        stamps = {"message.timestamp.type": "LogAppendTime"}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, worker.orders, configs=stamps)])
    tree = worker.start()
    try:
        await site.ready(worker, tree)
        told = json.dumps(times)
        writer = await _started("write", site.bootstrap, worker.orders, told, str(customers), str(rate))
        assert writer.stdout is not None
        begins_s = float(await writer.stdout.readline())
        reader = await _started("read", site.bootstrap, worker.changes, told, str(begins_s))
        await asyncio.sleep(begins_s + times.warm - time.time())
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
        p50_ms=read["appended"]["p50"],
        p99_ms=read["appended"]["p99"],
        max_ms=read["appended"]["max"],
        sent_p50_ms=read["sent"]["p50"],
        sent_p99_ms=read["sent"]["p99"],
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
    """Make all orders ready, say when the first are due, and send them: what makes them ready takes no core then."""
    seconds = Times(*json.loads(told)).all
    begins_s = time.time() + 1 + _READY_S * float(rate) * seconds
    print(begins_s, flush=True)
    async with present(Site(bootstrap), topic, int(customers)) as orders:
        await orders.run(float(rate), seconds, begins_s=begins_s, ahead=round(seconds / TICK_S))
        sent_per_s = orders.sent / (time.time() - begins_s)
        return {"sent_per_s": sent_per_s, **percentiles_ms(np.array(orders.acks_us))}


async def read(bootstrap: str, topic: str, told: str, begins_s: str) -> dict[str, Any]:
    """Read until nothing has come for a while; what was brought by the first orders does not count."""
    delays: list[tuple[int, int]] = []
    times = Times(*json.loads(told))
    changes, counts_us = 0, int(1e6 * (float(begins_s) + times.warm))
    quiet_after_s = float(begins_s) + times.all + 3
    install_fetches()
    # Whole fetches: who makes an object of each of 100,000 records a second has nothing else to do, and measures that.
    async with Site(bootstrap).consumer(topic, key_deserializer=as_fetched) as consumer:
        while True:
            found = await consumer.getmany(timeout_ms=200)
            if not found and time.time() > quiet_after_s:
                break
            now_us = time.time_ns() // 1000
            for fetched in found.values():
                values = raw_records(fetched, 0).values
                changes += len(values)
                # All that comes in one answer has come at one instant: a few of many will do.
                for value in values[:: max(len(values) // 16, 1)]:
                    change = orjson.loads(value or b"")
                    appended_us, sent_us = (to_us(change[name]) for name in ("effective_at", "last_paid_at"))
                    if change["order_id"] is not None and appended_us >= counts_us:
                        delays.append((now_us - appended_us, now_us - sent_us))
    appended, sent = np.array(delays, np.int64).reshape(-1, 2).T
    return {"changes": changes, "appended": percentiles_ms(appended), "sent": percentiles_ms(sent)}


if __name__ == "__main__":
    print(json.dumps(asyncio.run({"read": read, "write": write}[sys.argv[1]](*sys.argv[2:]))))
