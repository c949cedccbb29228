"""Which topics there are: asked without naming any, since a broker may create a topic that is asked for."""

from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient

from engine.live.config import ClientConfig
from engine.live.kafka.client import client_errors, connection_options, quiet_client


async def partition_counts(config: ClientConfig) -> dict[str, int]:
    """Return how many partitions each topic has that the user may see.

    Errors  ConfigError     the login is refused
            TransportError  no broker answers
    """
    admin = AIOKafkaAdminClient(**connection_options(config))
    with quiet_client(), client_errors(config, "the topics cannot be read"):
        try:
            await admin.start()
            described = await admin.describe_topics()
        finally:
            await admin.close()
    return {
        topic["topic"]: len(topic["partitions"])
        for topic in described
        if kafka.for_code(topic["error_code"]) is kafka.NoError
    }
