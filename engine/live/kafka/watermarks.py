"""Asks the leaders of partitions for the high watermarks: open transactions count."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Final

from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.offset import OffsetRequest

from rfmstream.engine.live.kafka.transactional import together
from rfmstream.engine.live.model import Source

_LATEST: Final = -1
_READ_UNCOMMITTED: Final = 0


async def high_watermarks(client: AIOKafkaClient, sources: Iterable[Source]) -> dict[Source, int]:
    """Return one after the last record of each partition, that of open transactions too; those without an answer lack.

    Errors  aiokafka's
    """
    at: defaultdict[int, list[Source]] = defaultdict(list)
    for source in sources:
        await client._wait_on_metadata(source.topic)  # noqa: SLF001 - producers have no other way
        node = client.cluster.leader_for_partition(source)
        if node not in (None, -1):
            at[int(node)].append(source)
    found: dict[Source, int] = {}

    async def ask(node: int, some: list[Source]) -> None:
        topics: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        for topic, partition in some:
            topics[topic].append((partition, _LATEST))
        response = await client.send(node, OffsetRequest(-1, _READ_UNCOMMITTED, list(topics.items())))
        for topic, partitions in response.topics:
            for partition, error, _, offset in partitions:
                if not error:
                    found[Source(topic, partition)] = int(offset)

    await together(*(ask(node, some) for node, some in at.items()))
    return found
