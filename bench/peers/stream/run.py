"""The same job by rfmstream and by other stream processors, from a Kafka topic to a Kafka topic, side by side.

    python -m bench.peers.stream.run --orders 200000 --customers 20000 --partitions 4 --keys zipf --peers faust,flink

For each peer: its topics are made, the first orders are produced, the peer starts, works them off and is warm. Then it
is paused (SIGSTOP), the rest of the orders is produced, and it goes on: from that instant on time and the processor
time of all its processes count, until the last of the expected changes may be read by a consumer of committed records.
So neither its start nor the producer is in the figures. A peer that cannot be paused is timed from its first output on.

Its changes are compared with the engine's own, row by row; without equality there is no figure.
Event time is the clock of all: see load.py for how it is closed at the end.
"""

import argparse
import asyncio
import json
import logging
import shutil
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from bench.machine import machine
from bench.peers.stream import topics
from bench.peers.stream.load import Load, draw
from bench.peers.stream.peers import FOLDER, PEERS, ROOT, Job, Peer
from bench.peers.stream.processes import Tree, session_usage
from bench.process import confined
from ops.broker.broker import Broker, free_ports

SAMPLE_S: Final = 0.02
SETTLED_S: Final = 3.0
"""Nothing more comes: later changes would be wrong ones, which must be seen."""
HEADINGS: Final = (
    *("peer", "version", "equal", "orders/s", "orders/CPU-s", "wall s", "CPU s", "broker CPU s", "MiB"),
    *("delivery", "ageing"),
)


@dataclass(frozen=True)
class Sample:
    """The output's ends at an instant, and what was used until then."""

    at_s: float
    cpu_s: float
    broker_cpu_s: float
    rss_bytes: int
    ends: Sequence[int]


@dataclass(frozen=True)
class Result:
    """One row; without figures where the changes are not the expected ones.

    Fields  problem  what is wrong; empty where all is equal
    """

    peer: str
    version: str
    delivery: str
    ageing: str
    orders: int
    changes: int
    problem: str = ""
    wall_s: float = 0.0
    cpu_s: float = 0.0
    broker_cpu_s: float = 0.0
    rss_bytes: int = 0

    @property
    def orders_per_s(self) -> float:
        return self.orders / self.wall_s if self.wall_s else 0.0

    @property
    def orders_per_cpu_s(self) -> float:
        return self.orders / self.cpu_s if self.cpu_s else 0.0

    def cells(self) -> tuple[str, ...]:
        if self.problem:
            return self.peer, self.version, "NO", *[""] * 6, self.problem, ""
        return (
            self.peer,
            self.version,
            "yes",
            f"{self.orders_per_s:,.0f}",
            f"{self.orders_per_cpu_s:,.0f}",
            f"{self.wall_s:.2f}",
            f"{self.cpu_s:.2f}",
            f"{self.broker_cpu_s:.2f}",
            f"{self.rss_bytes / 2**20:.0f}",
            self.delivery,
            self.ageing,
        )


class PeerError(Exception):
    """A peer ended or got stuck; the text says where."""


class Run:
    """One peer at work."""

    def __init__(self, peer: Peer, load: Load, job: Job, broker: Broker, timeout_s: float) -> None:
        self._peer, self._load, self._job, self._broker = peer, load, job, broker
        self._timeout_s = timeout_s
        self._log = FOLDER / f"{peer.name}.log"

    async def measure(self) -> Result:
        peer, job, load = self._peer, self._job, self._load
        print(f"{peer.name}: ", end="", flush=True)
        await topics.create(job.bootstrap, [job.orders, job.changes], job.partitions)
        async with (
            topics.producer(job.bootstrap) as producer,
            topics.output(job.bootstrap, job.changes, job.partitions) as output,
        ):
            warm = topics.Batches(producer, job.orders, load.warm)
            timed = topics.Batches(producer, job.orders, load.timed)
            await warm.send()
            if not peer.pauses:
                await timed.send()
            with confined(job.cores):
                tree = Tree(peer.command(job), environment={}, cwd=job.folder, log=self._log)
            try:
                if peer.pauses:
                    await self._watch(tree, output, load.warm_changes)
                    tree.pause()
                    await timed.send()
                    start = self._sample(tree, await output.ends())
                    tree.resume()
                    samples = [start, *await self._watch(tree, output, len(load.changes))]
                else:
                    samples = await self._watch(tree, output, len(load.changes))
            except PeerError as error:
                problem = compare(self._compared(await output.read()), load)
                return self._result(problem=f"{error}: {problem}")
            finally:
                tree.stop()
            return self._judged(samples, self._compared(await output.read()))

    async def _watch(self, tree: Tree, output: topics.Output, expected: int) -> list[Sample]:
        """Take samples until at least so many records are out and no more come."""
        began = settled = time.monotonic()
        samples: list[Sample] = []
        while True:
            ends = await output.ends()
            samples.append(self._sample(tree, ends))
            now = time.monotonic()
            if len(samples) > 1 and ends != samples[-2].ends:
                settled = now
            if sum(ends) >= expected and now - settled > SETTLED_S:
                return samples
            if tree.ended():
                raise PeerError(f"ended by itself, see {self._log}")
            if now - began > self._timeout_s:
                raise PeerError(
                    f"{sum(ends)} of {expected} records after {self._timeout_s:.0f} s, see {self._log}"
                )
            await asyncio.sleep(SAMPLE_S)

    def _sample(self, tree: Tree, ends: Sequence[int]) -> Sample:
        usage = tree.usage()
        broker = session_usage(self._broker.pid() or 0).cpu_s
        return Sample(time.monotonic(), usage.cpu_s, broker, usage.rss_bytes, ends)

    def _compared(self, made: Sequence[topics.Made]) -> list[topics.Made]:
        # A clock that goes on to the present makes more changes, all later than the last order.
        return [each for each in made if each.change.effective_us <= self._load.as_of_us]

    def _judged(self, samples: Sequence[Sample], made: Sequence[topics.Made]) -> Result:
        problem = compare(made, self._load)
        if problem:
            return self._result(problem=problem)
        last = [-1] * self._job.partitions
        for each in made:
            last[each.partition] = max(last[each.partition], each.offset)
        start = samples[0] if self._peer.pauses else next(each for each in samples if sum(each.ends))
        end = next(each for each in samples if all(map(int.__gt__, each.ends, last)))
        return self._result(
            wall_s=end.at_s - start.at_s,
            cpu_s=end.cpu_s - start.cpu_s,
            broker_cpu_s=end.broker_cpu_s - start.broker_cpu_s,
            rss_bytes=end.rss_bytes,
        )

    def _result(self, **fields: float | str) -> Result:
        peer, load = self._peer, self._load
        result = Result(
            peer.name,
            peer.version,
            peer.delivery,
            peer.ageing,
            load.timed_orders + (0 if peer.pauses else load.warm_orders),
            len(load.changes),
            **fields,
        )
        print(result.problem or f"{result.orders_per_s:,.0f} orders/s")
        return result


def compare(made: Sequence[topics.Made], load: Load) -> str:
    """Return what is wrong with the changes of a peer, or nothing."""
    seen = {each.change for each in made}
    missing, wrong = load.changes - seen, seen - load.changes
    if missing or wrong:
        examples = [f"{min(rows, key=str)}" for rows in (missing, wrong) if rows]
        return f"{len(missing)} changes missing, {len(wrong)} wrong, such as {' and '.join(examples)}"
    if len(made) > len(seen):
        return f"{len(made) - len(seen)} changes repeated"
    order: dict[str, int] = defaultdict(int)
    for each in made:
        if each.change.seq != order[each.change.customer_id] + 1:
            return f"out of order: {each.change}"
        order[each.change.customer_id] = each.change.seq
    return ""


async def run(options: argparse.Namespace) -> list[Result]:
    """Measure every peer that was asked for, one after the other."""
    peers = [PEERS[name] for name in options.peers]
    for peer in peers:
        peer.install()
    load = draw(
        orders=options.orders,
        customers=options.customers,
        keys=options.keys,
        partitions=options.partitions,
        warm=options.warm,
        seed=options.seed,
        days=options.days,
    )
    print(f"{load.timed_orders:,} orders timed after {load.warm_orders:,}, {len(load.changes):,} changes")
    port, controller = free_ports(2)
    scratch = FOLDER / "run"
    shutil.rmtree(scratch, ignore_errors=True)
    broker = Broker(scratch / "kafka", port, controller, jars=ROOT / ".kafka" / "jars")
    broker.start()
    results = []
    try:
        for peer in peers:
            folder = scratch / peer.name
            folder.mkdir(parents=True)
            job = Job(
                *(broker.bootstrap, f"orders.{peer.name}", f"changes.{peer.name}"),
                *(options.partitions, folder, options.cores),
            )
            results.append(await Run(peer, load, job, broker, options.timeout).measure())
            await topics.delete_all(broker.bootstrap)
            shutil.rmtree(folder)
    finally:
        broker.stop()
        shutil.rmtree(scratch, ignore_errors=True)
    return results


def table(results: Sequence[Result]) -> str:
    """Return the results; of the peers the fastest first: the row that is least favourable to us."""
    rows = [HEADINGS, *(result.cells() for result in sorted(results, key=_place))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def _place(result: Result) -> tuple[bool, float]:
    return not result.peer.startswith("rfmstream"), -result.orders_per_cpu_s


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--orders", type=int, default=100_000)
    parser.add_argument("--customers", type=int, default=10_000)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--keys", default="zipf", help="uniform, zipf (exponent 1.2) or zipf:EXPONENT")
    parser.add_argument("--days", type=int, default=180, help="length of the history")
    parser.add_argument("--warm", type=int, default=20_000, help="how many of the orders warm a peer up")
    parser.add_argument("--cores", type=int, default=1, help="cores and threads each peer is given")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--timeout", type=float, default=300, help="seconds a peer may take for either phase")
    parser.add_argument("--peers", default=",".join(PEERS), help=f"of {', '.join(PEERS)}")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "bench-peers.json")
    options = parser.parse_args()
    options.keys = "zipf:1.2" if options.keys == "zipf" else options.keys
    options.peers = options.peers.split(",")
    if unknown := set(options.peers) - set(PEERS):
        parser.error(f"no such peer: {', '.join(sorted(unknown))}")
    if not 0 < options.warm < options.orders:
        parser.error("--warm must be more than nothing and less than --orders")
    # Whatever ends the run, its peer and its broker end with it.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    # A topic that was made a moment ago has no leader for a few more: the client tries again, and says so.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    results = asyncio.run(run(options))
    print(table(results))
    load = {name: value for name, value in vars(options).items() if name not in {"out", "peers"}}
    rows = [
        asdict(each) | {"orders_per_s": each.orders_per_s, "orders_per_cpu_s": each.orders_per_cpu_s}
        for each in results
    ]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    found = {"machine": machine(), "load": load, "results": rows}
    options.out.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    return 1 if any(result.problem for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
