"""Sending orders to an input topic: idempotent, in order within a partition, at the pace that is asked for."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import numpy as np
import pyarrow as pa
from aiokafka import AIOKafkaProducer
from aiokafka.admin import NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.producer.message_accumulator import BatchBuilder
from numpy.typing import NDArray

from rfmstream.engine.core.buffers import values_of
from rfmstream.engine.live.kafka.client import client_errors
from rfmstream.engine.live.kafka.lookup import partition_counts
from rfmstream.engine.live.orders_out import OrderEncoder, OutRecord, Pace
from rfmstream.engine.live.placement import places_of
from rfmstream.engine.service.client_config import ClientConfig
from rfmstream.engine.service.kafka.client import administrator, connection_options, quiet_client
from rfmstream.engine.service.kafka.topics import CreateSettings, create_topics
from rfmstream.schemas.errors import ConfigError

_BATCH_BYTES: Final = 256 << 10
_SLEEP_S_MAX: Final = 0.2
_DAY_MS: Final = 86_400_000
# By default a broker begins a segment for each week of record time, so a history would be many tiny segments.
_KEEP_FOR_EVER: Final = {"retention.ms": "-1", "retention.bytes": "-1", "segment.ms": str(2**63 - 1)}


class Partitioner:
    """The partition of a key as a kind of clients chooses it.

    In      kind  one of engine.live.placement.PARTITIONERS; murmur2: Kafka's own
    """

    def __init__(self, count: int, kind: str = "murmur2") -> None:
        self._count = count
        self._kind = kind

    def __call__(self, keys: Sequence[bytes]) -> NDArray[np.int64]:
        """Return the partition of each key: i64[n]."""
        return places_of(keys, self._count, self._kind)


async def prepare_topic(
    config: ClientConfig, topic: str, *, partitions: int | None, replication_factor: int
) -> int:
    """Return how many partitions the topic has; create it if it is absent and `partitions` says how many it gets.

    Errors  ConfigError     there is no such topic, or it has another number of partitions
            TransportError  the brokers do not answer
    """
    there = (await partition_counts(config, {topic: ["Write"]})).get(topic)
    if there is None and partitions is None:
        raise ConfigError(
            f"there is no topic {topic}", key="--topic", fix="create it with --partitions N, or name another"
        )
    if there is None:
        assert partitions is not None
        await _create(config, NewTopic(topic, partitions, replication_factor, topic_configs=_KEEP_FOR_EVER))
        return partitions
    if partitions not in (None, there):
        raise ConfigError(
            f"topic {topic} has {there} partitions, not {partitions}",
            key="--partitions",
            fix="leave the option out, or name another topic",
        )
    return there


async def refuse_short_memory(config: ClientConfig, topic: str, oldest_us: int) -> None:
    """Refuse to write a record, of this time, that is older than what the topic keeps.

    Errors  ConfigError     the broker would delete it, perhaps before anybody has read it
            TransportError  the brokers do not answer
    """
    names = ("cleanup.policy", "retention.ms")
    async with administrator(config, f"the options of topic {topic} cannot be read") as admin:
        resource = ConfigResource(ConfigResourceType.TOPIC, topic, configs=dict.fromkeys(names, ""))
        responses = await admin.describe_configs([resource])
    entries = [entry for response in responses for found in response.resources for entry in found[4]]
    options = {name: value for name, value, *_ in entries}
    # A user without the right to read them gets none.
    kept_ms = int(options.get("retention.ms") or -1)
    age_ms = time.time_ns() // 1_000_000 - oldest_us // 1000
    if "delete" in options.get("cleanup.policy", "") and 0 <= kept_ms < age_ms:
        raise ConfigError(
            f"topic {topic} keeps records for {kept_ms / _DAY_MS:g} days, and the oldest order is {age_ms // _DAY_MS} "
            "days old: the broker would delete it, perhaps unread",
            key="--topic",
            fix="set its retention.ms to -1, or use --timestamps now or --shift-to-now",
        )


@asynccontextmanager
async def opened(config: ClientConfig) -> AsyncIterator[AIOKafkaProducer]:
    """Give a connected idempotent producer; what it has been given is sent before the block ends well."""
    producer = AIOKafkaProducer(
        **connection_options(config), enable_idempotence=True, acks="all", max_batch_size=_BATCH_BYTES
    )
    with quiet_client(), client_errors(config, "no connection", "Write"):
        await producer.start()
    try:
        yield producer
    finally:
        with client_errors(config, "the last orders may not have been sent", "Write"):
            await producer.stop()


class OrderSender:
    """Sends batches of canonical orders, each order when it is due.

    Fields  sent     orders
            records  they went in
    """

    def __init__(
        self,
        producer: AIOKafkaProducer,
        config: ClientConfig,
        topic: str,
        encoder: OrderEncoder,
        pace: Pace,
    ) -> None:
        self._producer = producer
        self._config = config
        self._topic = topic
        self._encoder = encoder
        self._pace = pace
        self._started_s: float | None = None
        self.sent = 0
        self.records = 0

    async def send(self, orders: pa.RecordBatch, on_progress: Callable[[int, int], None]) -> None:
        """Send a batch (in order of time) and return when the brokers have it.

        In      on_progress  called with (orders sent, time of the newest in µs)
        """
        times_us = values_of(orders.column("occurred_at"), np.int64)
        due_s = self._pace.due_s(times_us)
        if self._started_s is None:
            self._started_s = time.monotonic()
        done = 0
        while done < len(due_s):
            elapsed_s = time.monotonic() - self._started_s
            ready = int(np.searchsorted(due_s, elapsed_s, side="right"))
            if ready <= done:
                await asyncio.sleep(min(due_s[done] - elapsed_s, _SLEEP_S_MAX))
                continue
            await self._send(self._encoder.records(orders.slice(done, ready - done)))
            self.sent += ready - done
            on_progress(self.sent, int(times_us[ready - 1]) + self._encoder.shift_us)
            done = ready

    async def _send(self, records: Iterable[OutRecord]) -> None:
        builders: dict[int, BatchBuilder] = {}
        sent: list[asyncio.Future[Any]] = []
        with client_errors(self._config, f"sending to {self._topic} broke off", "Write"):
            for partition, key, value, headers, timestamp_ms in records:
                builder = builders.get(partition) or self._producer.create_batch()
                fields = {"timestamp": timestamp_ms, "key": key, "value": value, "headers": headers}
                if builder.append(**fields) is None:
                    sent.append(await self._hand_over(builder, partition))
                    builder = self._producer.create_batch()
                    builder.append(**fields)
                builders[partition] = builder
                self.records += 1
            for partition, builder in builders.items():
                sent.append(await self._hand_over(builder, partition))
            await asyncio.gather(*sent)

    async def _hand_over(self, builder: BatchBuilder, partition: int) -> asyncio.Future[Any]:
        builder.close()
        found: asyncio.Future[Any] = await self._producer.send_batch(
            builder, self._topic, partition=partition
        )
        return found


async def _create(config: ClientConfig, topic: NewTopic) -> None:
    fix = f"grant Create on the topic {topic.name}, or let somebody else create it"
    async with administrator(config, f"topic {topic.name} cannot be created") as admin:
        await create_topics(admin, [topic], CreateSettings(("--partitions", fix), "--replication-factor"))
