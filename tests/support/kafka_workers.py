"""Workers as processes that can be killed, and what their output has to be.

Processes are forked from a server that has loaded everything (`kafka_preload`), so that a start takes a moment: it
matters where a test starts twenty.
"""

import asyncio
import logging
import multiprocessing
import os
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
from kafka_cluster import Cluster
from real_orders import packaged

from rfmstream.engine.core.engine import Engine
from rfmstream.engine.files.mapping import load_map
from rfmstream.engine.files.source import open_orders
from rfmstream.engine.insight.report.live_page import LivePage
from rfmstream.engine.live.config import load_worker_config
from rfmstream.engine.live.encode import Encoder
from rfmstream.engine.live.kafka.producer import OrderSender, Partitioner, opened
from rfmstream.engine.live.kafka.worker import run_worker
from rfmstream.engine.live.logs import set_up_logs
from rfmstream.engine.live.orders_out import OrderEncoder, Pace
from rfmstream.schemas.errors import RfmError
from rfmstream.schemas.ruleset import Ruleset, load_ruleset

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["kafka_preload"])

RULESET = load_ruleset("rfm8-annual", currency="USD")


class WorkerProcess:
    """A worker in a process of its own, with settings as on the command line; its log goes to a file."""

    def __init__(
        self, flags: Mapping[str, object], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.log = log
        arguments = (dict(flags), log, dict(environment or {}))
        self._process = CONTEXT.Process(target=_main, args=arguments, daemon=True)
        self._process.start()

    def kill(self) -> None:
        self._process.kill()
        self._process.join()

    def terminate(self) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, signal.SIGTERM)

    def pause(self) -> None:
        """Let it do nothing at all, as on a machine that is far too busy."""
        assert self._process.pid is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def wake(self) -> None:
        """Let it go on."""
        assert self._process.pid is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def exit_code(self, timeout_s: float = 240) -> int | None:
        self._process.join(timeout_s)
        return self._process.exitcode

    def wait_for(self, text: str, *, after: int = 0, timeout_s: float = 240) -> None:
        """Wait until the log says something beyond its first `after` characters."""
        give_up = time.monotonic() + timeout_s
        while text not in (self.log.read_text()[after:] if self.log.exists() else ""):
            assert self.is_alive, self.log.read_text()
            assert time.monotonic() < give_up, self.log.read_text()
            time.sleep(0.02)

    def memory_bytes_max(self) -> int:
        """Return the most memory it has had resident so far."""
        [line] = [
            line
            for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
            if line.startswith("VmHWM")
        ]
        return int(line.split()[1]) << 10

    @property
    def is_alive(self) -> bool:
        return self._process.is_alive()


@contextmanager
def worker(
    flags: Mapping[str, object], log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[WorkerProcess]:
    process = WorkerProcess(flags, log, environment)
    try:
        yield process
    finally:
        if process.is_alive:
            process.kill()


def flags_of(cluster: Cluster, checkpoints: Path, **more: object) -> dict[str, object]:
    """Return the settings of a worker on a cluster's topics."""
    outputs = cluster.outputs
    return {
        "bootstrap_servers": cluster.bootstrap,
        "app_id": cluster.name,
        "input_topics": cluster.orders,
        "changes_topic": outputs.changes,
        "current_topic": outputs.current,
        "rejected_topic": outputs.rejected,
        "clock_topic": outputs.clock,
        "signals_topic": outputs.signals,
        "checkpoints": str(checkpoints),
        "ruleset": "rfm8-annual",
        "currency": "USD",
        "session_timeout_s": 6,
        "listen": "off",
        **more,
    }


def _main(flags: dict[str, object], log: Path, environment: dict[str, str]) -> None:
    with log.open("a") as out:
        set_up_logs("text", "info", to=out)
        os.dup2(out.fileno(), 2)
        try:
            code = run_worker(load_worker_config(flags, environment=environment), LivePage())
        except RfmError as error:
            print(f"rfmstream: {error}", file=out)
            code = {"ConfigError": 2, "InputError": 3, "StateError": 4}.get(type(error).__name__, 1)
        logging.shutdown()
    sys.exit(code)


@cache
def real_history() -> list[pa.RecordBatch]:
    """Return the purchases of CDNOW, in order of time: canonical orders."""
    path = packaged("lifetimes", "CDNOW_master.txt")
    return [batch for batch, _ in open_orders([path], input_map=load_map("cdnow"), currency="USD")]


async def send(cluster: Cluster, batches: Sequence[pa.RecordBatch], partitions: int) -> None:
    """Send canonical orders as `rfmstream produce` does."""
    client = cluster.config().client
    encoder = OrderEncoder("USD", Partitioner(partitions), stamp_events=True)
    async with opened(client) as producer:
        sender = OrderSender(producer, client, cluster.orders, encoder, Pace())
        for batch in batches:
            await sender.send(batch, lambda *_: None)


def replayed(batches: Sequence[pa.RecordBatch], as_of_us: int | None, ruleset: Ruleset = RULESET) -> pa.Table:
    """Return the tier changes of a replay."""
    engine = Engine(ruleset)
    tables = [engine.step_canonical(batch).changes for batch in batches]
    if as_of_us is not None:
        tables.append(engine.advance(as_of_us))
    return pa.concat_tables(tables)


def values_of(changes: pa.Table) -> Counter[bytes | None]:
    """Return tier changes as the values of their records."""
    return Counter(record.value for record in Encoder(RULESET, source="/test").changes(changes))


@cache
def values_of_the_replay(as_of_us: int) -> Counter[bytes | None]:
    """Return the tier changes of the real history."""
    return values_of(replayed(real_history(), as_of_us))


def assert_is_the_replay(cluster: Cluster, partitions: int, expected: Counter[bytes | None]) -> None:
    """Compare what a consumer of committed records sees with a replay: none lost, none repeated, none out of order."""

    async def read(topic: str) -> list[Any]:
        return await cluster.committed_records(topic, range(partitions))

    changes = asyncio.run(read(cluster.outputs.changes))
    rows = Counter(record.value for record in changes)
    assert sum(rows.values()) == sum(expected.values())
    assert rows == expected
    seqs: dict[bytes, list[int]] = defaultdict(list)
    last: dict[bytes, bytes] = {}
    for record in changes:
        seqs[record.key].append(orjson.loads(record.value)["seq"])
        last[record.key] = record.value
    assert all(seq == list(range(1, len(seq) + 1)) for seq in seqs.values())
    current = {record.key: record.value for record in asyncio.run(read(cluster.outputs.current))}
    assert current == last
