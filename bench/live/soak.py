"""Run a worker for a long time at a steady pace, and look at its memory and at what it brought.

    python -m bench.live.soak [--minutes 30] [--rate 5000] [--out out/soak.json]
    python -m bench.live.soak --years 5 [--forget-days 400] [--orders-a-day 10000] [--out out/soak-years.json]

A third of the way the worker is killed and started again, at two thirds it is stopped and started again. Orders are
kept for ever, so the state grows with them; everything else must not. At the end the changes must be those of a replay.
Exit code 1 if a process grew by more than a tenth beyond its state, or if the changes are others.

With --years time is simulated, without a broker: see bench/live/years.py. Exit code 1 if the state of an engine that
forgets orders went on growing, or if it told anything else than one that keeps them.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from bench.live.feed import History, Replay, digest_of, present
from bench.live.run import table
from bench.live.site import ROOT, Site, Worker, site
from bench.live.years import simulate
from bench.machine import machine
from bench.peers.stream.processes import Tree
from rfmstream.engine.core.processors import usable_cores

GROWTH_MAX: Final = 0.1
SAMPLE_S: Final = 2.0
LIVES: Final = 3


class Sample(NamedTuple):
    """Memory of a worker at an instant, and how much of it is the state."""

    at_s: float
    rss_bytes: int
    state_bytes: int
    lag: int


@dataclass(frozen=True)
class Life:
    """What one process did; the first fifth of its time is its warm-up.

    Fields  rss_*   medians of the first and the last fifth after the warm-up; state_* likewise
            growth  of what is not state, over rss_begin
    """

    seconds: float
    rss_begin: int
    rss_end: int
    state_begin: int
    state_end: int
    rss_max: int
    lag_max: int

    @property
    def growth(self) -> float:
        return (self.rss_end - self.rss_begin - (self.state_end - self.state_begin)) / self.rss_begin

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> "Life":
        count = max(len(samples) // 5, 1)
        warm = samples[count:]

        def median(some: Sequence[Sample], name: str) -> int:
            return int(np.median([getattr(sample, name) for sample in some]))

        return cls(
            seconds=samples[-1].at_s - samples[0].at_s,
            rss_begin=median(warm[:count], "rss_bytes"),
            rss_end=median(warm[-count:], "rss_bytes"),
            state_begin=median(warm[:count], "state_bytes"),
            state_end=median(warm[-count:], "state_bytes"),
            rss_max=max(sample.rss_bytes for sample in samples),
            lag_max=max(sample.lag for sample in warm),
        )


async def soak(at: Site, options: argparse.Namespace) -> dict[str, Any]:
    worker = at.worker(
        "soak",
        "orders.soak",
        options.ruleset,
        threads=options.threads,
        checkpoint_interval_s=20,
        session_timeout_s=10,
    )
    history = History(options.customers, 2 * options.customers, days=60)
    await at.create(worker.orders)
    records = await history.send(at, worker.orders)
    replay = Replay(options.ruleset)
    for batch in history.batches():
        replay.add(batch)
    tree = worker.start()
    lives = []
    try:
        await at.wait_for(worker, tree, records)
        async with present(at, worker.orders, options.customers, replay.add) as orders:
            feeding = asyncio.create_task(orders.run(options.rate, 60 * options.minutes))
            for life in range(LIVES):
                lives.append(Life.of(await _watch(at, worker, tree, 60 * options.minutes / LIVES)))
                print(table([_row(lives[-1])]), flush=True)
                if life == LIVES - 1:
                    break
                (tree.stop if life else tree.kill)()
                tree = worker.start()
            await feeding
            await at.wait_for(worker, tree, records + orders.sent)
        sent = orders.sent
    finally:
        tree.stop()
    expected, found = replay.finish(), await digest_of(at, worker.changes)
    print(f"replay: {expected}; worker: {found}")
    return {
        "options": {name: value for name, value in vars(options).items() if name != "out"},
        "load": os.getloadavg(),
        "orders": records + sent,
        "changes": found.count,
        "is_equal": found == expected,
        "lives": [_row(life) for life in lives],
    }


def _row(life: Life) -> dict[str, Any]:
    return asdict(life) | {"growth": life.growth}


async def _watch(at: Site, worker: Worker, tree: Tree, seconds: float) -> list[Sample]:
    """Sample for so long, from the moment on at which the worker is past its recovery."""
    until = time.monotonic() + seconds
    await at.ready(worker, tree)
    samples = []
    while not samples or time.monotonic() < until:
        metrics = await asyncio.to_thread(worker.metrics)
        lag, state_bytes = (int(metrics[f"rfmstream_{name}"]) for name in ("lag_records", "state_bytes"))
        samples.append(Sample(time.monotonic(), tree.usage().rss_bytes, state_bytes, lag))
        await asyncio.sleep(SAMPLE_S)
    return samples


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--rate", type=int, default=5_000, help="orders a second")
    parser.add_argument("--customers", type=int, default=200_000)
    parser.add_argument("--ruleset", default="rfm8-annual")
    parser.add_argument("--threads", type=int, default=usable_cores(), help="of the worker")
    parser.add_argument("--years", type=int, help="simulate so many, instead")
    parser.add_argument(
        "--forget-days", type=int, default=400, help="forget_orders_after_days of those years"
    )
    parser.add_argument("--orders-a-day", type=int, default=10_000, help="of those years")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "soak.json")
    options = parser.parse_args()
    if options.years is not None:
        return _simulate(options)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with site() as at:
        found = asyncio.run(soak(at, options))
    _write(options.out, found)
    grown = [life["growth"] for life in found["lives"] if life["growth"] > GROWTH_MAX]
    for growth in grown:
        print(f"soak: the worker grew by {growth:.0%} beyond its state", file=sys.stderr)
    if not found["is_equal"]:
        print("soak: the changes are not those of a replay", file=sys.stderr)
    return 1 if grown or not found["is_equal"] else 0


def _simulate(options: argparse.Namespace) -> int:
    found = simulate(
        years=options.years,
        customers=options.customers,
        orders_a_day=options.orders_a_day,
        ruleset=options.ruleset,
        forget_days=options.forget_days,
    )
    _write(options.out, found)
    if not found["is_bounded"]:
        print(f"soak: the state went on growing, by {found['growth']:.0%}", file=sys.stderr)
    if not found["is_equal"]:
        print("soak: forgetting orders changed what was told", file=sys.stderr)
    return 0 if found["is_bounded"] and found["is_equal"] else 1


def _write(out: Path, found: dict[str, Any]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"machine": machine(), **found}, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
