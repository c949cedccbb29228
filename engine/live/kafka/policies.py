"""What topics do with their records in time, looked at before anything is read: what a worker needs must stay."""

import logging
from collections.abc import Mapping
from typing import Final

from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from rfmstream.engine.live.config import WorkerConfig
from rfmstream.schemas.errors import ConfigError

_NAMES: Final = ("cleanup.policy", "retention.ms", "retention.bytes")
_FOR_EVER: Final = "-1"

_log = logging.getLogger(__name__)


async def check_policies(admin: AIOKafkaAdminClient, config: WorkerConfig) -> None:
    """Refuse topics that would lose what the state is made from; warn of the others.

    Of topics whose options the user may not read (DescribeConfigs) nothing is known, which is said once.

    Errors  ConfigError  names the topic, its option, and the fix
            aiokafka's   the brokers do not answer
    """
    outputs = config.outputs
    topics = [*config.input_topics, outputs.clock, outputs.changes, outputs.current]
    if config.asks_signals:
        topics.append(outputs.signals)
    options = {topic: await _options(admin, topic) for topic in topics}
    hidden = [topic for topic, found in options.items() if not found]
    if hidden:
        _log.info(
            "topic options not looked at: the user lacks DescribeConfigs", extra={"topics": ",".join(hidden)}
        )
    for topic in config.input_topics:
        if "compact" in options[topic].get("cleanup.policy", ""):
            raise ConfigError(
                f"topic {topic} is compacted: of a customer's orders only the last would stay",
                key="input_topics",
                fix=f"set its cleanup.policy to delete, if it has not been compacted yet: {_altered(topic, 'delete')}",
            )
    _check_clock(outputs.clock, options[outputs.clock])
    if "compact" in options[outputs.changes].get("cleanup.policy", ""):
        _log.warning(
            "the topic of tier changes is compacted: earlier changes of a customer go in time",
            extra={"topic": outputs.changes},
        )
    if "compact" in options.get(outputs.signals, {}).get("cleanup.policy", ""):
        _log.warning(
            "the topic of signals is compacted: earlier signals of a customer go in time",
            extra={"topic": outputs.signals},
        )
    current = options[outputs.current].get("cleanup.policy", "compact")
    if "compact" not in current or "delete" in current:
        _log.warning(
            "the topic of newest changes does not keep one of each customer: its cleanup.policy is to be compact",
            extra={"topic": outputs.current, "cleanup.policy": current},
        )


def _check_clock(topic: str, options: Mapping[str, str]) -> None:
    if "compact" in options.get("cleanup.policy", ""):
        raise ConfigError(
            f"topic {topic} is compacted: the notes of time that passed, which are part of the state, would go",
            key="clock_topic",
            fix=f"set its cleanup.policy to delete: {_altered(topic, 'delete')}",
        )
    for name in _NAMES[1:]:
        if options.get(name, _FOR_EVER) != _FOR_EVER:
            raise ConfigError(
                f"topic {topic} has {name}={options[name]}: the notes of time that passed, which are part of the "
                "state, would go",
                key="clock_topic",
                fix=f"set it to -1: kafka-configs --alter --topic {topic} --add-config {name}=-1",
            )


def _altered(topic: str, policy: str) -> str:
    return f"kafka-configs --alter --topic {topic} --add-config cleanup.policy={policy}"


async def _options(admin: AIOKafkaAdminClient, topic: str) -> dict[str, str]:
    """Return what a topic's options are; nothing where the user may not know."""
    resource = ConfigResource(ConfigResourceType.TOPIC, topic, configs=dict.fromkeys(_NAMES, ""))
    try:
        responses = await admin.describe_configs([resource])
    except (kafka.IncompatibleBrokerVersion, kafka.ClusterAuthorizationFailedError):
        return {}
    entries = [entry for response in responses for found in response.resources for entry in found[4]]
    return {name: value for name, value, *_ in entries}
