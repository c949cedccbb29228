"""The notes of time of all apps and partitions, read from outside any worker; and transactions that write some."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from rfmstream.engine.live.kafka.client import client_errors
from rfmstream.engine.live.kafka.lookup import partition_counts
from rfmstream.engine.live.model import Source
from rfmstream.engine.service.client_config import ClientConfig
from rfmstream.engine.service.kafka.client import TRANSACTION_SECONDS_MAX, connection_options, quiet_client

READ_SECONDS_MAX: Final = 90
"""Enough for a broker to end the transaction of a worker that is gone, which it looks for every 10 s."""

_POLL_MS: Final = 500
_DOING: Final = "the clock topic cannot be read"


class Note(NamedTuple):
    """One record of the clock topic.

    Fields  key    app_id/topic
            value  a tick, or an order of topics; None: what was noted before of this key has ended
    """

    key: bytes
    value: bytes | None
    partition: int
    offset: int

    @property
    def app_id(self) -> str:
        """Whose it is."""
        return self.key.decode("utf-8", "replace").partition("/")[0]

    @property
    def source(self) -> Source:
        """Return the partition it is of: those of the clock topic have the numbers of the input's."""
        return Source(self.key.decode("utf-8", "replace").partition("/")[2], self.partition)

    @property
    def is_of_time(self) -> bool:
        """Whether it is a tick; else it tells the order in which several topics are read, or the end of all before."""
        return self.value is not None and "clock_us" in orjson.loads(self.value)


async def clock_notes(client: ClientConfig, topic: str) -> AsyncIterator[Note]:
    """Yield the committed records of a clock topic that there are now, those of a partition in order; none if absent.

    Waits for transactions that are open.

    Errors  ConfigError, TransportError
    """
    count = (await partition_counts(client)).get(topic, 0)
    if not count:
        return
    places = [TopicPartition(topic, number) for number in range(count)]
    found = await ends_of(client, [Source(topic, number) for number in range(count)])
    ends = {TopicPartition(*source): end for source, end in found.items()}
    async with _consumer(client, "read_committed") as consumer:
        consumer.assign(places)
        with client_errors(client, _DOING, "Read"):
            async with asyncio.timeout(READ_SECONDS_MAX):
                begins = await consumer.beginning_offsets(places)
                for place in places:
                    consumer.seek(place, begins[place])
        open_places = {place for place in places if begins[place] < ends[place]}
        while open_places:
            with client_errors(client, _DOING, "Read"):
                async with asyncio.timeout(READ_SECONDS_MAX):
                    batches = await consumer.getmany(*open_places, timeout_ms=_POLL_MS)
            for place, records in batches.items():
                for record in records:
                    if record.offset < ends[place] and record.key is not None:
                        yield Note(record.key, record.value, place.partition, record.offset)
            open_places = {place for place in open_places if await consumer.position(place) < ends[place]}


async def ends_of(client: ClientConfig, sources: Iterable[Source]) -> dict[Source, int]:
    """Return one after the last record of each partition; those that are not there lack.

    Errors  ConfigError, TransportError
    """
    counts = await partition_counts(client)
    places = [TopicPartition(*source) for source in sources if source.partition < counts.get(source.topic, 0)]
    if not places:
        return {}
    async with _consumer(client, "read_uncommitted") as consumer:
        with client_errors(client, _DOING, "Read"):
            ends = await consumer.end_offsets(places)
    return {Source(place.topic, place.partition): end for place, end in ends.items()}


@asynccontextmanager
async def _consumer(client: ClientConfig, isolation: str) -> AsyncIterator[AIOKafkaConsumer]:
    """Give a connected consumer of no group."""
    consumer = AIOKafkaConsumer(
        **connection_options(client),
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level=isolation,
    )
    try:
        with quiet_client(), client_errors(client, "no connection"):
            await consumer.start()
        yield consumer
    finally:
        await consumer.stop()


@asynccontextmanager
async def in_transaction(client: ClientConfig, name: str) -> AsyncIterator[AIOKafkaProducer]:
    """Give a producer within a transaction, which ends with the block: for good, or without a trace.

    In      name  the transactional id
    """
    producer = AIOKafkaProducer(
        **connection_options(client),
        transactional_id=name,
        transaction_timeout_ms=TRANSACTION_SECONDS_MAX * 1000,
    )
    try:
        with quiet_client(), client_errors(client, "no connection", "Write"):
            await producer.start()
        with client_errors(client, "the transaction failed", "Write"):
            async with producer.transaction():
                yield producer
    finally:
        await producer.stop()
