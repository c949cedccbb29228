"""What lookups cost a worker that works off a topic, and how long one takes at a worker that is at its end.

    python -m bench.live.lookup [--out out/bench-lookup.json]

Programs ask in lists: POST /customers of 500 ids each, as Arrow or as JSON, as many a second as are wanted; the
worker's processor time beside that of a run without them says what they cost. People and pages ask for one:
GET /customers/{id}. Whoever asks shares the cores with the worker and the broker.
"""

import argparse
import asyncio
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import numpy as np

from bench.live.feed import History
from bench.live.site import Site, Worker, site
from bench.machine import machine
from rfmstream.engine.core.processors import usable_cores

SIZES: Final = {"tiny": (500, 5_000), "small": (200_000, 2_000_000), "full": (1_000_000, 10_000_000)}
LOOKUPS_PER_S: Final = 20_000
LIST: Final = 500
SINGLES_PER_S: Final = 1_000
SINGLES_S: Final = {"tiny": 2, "small": 10, "full": 30}
RULESET: Final = "rfm8-annual"
_FORMS: Final = {
    "none": None,
    "arrow": "application/vnd.apache.arrow.stream",
    "json": "application/json",
}


@dataclass
class Asking:
    """Asks for lists of customers at a pace; `found` customers and answers that were `refused` are counted."""

    url: str
    accept: str
    customers: int
    found: int = 0
    refused: int = 0

    async def run(self) -> None:
        random = np.random.default_rng(7)
        started = time.monotonic()
        async with aiohttp.ClientSession(headers={"Accept": self.accept}) as session:
            for number in range(1 << 30):
                ids = [f"c{at:011d}" for at in random.integers(0, self.customers, LIST).tolist()]
                async with session.post(f"{self.url}/customers", data=json.dumps(ids)) as answer:
                    await answer.read()
                    if answer.status == 200:
                        self.found += LIST
                    else:
                        self.refused += 1
                due = started + (number + 1) * LIST / LOOKUPS_PER_S
                await asyncio.sleep(max(due - time.monotonic(), 0))


async def one(
    at: Site, topic: str, records: int, *, size: tuple[int, int], form: str, threads: int
) -> dict[str, Any]:
    """Work the topic off, with lookups of a form or none."""
    customers, orders = size
    worker = at.worker(f"lookup.{form}", topic, RULESET, threads=threads)
    tree = worker.start()
    try:
        async with at.admin() as admin:
            while not (begun := await at.committed(admin, worker)):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        start = at.spent(tree)
        accept = _FORMS[form]
        asking = None if accept is None else Asking(worker.url, accept, customers)
        task = None if asking is None else asyncio.create_task(asking.run())
        spent = (await at.wait_for(worker, tree, records)).since(start)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        row: dict[str, Any] = {
            "lookups": form,
            "orders_per_s": round(orders * (1 - begun / records) / spent.at_s),
            "orders_per_cpu_s": round(orders * (1 - begun / records) / max(spent.worker_s, 0.01)),
            "worker_s": spent.worker_s,
            "wall_s": spent.at_s,
            "lookups_per_s": 0 if asking is None else round(asking.found / spent.at_s),
            "refused": 0 if asking is None else asking.refused,
        }
        if form == "none":
            row |= await singles(worker, customers)
    finally:
        tree.stop()
    at.forget(worker)
    print(row, flush=True)
    return row


async def singles(worker: Worker, customers: int) -> dict[str, Any]:
    """Ask for one customer after another, at the pace of SINGLES_PER_S, whether or not the last one was answered."""
    while not worker.is_ready():  # noqa: ASYNC110 - another process
        await asyncio.sleep(0.1)
    random = np.random.default_rng(8)
    seconds = SINGLES_S[os.environ.get("RFM_BENCH_SCALE", "small")]
    ids = [f"c{at:011d}" for at in random.integers(0, customers, seconds * SINGLES_PER_S).tolist()]
    took: list[float] = []
    statuses: dict[int, int] = {}

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=64)) as session:

        async def ask(id_: str, due: float) -> None:
            async with session.get(f"{worker.url}/customers/{id_}") as answer:
                await answer.read()
                statuses[answer.status] = statuses.get(answer.status, 0) + 1
            took.append(time.monotonic() - due)

        tasks = []
        started = time.monotonic() + 0.1
        for number, id_ in enumerate(ids):
            due = started + number / SINGLES_PER_S
            if (wait_s := due - time.monotonic()) > 0:
                await asyncio.sleep(wait_s)
            tasks.append(asyncio.create_task(ask(id_, due)))
        await asyncio.gather(*tasks)
    warm = np.array(took[len(took) // 5 :]) * 1000
    return {
        "single_p50_ms": round(float(np.quantile(warm, 0.5)), 2),
        "single_p99_ms": round(float(np.quantile(warm, 0.99)), 2),
        "single_statuses": statuses,
    }


async def run() -> dict[str, Any]:
    scale = os.environ.get("RFM_BENCH_SCALE", "small")
    size, threads = SIZES[scale], usable_cores()
    with site() as at:
        topic = "orders.lookup"
        await at.create(topic)
        records = await History(*size).send(at, topic)
        rows = [await one(at, topic, records, size=size, form=form, threads=threads) for form in _FORMS]
    plain = rows[0]
    for row in rows[1:]:
        row["cost_orders_per_s"] = round(1 - row["orders_per_s"] / plain["orders_per_s"], 4)
        row["cost_cpu"] = round(1 - row["orders_per_cpu_s"] / plain["orders_per_cpu_s"], 4)
        print(
            f"{row['lookups']}: {row['cost_orders_per_s']:.1%} of orders/s, {row['cost_cpu']:.1%} of CPU",
            flush=True,
        )
    return {"scale": scale, "threads": threads, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("out/bench-lookup.json"))
    out: Path = parser.parse_args().out
    made = asyncio.run(run())
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"machine": machine(), "results": made}, indent=2) + "\n")


if __name__ == "__main__":
    main()
