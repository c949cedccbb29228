"""The guard's scout: it reads ahead of what is sent, so that a mass is seen before its first event leaves.

It counts the customers there are, in the topic of current tiers, and the changes of the last hour. What it reads is
not kept: a backlog of millions is counted at the price of reading it.
"""

import asyncio
import logging
from collections.abc import Collection, Mapping
from typing import Final

from rfmstream.engine.deliver.broker import BrokerConfig
from rfmstream.engine.deliver.config import GuardConfig
from rfmstream.engine.deliver.guard import CustomerSketch, Guard
from rfmstream.engine.deliver.kafka.admin import partition_counts
from rfmstream.engine.deliver.kafka.plain import PlainConsumer
from rfmstream.engine.deliver.model import Place
from rfmstream.schemas.errors import ConfigError, TransportError

_log = logging.getLogger(__name__)

_REPLAY: Final = b'"mode":"replay"'


class Scout:
    """The guard of one destination, and what feeds it.

    In      customers  how many there are in all; None: counted
    Fields  guard      None until the customers are counted
            is_ahead   whether everything that is there has been counted
    """

    def __init__(
        self,
        config: GuardConfig,
        broker: BrokerConfig,
        name: str,
        customers: int | None,
        *,
        with_replay: bool,
    ) -> None:
        self.guard = Guard(config.share, config.at_least, customers or 0)
        self.hold_ms = int(config.hold_s * 1000)
        self.is_ahead = False
        self.changed = asyncio.Event()
        self._broker = broker
        self._name = name
        self._customers = customers
        self._with_replay = with_replay
        self._sketches: dict[int, CustomerSketch] = {}
        self._places: dict[Place, int] = {}
        self._has_news = asyncio.Event()
        self._released_ms = 0

    @property
    def is_open(self) -> bool:
        """Whether events may leave."""
        return self.is_ahead and self.guard.tripped_at_ms is None

    def look(self, places: Mapping[Place, int]) -> None:
        """Begin anew: count these partitions from these offsets on."""
        self._places = dict(places)
        self.is_ahead = False
        self.guard = Guard(self.guard.share, self.guard.at_least, self.guard.customers)
        self.guard.release(self._released_ms)
        self._has_news.set()

    def release(self, until_ms: int) -> None:
        """Let through what was written up to an instant."""
        if until_ms > self._released_ms:
            self._released_ms = until_ms
            self.guard.release(until_ms)
            self.changed.set()

    async def run(self) -> None:
        """Read ahead until cancelled.

        Errors  ConfigError  there is nothing to count customers in
        """
        while True:
            consumer = PlainConsumer(self._broker)
            try:
                await consumer.start()
                while True:
                    self._has_news.clear()
                    places = self._places
                    await self._count_customers(consumer, {place.partition for place in places})
                    if not places:
                        self.is_ahead = True
                        await self._has_news.wait()
                        continue
                    consumer.assign(dict(places))
                    while not self._has_news.is_set():
                        await self._read_on(consumer)
            except TransportError as error:
                _log.warning(
                    "the guard cannot read ahead", extra={"destination": self._name, "error": str(error)}
                )
                # It counts anew, so nothing is counted twice.
                self.look(self._places)
                await asyncio.sleep(1)
            finally:
                await consumer.stop()

    async def _read_on(self, consumer: PlainConsumer) -> None:
        guard, was_tripped = self.guard, self.guard.tripped_at_ms is not None
        for place, records in (await consumer.read()).items():
            if self._has_news.is_set():
                return
            sketch = self._sketches.get(place.partition)
            for record in records:
                if record.value is None or (not self._with_replay and _REPLAY in record.value):
                    continue
                if sketch is not None and record.key is not None:
                    sketch.add(record.key)
                guard.see(record.timestamp)
        if not self._customers:
            self._sum_up()
        self.is_ahead = await consumer.is_at_end()
        if guard.tripped_at_ms is not None and not was_tripped:
            _log.error(
                "the guard holds everything back, too much changes within an hour; "
                "rfmstream deliver release lets it go",
                extra={
                    "destination": self._name,
                    "changes": guard.count,
                    "customers": guard.customers,
                    "limit": guard.limit,
                },
            )
        self.changed.set()

    def _sum_up(self) -> None:
        whole = CustomerSketch()
        for partition in {place.partition for place in self._places}:
            if partition in self._sketches:
                whole.merge(self._sketches[partition])
        self.guard.customers = whole.count()

    async def _count_customers(self, consumer: PlainConsumer, partitions: Collection[int]) -> None:
        if self._customers:
            return
        topic = self._broker.current_topic
        new = [partition for partition in partitions if partition not in self._sketches]
        if new and topic not in await partition_counts(self._broker, [topic]):
            raise ConfigError(
                f"there is no topic {topic} in which a guard could count customers",
                key="customers",
                fix="write customers = N, or kafka.current_topic",
            )
        places = [Place(topic, partition) for partition in new]
        if places:
            ends = await consumer.ends(places)
            for place in places:
                self._sketches[place.partition] = CustomerSketch()
            consumer.assign(dict.fromkeys(places))
            while any([await consumer.position(place) < end for place, end in ends.items()]):
                for place, records in (await consumer.read()).items():
                    for record in records:
                        if record.key is not None and record.value is not None:
                            self._sketches[place.partition].add(record.key)
        self._sum_up()
