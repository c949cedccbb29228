"""Which topics there are: asked without naming any, since a broker may create a topic that is asked for."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from aiokafka import errors as kafka

from rfmstream.engine.live.kafka.rights import Right, require_rights
from rfmstream.engine.service.client_config import ClientConfig
from rfmstream.engine.service.kafka.client import administrator


async def partition_counts(
    config: ClientConfig, needed: Mapping[str, Sequence[Right]] = MappingProxyType({})
) -> dict[str, int]:
    """Return how many partitions each topic has that the user may see.

    In      needed  what the user has to be allowed to do, with which topics
    Errors  ConfigError     the login is refused, or a right is lacking
            TransportError  no broker answers
    """
    async with administrator(config, "the topics cannot be read") as admin:
        described = await admin.describe_topics()
        await require_rights(admin, needed)
    return {
        topic["topic"]: len(topic["partitions"])
        for topic in described
        if kafka.for_code(topic["error_code"]) is kafka.NoError
    }
