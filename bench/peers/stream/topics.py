"""The topics of a run: made, filled, watched and read."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from bench.peers.stream.load import CHANGE_COLUMNS, Change, Records

BATCH_BYTES: Final = 1 << 17
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Made(NamedTuple):
    """A change that a peer wrote, and where."""

    change: Change
    partition: int
    offset: int


async def create(bootstrap: str, names: list[str], partitions: int) -> None:
    """Make topics that keep what is older than Kafka's week: the records' time is that of the history."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics(
            [NewTopic(name, partitions, 1, topic_configs={"retention.ms": "-1"}) for name in names]
        )
    finally:
        await admin.close()


async def delete_all(bootstrap: str) -> None:
    """Delete every topic but Kafka's own."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.delete_topics([name for name in await admin.list_topics() if not name.startswith("__")])
    finally:
        await admin.close()


class Batches:
    """Records in batches, ready to be sent."""

    def __init__(self, producer: AIOKafkaProducer, topic: str, records: Records) -> None:
        self._producer, self._topic = producer, topic
        self._batches: list[tuple[int, Any]] = []
        for partition, rows in enumerate(records):
            batch = None
            for key, value, timestamp_ms in rows:
                if batch is None or batch.append(key=key, value=value, timestamp=timestamp_ms) is None:
                    batch = producer.create_batch()
                    batch.append(key=key, value=value, timestamp=timestamp_ms)
                    self._batches.append((partition, batch))

    async def send(self) -> None:
        sent = [
            await self._producer.send_batch(batch, self._topic, partition=partition)
            for partition, batch in self._batches
        ]
        await asyncio.gather(*sent)


@asynccontextmanager
async def producer(bootstrap: str) -> AsyncIterator[AIOKafkaProducer]:
    made = AIOKafkaProducer(
        bootstrap_servers=bootstrap, max_batch_size=BATCH_BYTES, acks="all", enable_idempotence=True
    )
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


class Output:
    """The topic a peer writes to, as a consumer of committed changes sees it."""

    def __init__(self, consumer: AIOKafkaConsumer, topic: str, partitions: int) -> None:
        self._consumer = consumer
        self._partitions = [TopicPartition(topic, number) for number in range(partitions)]

    async def ends(self) -> list[int]:
        """Return the end of each partition: everything before it may be read."""
        found = await self._consumer.end_offsets(self._partitions)
        return [found[partition] for partition in self._partitions]

    async def read(self) -> list[Made]:
        self._consumer.assign(self._partitions)
        await self._consumer.seek_to_beginning()
        made: list[Made] = []
        while fetched := await self._consumer.getmany(timeout_ms=1500):
            for partition, records in fetched.items():
                made += [Made(change_of(r.value), partition.partition, r.offset) for r in records]
        return made


@asynccontextmanager
async def output(bootstrap: str, topic: str, partitions: int) -> AsyncIterator[Output]:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap, isolation_level="read_committed", enable_auto_commit=False
    )
    await consumer.start()
    try:
        yield Output(consumer, topic, partitions)
    finally:
        await consumer.stop()


def change_of(value: bytes) -> Change:
    """Read a change as a peer wrote it; the columns that are not compared may be there or not."""
    row = orjson.loads(value)
    effective = datetime.fromisoformat(row["effective_at"]) - _EPOCH
    row["effective_at"] = effective // timedelta(microseconds=1)
    return Change._make(row[name] for name in CHANGE_COLUMNS)
