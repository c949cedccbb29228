"""Reading as one of a group. Offsets are committed with a text beside each, see `progress.Progress.metadata`."""

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Final

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka import errors as kafka
from aiokafka.structs import OffsetAndMetadata

from rfmstream.engine.deliver.broker import BrokerConfig
from rfmstream.engine.deliver.lanes import Commit
from rfmstream.engine.deliver.model import Place
from rfmstream.engine.deliver.records import Record
from rfmstream.engine.service.kafka.client import client_errors, connection_options, quiet_client

_log = logging.getLogger(__name__)

POLL_MS: Final = 200
_RECORDS_MAX: Final = 500
"""Records of a read: what is done with them in one go keeps answers waiting."""


class GroupConsumer:
    """Reads topics as one of a group, committed records only; says when partitions come and go.

    In  came  awaited with new partitions; returns where each is to be read from
        went  awaited with partitions before they belong to somebody else
    """

    def __init__(
        self,
        broker: BrokerConfig,
        group: str,
        came: Callable[[list[Place]], Awaitable[Mapping[Place, int]]],
        went: Callable[[list[Place]], Awaitable[None]],
    ) -> None:
        self._broker = broker
        self._consumer = AIOKafkaConsumer(
            **connection_options(broker),
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            session_timeout_ms=10_000,
            heartbeat_interval_ms=2_000,
            max_poll_interval_ms=600_000,
            metadata_max_age_ms=60_000,
        )
        self._listener = _Listener(self._consumer, came, went)
        self._is_paused = False

    async def start(self, topics: Sequence[str]) -> None:
        """Join.

        Errors  ConfigError, TransportError
        """
        with client_errors(self._broker, "the group cannot be joined"), quiet_client():
            await self._consumer.start()
        self.subscribe(topics)

    def subscribe(self, topics: Sequence[str]) -> None:
        """Read these topics from now on."""
        self._consumer.subscribe(topics, listener=self._listener)

    async def stop(self) -> None:
        """Leave the group."""
        await self._consumer.stop()

    def pause(self, *, is_paused: bool) -> None:
        """Stop reading for a while, or go on."""
        places = self._consumer.assignment()
        if is_paused:
            self._consumer.pause(*places)
        elif self._is_paused:
            self._consumer.resume(*self._consumer.paused())
        self._is_paused = is_paused

    async def read(self) -> dict[Place, list[Record]]:
        """Return records of partitions, those of each in order; after POLL_MS none.

        Errors  TransportError, ConfigError
        """
        with client_errors(self._broker, "reading broke off"):
            try:
                found = await self._consumer.getmany(timeout_ms=POLL_MS, max_records=_RECORDS_MAX)
            except kafka.NoOffsetForPartitionError:
                return {}  # `came` is about to say where it begins
            except kafka.OffsetOutOfRangeError as error:
                lost = list(error.args[0])
                first = await self._consumer.beginning_offsets(lost)
                for place, offset in first.items():
                    _log.error(
                        "records were deleted before they were delivered",
                        extra={"topic": place.topic, "partition": place.partition, "from": offset},
                    )
                    self._consumer.seek(place, offset)
                return {}
        return {Place(*place): records for place, records in found.items()}

    async def positions(self) -> dict[Place, tuple[int, int]]:
        """Return the position of each partition and where its committed records end, as far as is known."""
        found = {}
        for place in self._consumer.assignment():
            end = self._consumer.last_stable_offset(place)
            if end is not None:
                found[Place(*place)] = await self._consumer.position(place), end
        return found

    async def commit(self, commits: Mapping[Place, Commit]) -> bool:
        """Commit; False where another member has the partitions now.

        Errors  TransportError  it may succeed later
        """
        offsets = {
            TopicPartition(*place): OffsetAndMetadata(one.offset, one.metadata)
            for place, one in commits.items()
        }
        with client_errors(self._broker, "offsets cannot be committed"):
            try:
                await self._consumer.commit(offsets)
            except (kafka.CommitFailedError, kafka.IllegalStateError, kafka.IllegalOperation):
                return False
        return True


class _Listener(ConsumerRebalanceListener):
    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        came: Callable[[list[Place]], Awaitable[Mapping[Place, int]]],
        went: Callable[[list[Place]], Awaitable[None]],
    ) -> None:
        self._consumer = consumer
        self._came = came
        self._went = went

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        await self._went([Place(*one) for one in revoked])

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        for place, offset in (await self._came([Place(*one) for one in assigned])).items():
            self._consumer.seek(TopicPartition(*place), offset)
