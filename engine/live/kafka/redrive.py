"""Sends rejected rows back to the input, for example refunds once their orders have come."""

import asyncio
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition

from rfmstream.engine.live.kafka.client import client_errors
from rfmstream.engine.live.kafka.lookup import partition_counts
from rfmstream.engine.live.kafka.producer import opened
from rfmstream.engine.service.client_config import ClientConfig
from rfmstream.engine.service.kafka.client import connection_options, quiet_client
from rfmstream.schemas.errors import ConfigError

_ARROW_MARK: Final = b"\xff\xff\xff\xff"
_POLL_MS: Final = 200
_REASON: Final = "rfm-reason"
_CUT_SHORT: Final = ("rfm-value-bytes", "rfm-key-bytes")
_ARROW: Final = b"application/vnd.apache.arrow.stream"
_EVENT: Final = b"application/cloudevents+json"


@dataclass
class Redriven:
    """What became of the rejected rows that were asked for.

    Fields  sent     by (input topic, reason)
            left     whole rows are not there any more, or nobody knows where they came from
    """

    sent: Counter[tuple[str, str]] = field(default_factory=Counter)
    left: int = 0


async def redrive(  # noqa: PLR0913 - each by name
    config: ClientConfig,
    rejected_topic: str,
    *,
    reasons: Collection[str],
    since_us: int,
    until_us: int | None = None,
    dry_run: bool = False,
) -> Redriven:
    """Send rejected rows to the partition they came from, in the order in which they were rejected there.

    What is there when it begins is looked at, what is rejected anew meanwhile is not. A row that was applied by now is
    a duplicate, and ignored.

    In      reasons    which rows
            since_us, until_us  when they were rejected: [since, until), µs; None: no limit
            dry_run    only count
    Errors  ConfigError     there is no such topic, or no right to it
            TransportError  the brokers do not answer
    """
    counts = await partition_counts(config, {rejected_topic: ["Read"]})
    if rejected_topic not in counts:
        raise ConfigError(
            f"there is no topic {rejected_topic}",
            key="rejected_topic",
            fix="name the rejected_topic of the worker",
        )
    done = Redriven()
    rows = await _rejected(config, rejected_topic, counts[rejected_topic], since_us, until_us)
    wanted = []
    for record in rows:
        headers = dict(record.headers)
        if headers.get(_REASON, b"").decode() not in reasons:
            continue
        topic = headers.get("rfm-topic", b"").decode()
        if record.value is None or any(name in headers for name in _CUT_SHORT) or topic not in counts:
            done.left += 1
        else:
            wanted.append((topic, record))
            done.sent[topic, headers[_REASON].decode()] += 1
    if wanted and not dry_run:
        await _send(config, wanted)
    return done


async def _rejected(
    config: ClientConfig, topic: str, count: int, since_us: int, until_us: int | None
) -> list[Any]:
    """Return the records of a topic that were written within a time, those of a partition in order."""
    consumer = AIOKafkaConsumer(
        **connection_options(config),
        group_id=None,
        enable_auto_commit=False,
        isolation_level="read_committed",
    )
    found: list[Any] = []
    try:
        with quiet_client(), client_errors(config, f"topic {topic} cannot be read", "Read"):
            await consumer.start()
            places = [TopicPartition(topic, number) for number in range(count)]
            consumer.assign(places)
            begins = await consumer.offsets_for_times(dict.fromkeys(places, max(since_us // 1000, 0)))
            ends = await consumer.end_offsets(places)
            for place in places:
                at = begins.get(place)
                consumer.seek(place, ends[place] if at is None else at.offset)
            while [place for place in places if await consumer.position(place) < ends[place]]:
                for place, records in (await consumer.getmany(timeout_ms=_POLL_MS)).items():
                    found += [record for record in records if record.offset < ends[place]]
    finally:
        await consumer.stop()
    within = (lambda _: True) if until_us is None else (lambda record: record.timestamp * 1000 < until_us)
    return [record for record in found if record.timestamp * 1000 >= since_us and within(record)]


async def _send(config: ClientConfig, wanted: list[tuple[str, Any]]) -> None:
    async with opened(config) as producer:
        with client_errors(config, "sending broke off", "Write"):
            sent = []
            for topic, record in wanted:
                partition = int(dict(record.headers)["rfm-partition"])
                headers = _headers(record.value)
                sent.append(
                    await producer.send(
                        topic, record.value, key=record.key, partition=partition, headers=headers
                    )
                )
            await asyncio.gather(*sent)


def _headers(value: bytes) -> list[tuple[str, bytes]]:
    """Return what a row's bytes need to be read: they are one JSON object, or all of a record of one row."""
    if value.startswith(_ARROW_MARK):
        return [("content-type", _ARROW)]
    try:
        row = orjson.loads(value)
    except orjson.JSONDecodeError:
        return []
    is_event = isinstance(row, dict) and "specversion" in row and "customer_id" not in row
    return [("content-type", _EVENT)] if is_event else []
