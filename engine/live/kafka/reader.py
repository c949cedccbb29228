"""Reads the committed records of a topic, as no member of any group."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from rfmstream.engine.live.kafka.client import client_errors
from rfmstream.engine.live.kafka.lookup import partition_counts
from rfmstream.engine.service.client_config import ClientConfig
from rfmstream.engine.service.kafka.client import connection_options, quiet_client
from rfmstream.schemas.errors import ConfigError

_POLL_MS: Final = 200


async def read_values(
    config: ClientConfig,
    topic: str,
    *,
    key: str = "changes_topic",
    from_beginning: bool = False,
    until_end: bool = False,
) -> AsyncGenerator[bytes, None]:
    """Yield the values of a topic's committed records; those of a partition in order.

    In      key             the setting that names the topic
            from_beginning  begin with the oldest instead of the next
            until_end       stop after what is committed now
    Errors  ConfigError     there is no such topic, or no right to it
            TransportError  the brokers do not answer
    """
    count = (await partition_counts(config, {topic: ["Read"]})).get(topic)
    if count is None:
        raise ConfigError(f"there is no topic {topic}", key=key, fix="start a worker, or name another")
    async with _consumer(config) as consumer:
        with client_errors(config, f"topic {topic} cannot be read", "Read"):
            consumer.assign([TopicPartition(topic, number) for number in range(count)])
            if from_beginning:
                await consumer.seek_to_beginning()
            else:
                await consumer.seek_to_end()
            # For a consumer of committed records the end lies before the first open transaction.
            ends = await consumer.end_offsets(list(consumer.assignment())) if until_end else {}
        while True:
            with client_errors(config, f"reading {topic} broke off", "Read"):
                found = await consumer.getmany(timeout_ms=_POLL_MS)
            for records in found.values():
                for record in records:
                    if record.value is not None:
                        yield record.value
            if until_end and not [one for one, end in ends.items() if await consumer.position(one) < end]:
                return


@asynccontextmanager
async def _consumer(config: ClientConfig) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(
        **connection_options(config),
        group_id=None,
        enable_auto_commit=False,
        isolation_level="read_committed",
    )
    try:
        with quiet_client(), client_errors(config, "no connection"):
            await consumer.start()
        yield consumer
    finally:
        await consumer.stop()
