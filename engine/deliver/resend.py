"""Sending again what was sent before: a range of time, or named events. The same ids, no group, no commit."""

import asyncio
import time
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from typing import Final

from rfmstream.engine.deliver.broker import BrokerConfig
from rfmstream.engine.deliver.client import HttpClient
from rfmstream.engine.deliver.config import Destination
from rfmstream.engine.deliver.forms import event_key
from rfmstream.engine.deliver.kafka.admin import partition_counts
from rfmstream.engine.deliver.kafka.plain import PlainConsumer
from rfmstream.engine.deliver.kafka.producer import Producer
from rfmstream.engine.deliver.model import Event, Place
from rfmstream.engine.deliver.records import UnreadableError, read_event
from rfmstream.engine.deliver.sender import Sender
from rfmstream.schemas.errors import ConfigError

_WAITING_MAX: Final = 20_000


@dataclass(frozen=True)
class Wanted:
    """What is to be sent again.

    Fields  from_ms, to_ms  records written from here to before there; None: no bound
            ids             ids of CloudEvents or of webhooks; None: all
    """

    from_ms: int | None = None
    to_ms: int | None = None
    ids: frozenset[str] | None = None

    def takes(self, event: Event) -> bool:
        """Tell whether an event is one of them."""
        if self.to_ms is not None and event.timestamp_ms >= self.to_ms:
            return False
        return self.ids is None or event.id in self.ids or event_key(event) in self.ids


@dataclass(frozen=True)
class Resent:
    """What became of it."""

    found: int
    sent: int
    rejected: int
    filtered: int


async def resend(destination: Destination, broker: BrokerConfig, wanted: Wanted) -> Resent:
    """Send again, and return when all is answered; a destination that is down is waited for.

    Errors  ConfigError     there is no topic of changes, or the destination is parked by its answer
            TransportError  the brokers do not answer
    """
    client = HttpClient(
        timeout_s=destination.timeout_s,
        allow_private=destination.allow_private,
        ca_file=destination.ca_file,
        concurrency=destination.pace.concurrency,
    )
    producer = Producer(broker)
    try:
        await producer.start()
        sender = Sender(destination, client, producer, seed=time.time_ns())
        sending = asyncio.create_task(sender.run())
        try:
            found = 0
            begun: set[Place] = set()
            async for event in _events(broker, wanted):
                found += 1
                if event.place not in begun:
                    begun.add(event.place)
                    sender.lanes.begin(event.place, event.offset)
                sender.lanes.note(event.place, event.offset)
                await sender.offer(event)
                sender.wake.set()
                await _room(sender)
            while not sender.lanes.is_idle:
                await _moment(sender)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            await sender.drain()
            sender.require_sound()
        counts = sender.lanes.counts
        return Resent(found, counts["sent"], counts["rejected"], sender.filtered.total())
    finally:
        await producer.stop()
        await client.close()


async def _room(sender: Sender) -> None:
    while sender.lanes.unfinished > _WAITING_MAX:
        await _moment(sender)


async def _moment(sender: Sender) -> None:
    if sender.lanes.parked:
        raise ConfigError(
            f"destination {sender.destination.name} is parked: {sender.lanes.parked}",
            fix="have it take events, then replay the same range again",
        )
    sender.require_sound()
    sender.lanes.settled(sender.lanes.unsettled())
    sender.wake.set()
    await asyncio.sleep(0.01)


async def _events(broker: BrokerConfig, wanted: Wanted) -> AsyncIterator[Event]:
    kinds = {broker.changes_topic: "change", broker.signals_topic: "signal"}
    counts = await partition_counts(broker, list(kinds))
    if broker.changes_topic not in counts:
        raise ConfigError(
            f"there is no topic {broker.changes_topic}", key="kafka.changes_topic", fix="name the worker's"
        )
    places = [Place(topic, number) for topic, count in counts.items() for number in range(count)]
    consumer = PlainConsumer(broker)
    try:
        await consumer.start()
        ends = await consumer.ends(places)
        begins: dict[Place, int | None] = dict.fromkeys(places)
        if wanted.from_ms is not None:
            begins = dict(await consumer.offsets_at(places, wanted.from_ms))
            # Nothing was written since: there is nothing to read.
            begins = {place: offset for place, offset in begins.items() if offset is not None}
        left = {place: ends[place] for place in begins}
        if left:
            consumer.assign(begins)
        while left:
            for place, records in (await consumer.read()).items():
                for record in records:
                    if record.offset >= ends[place]:
                        break
                    try:
                        event = read_event(kinds[place.topic], record)
                    except UnreadableError:
                        continue
                    if wanted.takes(event):
                        yield event
            left = await _unread(consumer, left)
    finally:
        await consumer.stop()


async def _unread(consumer: PlainConsumer, left: dict[Place, int]) -> dict[Place, int]:
    return {place: end for place, end in left.items() if await consumer.position(place) < end}


def read_ids(lines: Collection[str]) -> frozenset[str]:
    """Return the ids that a file's lines hold, one each; empty lines hold none."""
    return frozenset(text for line in lines if (text := line.strip()))
