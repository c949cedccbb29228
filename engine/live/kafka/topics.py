"""The topics a worker needs: checked, and the output's created, before anything is read."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from rfmstream.engine.live.config import WorkerConfig
from rfmstream.engine.live.kafka.policies import check_policies
from rfmstream.engine.live.kafka.rights import Right, require_group, require_rights
from rfmstream.engine.live.kafka.topic_ids import topic_ids
from rfmstream.engine.live.model import Source
from rfmstream.engine.service.kafka.client import administrator
from rfmstream.engine.service.kafka.topics import CREATE_SECONDS_MAX, CreateSettings, create_topics
from rfmstream.schemas.errors import ConfigError, TransportError

NAMES_BYTES_MAX: Final = 200
"""Of the names of input topics that are read as one together: they name a folder of checkpoints."""

NOT_CO_PARTITIONED: Final = (
    "topics that are read as one need as many partitions as each other, and the same partitioner: recreate one, or "
    "start a worker for it with an app_id and outputs of its own"
)

_DELETE: Final = {"cleanup.policy": "delete"}
_COMPACT: Final = {"cleanup.policy": "compact"}
_FOR_EVER: Final = {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"}


class FoundTopics:
    """What the cluster says of its topics.

    Fields  partitions   how many each has, by name; absent topics are not in it
            replication  copies of each
    """

    def __init__(self, described: Sequence[Mapping[str, Any]]) -> None:
        self.partitions: dict[str, int] = {}
        self.replication: dict[str, int] = {}
        for topic in described:
            error = kafka.for_code(topic["error_code"])
            if error is kafka.NoError and topic["partitions"]:
                self.partitions[topic["topic"]] = len(topic["partitions"])
                self.replication[topic["topic"]] = len(topic["partitions"][0]["replicas"])


async def prepare_topics(config: WorkerConfig) -> int:
    """Check the input topics, create the output topics that are absent, and return the number of partitions.

    Errors  ConfigError     a topic is absent, has another number of partitions, or the user has no right to it
            TransportError  no broker answers
    """
    async with administrator(config.client, "the topics cannot be read") as admin:
        return await _prepare(admin, config)


async def input_ids(config: WorkerConfig) -> dict[str, str]:
    """Return the ids of the input topics; empty where brokers are too old to have them.

    Errors  TransportError  no broker answers
    """
    async with administrator(config.client, "the topics cannot be read") as admin:
        return await topic_ids(admin, config.input_topics)


async def _prepare(admin: AIOKafkaAdminClient, config: WorkerConfig) -> int:
    plan = planned_topics(config)
    found = await describe(admin)
    first = config.input_topics[0]
    require_short_names(config)
    for topic in config.input_topics:
        if topic not in found.partitions:
            raise ConfigError(
                f"there is no topic {topic} that the user may see",
                key="input_topics",
                fix="create it with as many partitions as you want workers at most, grant Read on it, or name another",
            )
    count = found.partitions[first]
    absent = [topic for topic in plan if topic not in found.partitions]
    if absent and not config.create_topics:
        raise ConfigError(
            f"there is no topic {absent[0]}",
            key="create_topics",
            fix=f"create it with {count} partitions, or allow topics to be created",
        )
    # First, since a topic that the user may not see would pass for absent.
    await require_rights(admin, needed_rights(config))
    if absent:
        options = {topic: plan[topic] for topic in absent}
        await _create(admin, options, count, config.replication_factor or found.replication[first])
        found = await _describe_until_there(admin, [*config.input_topics, *plan])
        await require_rights(admin, needed_rights(config))
    for topic in (*config.input_topics, *plan):
        if found.partitions[topic] != count:
            raise ConfigError(
                f"topic {topic} has {found.partitions[topic]} partitions, {first} has {count}",
                key="input_topics" if topic in config.input_topics else setting_of(config, topic),
                fix=NOT_CO_PARTITIONED
                if topic in config.input_topics
                else "all topics of a worker need as many "
                "partitions as each other: recreate one, or name another",
            )
    await check_policies(admin, config)
    await require_group(admin, config.app_id)
    return count


def require_short_names(config: WorkerConfig) -> None:
    """Require that the names of several input topics can name the place of their checkpoints.

    Errors  ConfigError  they are too long
    """
    length = len(Source.of(config.input_topics, 0).topic)
    if len(config.input_topics) > 1 and length > NAMES_BYTES_MAX:
        raise ConfigError(
            f"the names of the {len(config.input_topics)} input topics are {length} characters together, and "
            f"{NAMES_BYTES_MAX} can be read as one",
            key="input_topics",
            fix="give them shorter names, or produce them into one topic",
        )


def needed_rights(config: WorkerConfig) -> dict[str, tuple[Right, ...]]:
    """Return what a worker does with which topics."""
    outputs = config.outputs
    needed: dict[str, tuple[Right, ...]] = dict.fromkeys(config.input_topics, ("Read",))
    needed |= dict.fromkeys((outputs.changes, outputs.current, outputs.rejected), ("Write",))
    if config.asks_signals:
        needed[outputs.signals] = ("Write",)
    if config.has_shadows:
        needed[outputs.shadow] = ("Write",)
    return {**needed, outputs.clock: ("Read", "Write")}


def planned_topics(config: WorkerConfig) -> dict[str, dict[str, str]]:
    """Return the topics that a worker writes to, with the options they are created with."""
    outputs = config.outputs
    plan = {
        outputs.changes: _DELETE,
        outputs.current: _COMPACT,
        outputs.rejected: _DELETE,
        outputs.clock: _FOR_EVER,
    }
    if config.asks_signals:
        plan[outputs.signals] = _DELETE
    if config.has_shadows:
        plan[outputs.shadow] = _DELETE
    return plan


def setting_of(config: WorkerConfig, topic: str) -> str:
    """Return the setting that names an output topic."""
    return next(
        f"{name}_topic"
        for name in ("changes", "current", "rejected", "clock", "signals", "shadow")
        if getattr(config.outputs, name) == topic
    )


async def describe(admin: AIOKafkaAdminClient) -> FoundTopics:
    """Return the topics that the user may see."""
    # Without naming any: a broker may create a topic that is asked for.
    return FoundTopics(await admin.describe_topics())


async def _describe_until_there(admin: AIOKafkaAdminClient, topics: list[str]) -> FoundTopics:
    """Wait until the broker that is asked has heard of topics another one has just created."""
    for _ in range(CREATE_SECONDS_MAX * 10):
        found = await describe(admin)
        if all(topic in found.partitions for topic in topics):
            return found
        await asyncio.sleep(0.1)
    absent = next(topic for topic in topics if topic not in found.partitions)
    raise TransportError(f"topic {absent} was created, but does not appear")


async def _create(
    admin: AIOKafkaAdminClient, plan: Mapping[str, dict[str, str]], partitions: int, replication: int
) -> None:
    topics = [
        NewTopic(name, partitions, replication, topic_configs=options) for name, options in plan.items()
    ]
    fix = f"grant Create on it, or create it with {partitions} partitions"
    await create_topics(admin, topics, CreateSettings(("create_topics", fix), "replication_factor"))
