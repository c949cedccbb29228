"""Writing: rejected rows, and releases; following the latter."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

import orjson
from aiokafka import AIOKafkaProducer

from rfmstream.engine.deliver.broker import BrokerConfig
from rfmstream.engine.deliver.kafka.admin import create_topics
from rfmstream.engine.deliver.kafka.plain import PlainConsumer
from rfmstream.engine.deliver.model import ANSWER_BYTES_MAX, Event, Place
from rfmstream.engine.deliver.records import Record
from rfmstream.engine.service.kafka.client import client_errors, connection_options, quiet_client
from rfmstream.schemas.errors import TransportError

_log = logging.getLogger(__name__)

_HEADER_TEXT_MAX: Final = 1024


class Producer:
    """Writes rejected rows and releases, and waits until the brokers have them."""

    def __init__(self, broker: BrokerConfig) -> None:
        self._broker = broker
        self._producer = AIOKafkaProducer(**connection_options(broker), acks="all", enable_idempotence=True)

    async def start(self) -> None:
        """Connect.

        Errors  ConfigError, TransportError
        """
        with client_errors(self._broker, "no connection"), quiet_client():
            await self._producer.start()

    async def stop(self) -> None:
        """Let go."""
        await self._producer.stop()

    async def reject(
        self, event: Event, *, destination: str, status: int, reason: str, answer: bytes
    ) -> None:
        """Write a row that a destination refused, with what it said.

        Errors  TransportError  it may succeed later
        """
        headers = [
            ("rfm-destination", destination.encode()),
            ("rfm-status", str(status).encode()),
            ("rfm-reason", reason.encode()[:_HEADER_TEXT_MAX]),
            ("rfm-answer", answer[:ANSWER_BYTES_MAX]),
            ("rfm-topic", event.place.topic.encode()),
            ("rfm-partition", str(event.place.partition).encode()),
            ("rfm-offset", str(event.offset).encode()),
            ("rfm-timestamp", str(event.timestamp_ms).encode()),
            ("ce_specversion", b"1.0"),
            ("ce_id", event.id.encode()),
            ("ce_source", event.source.encode()),
            ("ce_type", event.type.encode()),
            ("ce_subject", event.subject.encode()),
            ("ce_time", event.time.encode()),
            ("content-type", b"application/json"),
        ]
        with client_errors(self._broker, "a rejected row cannot be written"):
            await self._producer.send_and_wait(
                self._broker.rejected_topic, event.raw, key=event.key, headers=headers
            )

    async def release(self, group: str, until_ms: int) -> None:
        """Note that a destination may go on.

        Errors  ConfigError, TransportError
        """
        value = orjson.dumps({"group": group, "released_until_ms": until_ms})
        with client_errors(self._broker, "the release cannot be written"):
            await self._producer.send_and_wait(self._broker.control_topic, value, key=group.encode())


async def send_release(broker: BrokerConfig, groups: Sequence[str]) -> None:
    """Note now that destinations may go on.

    Errors  ConfigError, TransportError
    """
    if broker.create_topics:
        await create_topics(broker, {broker.control_topic: {"cleanup.policy": "compact"}})
    producer = Producer(broker)
    try:
        await producer.start()
        for group in groups:
            await producer.release(group, time.time_ns() // 1_000_000)
    finally:
        await producer.stop()


async def follow_releases(
    broker: BrokerConfig, released: Callable[[str, int], None], ready: asyncio.Event
) -> None:
    """Call `released(group, until_ms)` for every release there was and will be; `ready` once those that were are in."""
    place = Place(broker.control_topic, 0)
    consumer = PlainConsumer(broker)
    try:
        await consumer.start()
        consumer.assign({place: None})
        end = (await consumer.ends([place]))[place]
        while True:
            if not ready.is_set() and await consumer.position(place) >= end:
                ready.set()
            try:
                found = await consumer.read()
            except TransportError as error:
                _log.warning("releases cannot be read", extra={"error": str(error)})
                await asyncio.sleep(1)
                continue
            for record in found.get(place, ()):
                _take_release(record, released)
    finally:
        await consumer.stop()


def _take_release(record: Record, released: Callable[[str, int], None]) -> None:
    try:
        said = orjson.loads(record.value or b"null")
        released(str(said["group"]), int(said["released_until_ms"]))
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        _log.warning("a record of the control topic is no release", extra={"offset": record.offset})
