"""Asks brokers for offsets: those that a group has committed, and those that partitions hold."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, TypeVar

from aiokafka import TopicPartition
from aiokafka import errors as kafka
from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.protocol.offset import OffsetRequest

from rfmstream.engine.live.kafka.membership import UNSTABLE_OFFSET_COMMIT, OffsetFetch
from rfmstream.engine.live.kafka.offset_notes import OffsetNote
from rfmstream.engine.live.model import Source
from rfmstream.engine.service.kafka.client import RETRY_BACKOFF_MS

_T = TypeVar("_T")

EARLIEST: Final = -2
LATEST: Final = -1
READ_UNCOMMITTED: Final = 0
READ_COMMITTED: Final = 1


async def fetch_offsets(
    client: AIOKafkaClient, group: str, places: Mapping[str, Iterable[int]], *, stable: bool
) -> dict[Source, tuple[int, OffsetNote]] | None:
    """Return the committed offset of partitions, -1 for none, and its note; None: a transaction may change one.

    In      places  the numbers of partitions, by topic
            stable  ask for what no open transaction can change
    Errors  aiokafka's
    """
    # Not the admin client's method: it takes a coordinator that is still loading for a group without offsets, which
    # would begin the partition again from its start.
    node = await client.coordinator_lookup(CoordinationType.GROUP, group)
    request = OffsetFetch(group, places, stable=stable)
    response = await client.send(node, request, group=ConnectionGroup.COORDINATION)
    _raise_for(response.error_code)
    found: dict[Source, tuple[int, OffsetNote]] = {}
    for topic, partitions, _ in response.topics:
        for number, offset, _, note, error, _ in partitions:
            if error == UNSTABLE_OFFSET_COMMIT:
                return None
            _raise_for(error)
            found[Source(topic, number)] = int(offset), OffsetNote.parse(note or "")
    return found


async def partition_offset(client: AIOKafkaClient, place: TopicPartition, which: int, isolation: int) -> int:
    """Return the first offset of a partition, or the one after its last.

    In      which      EARLIEST or LATEST
            isolation  READ_UNCOMMITTED or READ_COMMITTED
    Errors  aiokafka's
    """
    await client._wait_on_metadata(place.topic)  # noqa: SLF001 - producers have no other way
    return await retried(lambda: _asked_offset(client, place, which, isolation))


async def _asked_offset(client: AIOKafkaClient, place: TopicPartition, which: int, isolation: int) -> int:
    node = client.cluster.leader_for_partition(place)
    if node in (None, -1):
        client.force_metadata_update()
        raise kafka.LeaderNotAvailableError
    partitions = [(place.topic, [(place.partition, which)])]
    response = await client.send(node, OffsetRequest(-1, isolation, partitions))
    [(_, [(_, error, _, offset)])] = response.topics
    if error:
        client.force_metadata_update()
    _raise_for(error)
    return int(offset)


async def retried(call: Callable[[], Awaitable[_T]]) -> _T:
    """Repeat a call while a broker answers that it is not ready for it; the caller limits the time."""
    while True:
        try:
            return await call()
        except kafka.KafkaError as error:
            if not error.retriable:
                raise
            await asyncio.sleep(RETRY_BACKOFF_MS / 1000)


def _raise_for(code: int) -> None:
    if code:
        error: type[kafka.KafkaError] = kafka.for_code(code)
        raise error
