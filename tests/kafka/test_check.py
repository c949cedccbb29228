"""`rfmstream worker --check` against real brokers: each thing that would end a start is told, all of them at once."""

import asyncio
import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from click.testing import CliRunner
from kafka_cluster import ROOT, Broker, Cluster, free_ports, require_java
from kafka_workers import flags_of

from rfmstream.engine.cli.app import cli
from rfmstream.engine.live.kafka import probe
from rfmstream.engine.live.kafka.probe import Skew, probe_transaction
from rfmstream.engine.live.kafka.topics import prepare_topics


def check(flags: dict[str, object], code: int) -> dict[str, list[dict[str, Any]]]:
    """Return the findings by what was looked at."""
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()]
    done = CliRunner().invoke(cli, ["worker", "--check", "--json", *arguments])
    assert done.exit_code == code, done.output
    document = json.loads(done.stdout)
    assert document["exit_code"] == code
    assert document["ready"] == (code == 0)
    found: dict[str, list[dict[str, Any]]] = {}
    for one in document["findings"]:
        found.setdefault(one["what"], []).append(one)
    return found


async def topics_of(cluster: Cluster) -> set[str]:
    admin = AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap)
    await admin.start()
    try:
        return {topic for topic in await admin.list_topics() if topic.startswith(cluster.name)}
    finally:
        await admin.close()


def test_all_is_well_and_nothing_is_made(cluster: Cluster, tmp_path: Path) -> None:
    asyncio.run(cluster.create(cluster.orders, 3))
    found = check(flags_of(cluster, tmp_path / "state"), 0)
    assert {one["verdict"] for some in found.values() for one in some} <= {"ok", "warning"}
    assert "the worker will create" in found["output topics"][0]["found"]
    assert asyncio.run(topics_of(cluster)) == {cluster.orders}
    assert found["clock"][0]["found"] == "as the broker's, within a second"
    asyncio.run(prepare_topics(cluster.config()))
    again = check(flags_of(cluster, tmp_path / "state"), 0)
    assert again["output topics"][0]["found"] == "all 5 are there, with 3 partitions"
    assert again["group"][0]["found"].startswith(f"{cluster.name}: no worker")


def test_all_that_is_wrong_is_told_at_once(cluster: Cluster, tmp_path: Path) -> None:
    async def topics() -> None:
        await cluster.create(cluster.orders, 3, cleanup_policy="compact")
        await cluster.create(cluster.outputs.clock, 3, retention_ms="604800000")
        await cluster.create(cluster.outputs.current, 3, cleanup_policy="delete")

    asyncio.run(topics())
    (tmp_path / "taken").write_text("a file")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        listen = f"127.0.0.1:{other.getsockname()[1]}"
        flags = flags_of(cluster, tmp_path / "taken", listen=listen)
        found = check(flags, 4)
    assert found["checkpoints"][0]["verdict"] == "wrong"
    assert found["status pages"][0]["verdict"] == "warning"
    policies = {one["fix"] is None: one for one in found["topic policies"]}
    assert {one["verdict"] for one in found["topic policies"]} == {"wrong", "warning"}
    assert "is to be compact" in policies[True]["found"]
    assert sum(one["verdict"] == "wrong" for one in found["topic policies"]) == 2
    assert found["transactions"][0]["verdict"] == "ok", (
        "what is wrong first keeps nothing else from being looked at"
    )


def test_a_table_for_people(cluster: Cluster, tmp_path: Path) -> None:
    flags = flags_of(cluster, tmp_path / "state")
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()]
    done = CliRunner().invoke(cli, ["worker", "--check", *arguments])
    assert done.exit_code == 2
    assert f"there is no topic {cluster.orders}" in done.stdout
    assert "a worker would not start: 1 wrong" in done.stdout
    assert CliRunner().invoke(cli, ["worker", "--json", *arguments]).exit_code == 2


def test_settings_that_are_wrong_are_a_finding(cluster: Cluster, tmp_path: Path) -> None:
    found = check(flags_of(cluster, tmp_path, ruleset="rfm99"), 2)
    assert list(found) == ["settings"]
    assert "rfm99" in found["settings"][0]["found"]


def test_a_broker_that_is_not_there(tmp_path: Path) -> None:
    [port] = free_ports(1)
    flags: dict[str, object] = {
        "bootstrap_servers": f"127.0.0.1:{port}",
        "checkpoints": tmp_path,
        "listen": "off",
    }
    found = check(flags, 1)
    assert "no broker answers" in found["brokers"][0]["found"]


@pytest.fixture
def strict_broker(tmp_path: Path) -> Iterator[Broker]:
    """Give a broker that allows no transaction of a minute, and no session of ten seconds."""
    require_java()
    limits = {"transaction.max.timeout.ms": "30000", "group.max.session.timeout.ms": "9000"}
    broker = Broker(tmp_path / "broker", *free_ports(2), jars=ROOT / ".kafka" / "jars", properties=limits)
    broker.start()
    yield broker
    broker.stop()
    shutil.rmtree(broker.data, ignore_errors=True)


def test_what_brokers_do_not_allow(strict_broker: Broker, tmp_path: Path) -> None:
    cluster = Cluster(strict_broker.bootstrap, "strict")
    asyncio.run(cluster.create(cluster.orders, 1))
    found = check(flags_of(cluster, tmp_path / "state", session_timeout_s=20), 2)
    assert "transaction.max.timeout.ms" in found["transactions"][0]["fix"]
    assert found["session timeout"][0]["fix"] == "set session_timeout_s to 6 to 9"


def test_a_clock_that_is_wrong(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours is set ten minutes back: what a broker noted lies ahead of it."""
    ours = probe.time.time_ns
    monkeypatch.setattr(probe, "time", _Clock(lambda: ours() - 600_000_000_000))
    skew = asyncio.run(probe_transaction(cluster.config().client, cluster.name, 60_000))
    assert skew is not None
    assert 598_000 < skew.low_ms <= skew.high_ms < 603_000
    asyncio.run(cluster.create(cluster.orders, 1))
    found = check(flags_of(cluster, tmp_path / "state"), 2)
    assert "behind the broker's, more than time_tolerance_s (300 s)" in found["clock"][0]["found"]
    found = check(flags_of(cluster, tmp_path / "state", time_tolerance_s=3600), 0)
    assert found["clock"][0]["verdict"] == "warning"


class _Clock:
    def __init__(self, time_ns: Any) -> None:  # noqa: ANN401
        self.time_ns = time_ns


def test_what_two_clocks_that_may_be_alike_are_told_as() -> None:
    assert Skew(-3, 5).surely_ms == 0
    assert Skew(400, 900).surely_ms == 400
    assert Skew(-900, -400).surely_ms == -400
