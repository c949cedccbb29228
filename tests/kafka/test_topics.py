"""The topics of a worker: checked against a real broker, and created."""

import asyncio
import logging
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from kafka_cluster import Cluster, free_ports

from rfmstream.engine.live.config import WorkerConfig
from rfmstream.engine.live.kafka.topics import prepare_topics
from rfmstream.engine.service.client_config import ClientConfig
from rfmstream.schemas.errors import ConfigError, TransportError
from rfmstream.schemas.ruleset import load_ruleset


async def options_of(cluster: Cluster, topic: str) -> dict[str, str]:
    admin = AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap)
    await admin.start()
    try:
        [response] = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    finally:
        await admin.close()
    [(_, _, _, _, entries)] = response.resources
    return {name: value for name, value, *_ in entries}


def test_output_topics_are_created_beside_the_input(cluster: Cluster) -> None:
    async def run() -> tuple[list[int], dict[str, dict[str, str]]]:
        await cluster.create(cluster.orders, 3)
        config = cluster.config()
        counts = [await prepare_topics(config), await prepare_topics(config)]
        topics = (
            cluster.outputs.changes,
            cluster.outputs.current,
            cluster.outputs.rejected,
            cluster.outputs.clock,
            cluster.outputs.signals,
        )
        return counts, {topic: await options_of(cluster, topic) for topic in topics}

    counts, options = asyncio.run(run())
    assert counts == [3, 3]
    changes, current, rejected, clock, signals = options.values()
    policies = [each["cleanup.policy"] for each in options.values()]
    assert policies == ["delete", "compact", "delete", "delete", "delete"]
    assert clock["retention.ms"] == clock["retention.bytes"] == "-1"
    assert changes["retention.ms"] == rejected["retention.ms"] == signals["retention.ms"] != "-1"
    assert current["retention.ms"]


def test_a_ruleset_without_signals_needs_no_topic_of_theirs(cluster: Cluster) -> None:
    async def run() -> set[str]:
        await cluster.create(cluster.orders, 1)
        silent = load_ruleset("rfm8").without_signals()
        await prepare_topics(cluster.config(ruleset=silent))
        admin = AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap)
        await admin.start()
        try:
            return set(await admin.list_topics())
        finally:
            await admin.close()

    topics = asyncio.run(run())
    assert cluster.outputs.changes in topics
    assert cluster.outputs.signals not in topics


@pytest.mark.parametrize(
    ("created", "settings", "problem"),
    [
        ([], {}, r"input_topics: there is no topic .*orders that the user may see; create it"),
        (
            [("orders", 3), ("changes", 2)],
            {},
            r"changes_topic: topic .*changes has 2 partitions, .*orders has 3; all topics",
        ),
        ([("orders", 3)], {"create_topics": False}, r"create_topics: there is no topic .*; create it with 3"),
        ([("orders", 1)], {"replication_factor": 3}, r"replication_factor: topic .* cannot have 3 copies"),
    ],
)
def test_what_does_not_fit_is_one_line_with_its_fix(
    cluster: Cluster, created: list[tuple[str, int]], settings: dict[str, Any], problem: str
) -> None:
    async def run() -> None:
        for topic, partitions in created:
            await cluster.create(f"{cluster.name}.{topic}", partitions)
        await prepare_topics(cluster.config(**settings))

    with pytest.raises(ConfigError, match=problem) as caught:
        asyncio.run(run())
    assert "\n" not in str(caught.value)


def test_input_topics_need_as_many_partitions_as_each_other(cluster: Cluster) -> None:
    async def run() -> None:
        await cluster.create(cluster.orders, 2)
        await cluster.create(f"{cluster.name}.more", 3)
        await prepare_topics(cluster.config(input_topics=(cluster.orders, f"{cluster.name}.more")))

    with pytest.raises(ConfigError, match=r"input_topics: topic .*more has 3 partitions, .*orders has 2"):
        asyncio.run(run())


def test_input_topics_that_are_partitioned_alike_are_read_as_one(cluster: Cluster) -> None:
    async def run(*topics: str) -> int:
        return await prepare_topics(cluster.config(input_topics=topics))

    async def create() -> None:
        for topic in (cluster.orders, f"{cluster.name}.more"):
            await cluster.create(topic, 2)

    asyncio.run(create())
    assert asyncio.run(run(cluster.orders, f"{cluster.name}.more")) == 2
    with pytest.raises(ConfigError, match=r"names of the 2 input topics are 240 characters together"):
        asyncio.run(run("a" * 120, "b" * 119))


def test_an_unreachable_broker_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    [port] = free_ports(1)
    config = WorkerConfig(client=ClientConfig(bootstrap_servers=(f"127.0.0.1:{port}",)))
    with pytest.raises(TransportError, match=rf"127.0.0.1:{port}: .*no broker answers; start it"):
        asyncio.run(prepare_topics(config))
    assert [record for record in caplog.records if record.levelno >= logging.INFO] == []
