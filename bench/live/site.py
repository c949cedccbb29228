"""Where the live worker is measured: a broker of its own, topics for each run, worker processes, and what they use."""

import asyncio
import logging
import os
import shutil
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple
from urllib.request import urlopen

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    NotCoordinatorForGroupError,
)
from prometheus_client.parser import text_string_to_metric_families

from bench.peers.stream.processes import Tree, session_usage
from bench.process import RFMSTREAM
from ops.broker.broker import Broker, free_ports
from rfmstream.engine.live.kafka.producer import prepare_topic
from rfmstream.engine.service.client_config import ClientConfig

ROOT: Final = Path(__file__).resolve().parents[2]
PARTITIONS: Final = 12
OUTPUTS: Final = ("changes", "current", "rejected", "clock", "signals")
_WAIT_S: Final = 0.05
_SECONDS_MAX: Final = 900


class Spent(NamedTuple):
    """Processor seconds at an instant (time.monotonic)."""

    at_s: float
    worker_s: float
    broker_s: float

    def since(self, before: "Spent") -> "Spent":
        return Spent(*(now - then for now, then in zip(self, before, strict=True)))


@dataclass
class Worker:
    """A worker process.

    Fields  folder      for its checkpoints and its log
            threads     for steps
            settings    more options of `rfmstream worker`
    """

    bootstrap: str
    folder: Path
    name: str
    orders: str
    ruleset: str
    threads: int
    settings: dict[str, object] = field(default_factory=dict)

    @property
    def changes(self) -> str:
        return f"{self.name}.changes"

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    def start(self) -> Tree:
        [port] = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        options = {
            "bootstrap-servers": self.bootstrap,
            "app-id": self.name,
            "input-topics": self.orders,
            "ruleset": self.ruleset,
            "checkpoints": self.folder / self.name,
            "threads": self.threads,
            "listen": f"127.0.0.1:{port}",
            **{f"{kind}-topic": f"{self.name}.{kind}" for kind in OUTPUTS},
            **self.settings,
        }
        flags = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        return Tree([RFMSTREAM, "worker", *flags], environment={}, cwd=self.folder, log=self.log)

    def is_ready(self) -> bool:
        try:
            with urlopen(f"{self.url}/readyz", timeout=10) as reply:  # noqa: S310 - a page of ours
                return reply.status == HTTPStatus.OK
        except OSError:
            return False

    def metrics(self) -> dict[str, float]:
        """Return each metric's sum over partitions and labels."""
        with urlopen(f"{self.url}/metrics", timeout=10) as reply:  # noqa: S310 - a page of ours
            text = reply.read().decode()
        sums: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
        return sums


class Site:
    """A running broker."""

    def __init__(
        self,
        bootstrap: str,
        folder: Path = Path(),
        broker_pid: int | None = None,
        broker_data: Path | None = None,
    ) -> None:
        self.bootstrap = bootstrap
        self.folder = folder
        self._broker_pid = broker_pid
        self._broker_data = broker_data

    @property
    def client(self) -> ClientConfig:
        return ClientConfig(bootstrap_servers=(self.bootstrap,))

    async def create(self, topic: str) -> None:
        """Create a topic that keeps everything: what is of two years ago would else be deleted at once."""
        await prepare_topic(self.client, topic, partitions=PARTITIONS, replication_factor=1)
        async with self.admin() as admin:
            while topic not in await admin.list_topics():  # noqa: ASYNC110
                await asyncio.sleep(_WAIT_S)

    async def delete(self, topics: Sequence[str]) -> None:
        """Delete topics, so that the disk does not fill up with all runs."""
        async with self.admin() as admin:
            await admin.delete_topics(list(topics))

    @asynccontextmanager
    async def admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            yield admin
        finally:
            await admin.close()

    @asynccontextmanager
    async def consumer(self, topic: str, **options: object) -> AsyncIterator[AIOKafkaConsumer]:
        """Give a consumer of all that is committed in a topic, from its beginning."""
        consumer = AIOKafkaConsumer(
            **options,
            bootstrap_servers=self.bootstrap,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=100,
            max_partition_fetch_bytes=4 << 20,
        )
        await consumer.start()
        try:
            consumer.assign([TopicPartition(topic, number) for number in range(PARTITIONS)])
            yield consumer
        finally:
            # One that is about to try again lets its own cancellation out.
            with suppress(asyncio.CancelledError):
                await consumer.stop()

    def spent(self, tree: Tree) -> Spent:
        broker_s = session_usage(self._broker_pid).cpu_s if self._broker_pid else 0.0
        return Spent(time.monotonic(), tree.usage().cpu_s, broker_s)

    def log_bytes(self, *topics: str) -> int:
        """Return what topics take on the broker's disk, as packed as they are; 0: it is a broker of somebody else."""
        if self._broker_data is None:
            return 0
        return sum(
            path.stat().st_size
            for topic in topics
            for number in range(PARTITIONS)
            for path in self._broker_data.glob(f"{topic}-{number}/*.log")
        )

    async def committed(self, admin: AIOKafkaAdminClient, worker: Worker) -> int:
        """Return how many records of the input a worker has committed."""
        places = [TopicPartition(worker.orders, number) for number in range(PARTITIONS)]
        try:
            found = await admin.list_consumer_group_offsets(worker.name, partitions=places)
        except (GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError, GroupLoadInProgressError):
            return 0  # the group has just been made
        return sum(max(each.offset, 0) for each in found.values())

    async def wait_for(self, worker: Worker, tree: Tree, records: int) -> Spent:
        """Wait until so many records are committed; return what was spent at that instant."""
        deadline = time.monotonic() + _SECONDS_MAX
        async with self.admin() as admin:
            while await self.committed(admin, worker) < records:
                if tree.ended() or time.monotonic() > deadline:
                    raise RuntimeError(f"the worker did not get there:\n{worker.log.read_text()[-2000:]}")
                await asyncio.sleep(_WAIT_S)
        return self.spent(tree)

    async def ready(self, worker: Worker, tree: Tree) -> None:
        """Wait until a worker is past its recovery."""
        deadline = time.monotonic() + _SECONDS_MAX
        while not await asyncio.to_thread(worker.is_ready):
            if tree.ended() or time.monotonic() > deadline:
                raise RuntimeError(f"the worker did not get ready:\n{worker.log.read_text()[-2000:]}")
            await asyncio.sleep(_WAIT_S)

    def worker(self, name: str, orders: str, ruleset: str, *, threads: int, **settings: object) -> Worker:
        """Return a worker on a topic of orders; `name` is that of its group, and its output topics begin with it."""
        options = {setting.replace("_", "-"): value for setting, value in settings.items()}
        return Worker(self.bootstrap, self.folder, name, orders, ruleset, threads, options)

    def forget(self, worker: Worker) -> None:
        """Delete the checkpoints of a worker."""
        shutil.rmtree(worker.folder / worker.name, ignore_errors=True)


@contextmanager
def site() -> Iterator[Site]:
    """Give a broker: that of KAFKA_BOOTSTRAP, or a fresh one that ends with the block."""
    # A topic that was made a moment ago has no leader for a few more: the client tries again, and says so.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    own = os.environ.get("KAFKA_BOOTSTRAP")
    (ROOT / ".kafka").mkdir(exist_ok=True)
    with TemporaryDirectory(prefix="bench-", dir=ROOT / ".kafka") as name:
        folder = Path(name)
        if own:
            yield Site(own, folder)
            return
        broker = Broker(folder / "broker", *free_ports(2), jars=ROOT / ".kafka" / "jars")
        broker.start()
        try:
            yield Site(broker.bootstrap, folder, broker.pid(), broker.data)
        finally:
            broker.stop()
