"""Reading from outside any group."""

from collections.abc import Collection, Mapping
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from rfmstream.engine.deliver.broker import BrokerConfig
from rfmstream.engine.deliver.model import Place
from rfmstream.engine.deliver.records import Record
from rfmstream.engine.service.kafka.client import client_errors, connection_options, quiet_client

POLL_MS: Final = 200
_RECORDS_MAX: Final = 10_000


class PlainConsumer:
    """Reads partitions from outside any group, committed records only."""

    def __init__(self, broker: BrokerConfig) -> None:
        self._broker = broker
        self._consumer = AIOKafkaConsumer(
            **connection_options(broker),
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
        )

    async def start(self) -> None:
        """Connect.

        Errors  ConfigError, TransportError
        """
        with client_errors(self._broker, "no connection"), quiet_client():
            await self._consumer.start()

    async def stop(self) -> None:
        """Let go."""
        await self._consumer.stop()

    def assign(self, places: Mapping[Place, int | None]) -> None:
        """Read these partitions from an offset; None: from the first."""
        partitions = [TopicPartition(*place) for place in places]
        self._consumer.assign(partitions)
        for place, offset in places.items():
            if offset is not None:
                self._consumer.seek(TopicPartition(*place), offset)

    async def read(self, timeout_ms: int = POLL_MS) -> dict[Place, list[Record]]:
        """Return records of partitions, those of each in order."""
        with client_errors(self._broker, "reading broke off"):
            found = await self._consumer.getmany(timeout_ms=timeout_ms, max_records=_RECORDS_MAX)
        return {Place(*place): records for place, records in found.items()}

    async def ends(self, places: Collection[Place]) -> dict[Place, int]:
        """Return where committed records end now."""
        with client_errors(self._broker, "offsets cannot be read"):
            found = await self._consumer.end_offsets([TopicPartition(*place) for place in places])
        return {Place(*place): offset for place, offset in found.items()}

    async def firsts(self, places: Collection[Place]) -> dict[Place, int]:
        """Return the first offsets there are."""
        with client_errors(self._broker, "offsets cannot be read"):
            found = await self._consumer.beginning_offsets([TopicPartition(*place) for place in places])
        return {Place(*place): offset for place, offset in found.items()}

    async def offsets_at(self, places: Collection[Place], timestamp_ms: int) -> dict[Place, int | None]:
        """Return the first offset of each partition whose record was written at or after an instant."""
        with client_errors(self._broker, "offsets cannot be read"):
            found = await self._consumer.offsets_for_times(
                {TopicPartition(*place): timestamp_ms for place in places}
            )
        return {Place(*place): None if one is None else one.offset for place, one in found.items()}

    async def position(self, place: Place) -> int:
        """Return the position of a partition."""
        position: int = await self._consumer.position(TopicPartition(*place))
        return position

    async def is_at_end(self) -> bool:
        """Tell whether everything that was committed at the last answers has been read."""
        for place in self._consumer.assignment():
            end = self._consumer.last_stable_offset(place)
            if end is None or await self._consumer.position(place) < end:
                return False
        return True
