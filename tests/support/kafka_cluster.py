"""What tests do to a Kafka cluster: topics of their own, records in, committed records out."""

import asyncio
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.protocol.group import LeaveGroupRequest

from ops.broker.broker import Broker, free_ports
from rfmstream.engine.live.config import OutputTopics, WorkerConfig
from rfmstream.engine.service.client_config import ClientConfig

__all__ = ["ROOT", "Broker", "Cluster", "free_ports", "require_java"]

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Cluster:
    """A cluster, and a name that no other test has: topics and groups begin with it."""

    bootstrap: str
    name: str

    @property
    def orders(self) -> str:
        return f"{self.name}.orders"

    @property
    def outputs(self) -> OutputTopics:
        kinds = ("changes", "current", "rejected", "clock", "signals")
        return OutputTopics(*(f"{self.name}.{kind}" for kind in kinds))

    def config(self, **settings: Any) -> WorkerConfig:  # noqa: ANN401
        """Return the settings of a worker on these topics."""
        return WorkerConfig(
            **{
                "client": ClientConfig(bootstrap_servers=(self.bootstrap,)),
                "app_id": self.name,
                "input_topics": (self.orders,),
                "outputs": self.outputs,
                "listen": None,
                **settings,
            }
        )

    async def create(self, topic: str, partitions: int, **options: str) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            named = {key.replace("_", "."): value for key, value in options.items()}
            response = await admin.create_topics([NewTopic(topic, partitions, 1, topic_configs=named)])
            assert [error[1] for error in response.topic_errors] == [0], response
            while topic not in await admin.list_topics():  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        finally:
            await admin.close()

    async def send(
        self, records: Iterable[tuple[int, bytes | None, bytes | None]], *, topic: str | None = None
    ) -> None:
        """Send (partition, key, value) in order, and wait until the broker has them."""
        producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap, enable_idempotence=True)
        await producer.start()
        try:
            sent = [
                await producer.send(topic or self.orders, value, key=key, partition=partition)
                for partition, key, value in records
            ]
            await asyncio.gather(*sent)
        finally:
            await producer.stop()

    async def expel(self, group: str) -> None:
        """Let the members of a group leave, as the broker does by itself once a dead one's session has timed out."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            node = await admin.find_coordinator(group)
            [described] = await admin.describe_consumer_groups([group], node)
            for member_id, *_ in described.groups[0][5]:
                await admin._send_request(LeaveGroupRequest(group, member_id), node)
        finally:
            await admin.close()

    async def ends(
        self, places: Sequence[TopicPartition], isolation: str = "read_uncommitted"
    ) -> dict[TopicPartition, int]:
        """Return how far partitions have got: their records and the marks of their transactions."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap, isolation_level=isolation)
        await consumer.start()
        try:
            ends: dict[TopicPartition, int] = await consumer.end_offsets(places)
            return ends
        finally:
            await consumer.stop()

    async def committed_records(self, topic: str, partitions: Sequence[int]) -> list[ConsumerRecord]:
        """Return what a consumer of committed records sees of a topic, once all transactions have ended."""
        places = [TopicPartition(topic, number) for number in partitions]
        ends = await self.ends(places)
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.bootstrap, isolation_level="read_committed", auto_offset_reset="earliest"
        )
        await consumer.start()
        try:
            consumer.assign(places)
            found: list[ConsumerRecord] = []
            while any([await consumer.position(place) < end for place, end in ends.items()]):
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    found += records
            return found
        finally:
            await consumer.stop()


def require_java() -> None:
    missing = [name for name in ("java", "mvn") if shutil.which(name) is None]
    if not missing:
        return
    reason = f"no {' and no '.join(missing)}, and no KAFKA_BOOTSTRAP: there is no broker to test against"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
