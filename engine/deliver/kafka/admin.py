"""What delivery asks of topics and groups."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from aiokafka import TopicPartition
from aiokafka.admin import NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from rfmstream.engine.deliver.broker import BrokerConfig
from rfmstream.engine.deliver.model import Place
from rfmstream.engine.service.kafka.client import administrator
from rfmstream.engine.service.kafka.topics import CreateSettings
from rfmstream.engine.service.kafka.topics import create_topics as create


class Committed(NamedTuple):
    """What a group has committed of a partition; offset None: nothing."""

    offset: int | None
    metadata: str


async def partition_counts(broker: BrokerConfig, topics: Collection[str]) -> dict[str, int]:
    """Return how many partitions each topic has; what is absent is left out, and not created by asking."""
    async with administrator(broker, "topics cannot be looked up") as admin:
        known = set(await admin.list_topics())
        wanted = [topic for topic in topics if topic in known]
        if not wanted:
            return {}
        return {one["topic"]: len(one["partitions"]) for one in await admin.describe_topics(wanted)}


async def create_topics(broker: BrokerConfig, wanted: Mapping[str, Mapping[str, str]]) -> None:
    """Create the topics that are absent, of one partition each, with their settings."""
    async with administrator(broker, "topics cannot be created") as admin:
        known = set(await admin.list_topics())
        copies = broker.replication_factor or 1
        if not broker.replication_factor and broker.changes_topic in known:
            [found] = await admin.describe_topics([broker.changes_topic])
            copies = len(found["partitions"][0]["replicas"])
        new = [
            NewTopic(topic, 1, copies, topic_configs=dict(settings))
            for topic, settings in wanted.items()
            if topic not in known
        ]
        if new:
            fix = "grant Create on it, or create it with one partition"
            await create(admin, new, CreateSettings(("kafka.create_topics", fix), "kafka.replication_factor"))


async def retention_ms(broker: BrokerConfig, topics: Collection[str]) -> dict[str, int]:
    """Return how long the topics keep records; those that keep them for ever are left out."""
    found = {}
    async with administrator(broker, "the retention of topics cannot be read") as admin:
        resources = [ConfigResource(ConfigResourceType.TOPIC, topic) for topic in topics]
        for answer in await admin.describe_configs(resources):
            for _, _, _, topic, entries in answer.resources:
                for name, value, *_ in entries:
                    if name == "retention.ms" and value not in (None, "-1"):
                        found[topic] = int(value)
    return found


async def committed(broker: BrokerConfig, group: str, places: Collection[Place]) -> dict[Place, Committed]:
    """Return what a group has committed."""
    async with administrator(broker, "committed offsets cannot be read") as admin:
        wanted = [TopicPartition(*place) for place in places]
        found = await admin.list_consumer_group_offsets(group, partitions=wanted)
        return {
            Place(*one): Committed(None if offset.offset < 0 else offset.offset, offset.metadata or "")
            for one, offset in found.items()
        }
