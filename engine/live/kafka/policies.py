"""Checks, before a worker reads anything, that no topic's retention or compaction deletes records that it needs."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from rfmstream.engine.live.config import WorkerConfig
from rfmstream.schemas.errors import ConfigError

_NAMES: Final = ("cleanup.policy", "retention.ms", "retention.bytes")
_FOR_EVER: Final = "-1"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Policy:
    """An option of a topic that would lose what is needed.

    Fields  topic, problem
            key    the setting that names the topic
            fix    what to do about it; None: it is only to be known
            facts  beside the problem
    """

    topic: str
    problem: str
    key: str
    fix: str | None = None
    facts: Mapping[str, str] = field(default_factory=dict)


async def check_policies(admin: AIOKafkaAdminClient, config: WorkerConfig) -> None:
    """Refuse topics that would lose what the state is made from; warn of the others.

    Of topics whose options the user may not read (DescribeConfigs) nothing is known, which is said once.

    Errors  ConfigError  names the topic, its option, and the fix
            aiokafka's   the brokers do not answer
    """
    found, hidden = await unfit_policies(admin, config, needed_topics(config))
    if hidden:
        _log.info(
            "topic options not looked at: the user lacks DescribeConfigs", extra={"topics": ",".join(hidden)}
        )
    for policy in found:
        if policy.fix is not None:
            raise ConfigError(policy.problem, key=policy.key, fix=policy.fix)
    for policy in found:
        _log.warning(policy.problem, extra={"topic": policy.topic, **policy.facts})


def needed_topics(config: WorkerConfig) -> list[str]:
    """Return the topics whose options matter."""
    outputs = config.outputs
    topics = [*config.input_topics, outputs.clock, outputs.changes, outputs.current]
    return [*topics, outputs.signals] if config.asks_signals else topics


async def unfit_policies(
    admin: AIOKafkaAdminClient, config: WorkerConfig, topics: Sequence[str]
) -> tuple[list[Policy], list[str]]:
    """Return what topics would lose, and the topics whose options the user may not read.

    In      topics  those to look at: an absent one has no options
    Errors  aiokafka's
    """
    options = {topic: await _options(admin, topic) for topic in topics}
    hidden = [topic for topic, found in options.items() if not found]
    return list(_unfit(config, options)), hidden


def _unfit(config: WorkerConfig, options: Mapping[str, Mapping[str, str]]) -> Iterator[Policy]:
    outputs = config.outputs
    for topic in config.input_topics:
        if _is_compacted(options.get(topic, {})):
            yield Policy(
                topic,
                f"topic {topic} is compacted: of a customer's orders only the last would stay",
                "input_topics",
                f"set its cleanup.policy to delete, if it has not been compacted yet: {_altered(topic, 'delete')}",
            )
    yield from _unfit_clock(outputs.clock, options.get(outputs.clock, {}))
    if _is_compacted(options.get(outputs.changes, {})):
        yield Policy(
            outputs.changes,
            "the topic of tier changes is compacted: earlier changes of a customer go in time",
            "changes_topic",
        )
    if _is_compacted(options.get(outputs.signals, {})):
        yield Policy(
            outputs.signals,
            "the topic of signals is compacted: earlier signals of a customer go in time",
            "signals_topic",
        )
    current = options.get(outputs.current, {}).get("cleanup.policy", "compact")
    if "compact" not in current or "delete" in current:
        yield Policy(
            outputs.current,
            "the topic of newest changes does not keep one of each customer: its cleanup.policy is to be compact",
            "current_topic",
            facts={"cleanup.policy": current},
        )


def _unfit_clock(topic: str, options: Mapping[str, str]) -> Iterator[Policy]:
    if _is_compacted(options):
        yield Policy(
            topic,
            f"topic {topic} is compacted: the notes of time that passed, which are part of the state, would go",
            "clock_topic",
            f"set its cleanup.policy to delete: {_altered(topic, 'delete')}",
        )
    for name in _NAMES[1:]:
        if options.get(name, _FOR_EVER) != _FOR_EVER:
            yield Policy(
                topic,
                f"topic {topic} has {name}={options[name]}: the notes of time that passed, which are part of the "
                "state, would go",
                "clock_topic",
                f"set it to -1: kafka-configs --alter --topic {topic} --add-config {name}=-1",
            )


def _is_compacted(options: Mapping[str, str]) -> bool:
    return "compact" in options.get("cleanup.policy", "")


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
