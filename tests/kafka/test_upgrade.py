"""A worker's running state of version 0.1.0, taken over by this one.

tests/data/worker-0.1 was written by the program of commit f286340, and is never written again: a worker of rfm8-annual
with the clock `log` was stopped in order, went on with a longer checkpoint interval, and was killed. There are its
records, notes of time, committed offsets and tier changes, and its checkpoints, which lie before what is committed.
"""

import asyncio
import json
import shutil
import time
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.structs import OffsetAndMetadata
from kafka_cluster import ROOT, Cluster
from kafka_logs import Sent, metrics_of, retold, send_records, wait_until
from kafka_workers import flags_of, worker

from rfmstream.engine.live.kafka.app_state import App, state_of
from rfmstream.engine.live.kafka.groups import group_of
from rfmstream.engine.live.store import Store

OLD = ROOT / "tests" / "data" / "worker-0.1"
APP = "upgrade01"
PARTITIONS = 2


class Logged(NamedTuple):
    """A record as it lay in a topic."""

    partition: int
    offset: int
    timestamp_ms: int
    key: str
    value: str


@pytest.fixture
def old(bootstrap: str) -> Cluster:
    """Give a cluster on which a worker of 0.1.0 was killed a moment ago."""
    cluster = Cluster(bootstrap, APP)
    log: dict[str, list[list[Any]]] = json.loads((OLD / "log.json").read_text())
    asyncio.run(
        restore(cluster, {kind: [Logged(*row) for row in log[kind]] for kind in TOPICS}, log["offsets"])
    )
    return cluster


TOPICS = ("orders", "changes", "clock")


async def restore(cluster: Cluster, log: dict[str, list[Logged]], offsets: list[list[Any]]) -> None:
    names = {
        "orders": cluster.orders,
        "changes": cluster.outputs.changes,
        "clock": cluster.outputs.clock,
        "current": cluster.outputs.current,
    }
    admin = AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap)
    await admin.start()
    there = set(await admin.list_topics()) & {
        *names.values(),
        cluster.outputs.rejected,
        cluster.outputs.signals,
    }
    assert not there, "a broker of one's own has seen this test before: delete its topics and its group"
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=cluster.bootstrap, enable_idempotence=True)
    await producer.start()
    for kind, name in names.items():
        policy = "compact" if kind == "current" else "delete"
        await cluster.create(name, PARTITIONS, cleanup_policy=policy, retention_ms="-1")
        of = log["changes" if kind == "current" else kind]
        for number in range(PARTITIONS):
            # Offsets of the clock topic stand in checkpoints: where a mark of a transaction was, something else is.
            rows = {row.offset: row for row in of if row.partition == number}
            for offset in range(max(rows, default=-1) + 1 if kind == "clock" else 0):
                rows.setdefault(
                    offset, Logged(number, offset, 0, "other/app", '{"position":0,"clock_us":0,"until":0}')
                )
            for _, row in sorted(rows.items()):
                sent = await producer.send_and_wait(
                    name,
                    row.value.encode(),
                    key=row.key.encode(),
                    partition=number,
                    timestamp_ms=row.timestamp_ms or None,
                )
                assert kind not in ("orders", "clock") or sent.offset == row.offset
    await producer.stop()
    consumer = AIOKafkaConsumer(
        bootstrap_servers=cluster.bootstrap, group_id=APP, enable_auto_commit=False, client_id="restore"
    )
    await consumer.start()
    places = {
        TopicPartition(cluster.orders, number): OffsetAndMetadata(at, note) for number, at, note in offsets
    }
    consumer.assign(list(places))
    await consumer.commit(places)
    await consumer.stop()


def test_a_running_state_of_the_version_before_goes_on(old: Cluster, tmp_path: Path) -> None:
    place = tmp_path / "checkpoints"
    shutil.copytree(OLD / "checkpoints", place)
    flags = flags_of(old, place, listen="127.0.0.1:0", checkpoint_interval_s=1)
    app = App(old.config().client, APP, old.outputs.clock, Store(str(place), app_id=APP))
    before = asyncio.run(state_of(app))
    for one in before.partitions.values():
        assert one.committed is not None
        assert one.checkpoints[-1].offset < one.committed
    read = sum(one.committed or 0 for one in before.partitions.values())
    now = time.time_ns() // 1000
    new = [
        Sent(
            number % PARTITIONS,
            order(f"c{number}", number, now),
            f"c{number}".encode(),
            timestamp_ms=now // 1000,
        )
        for number in range(20)
    ]
    with worker(flags, tmp_path / "log") as process:
        process.wait_for("history read")
        assert "passed over" not in process.log.read_text()
        asyncio.run(send_records(old, new))
        wait_until(
            lambda: metrics_of(process)["rfmstream_committed_position"].total() == read + len(new), process
        )
        process.terminate()
        assert process.exit_code() == 0, process.log.read_text()
    # Nothing is repeated and nothing lacks, from the old one's first change to the new one's last.
    changes = asyncio.run(old.committed_records(old.outputs.changes, range(PARTITIONS)))
    told = [orjson.loads(record.value) for record in changes]
    expected = [orjson.loads(value) for value in asyncio.run(retold(old, PARTITIONS)).elements() if value]
    assert len(told) > len(set(read_old("changes")))
    assert Counter(map(as_told_before, told)) == Counter(map(as_told_before, expected))
    seqs: defaultdict[str, list[int]] = defaultdict(list)
    for change in told:
        seqs[change["customer_id"]].append(change["seq"])
    assert all(seq == list(range(1, len(seq) + 1)) for seq in seqs.values())
    current = asyncio.run(old.committed_records(old.outputs.current, range(PARTITIONS)))
    assert {record.key: record.value for record in current} == {
        record.key: record.value for record in changes
    }
    asyncio.run(is_of_this_version(old))


@cache
def read_old(kind: str) -> list[str]:
    """Return the values that lay in a topic."""
    return [Logged(*row).value for row in json.loads((OLD / "log.json").read_text())[kind]]


def as_told_before(change: dict[str, Any]) -> bytes:
    """Return a change with the fields that 0.1.0 told: there are more by now."""
    fields = orjson.loads(read_old("changes")[0])
    return orjson.dumps({name: change[name] for name in sorted(fields)})


async def is_of_this_version(cluster: Cluster) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap)
    await admin.start()
    group = await group_of(admin, APP)
    await admin.close()
    assert all("#" in one.note for one in group.offsets.values()), "the digest of the outputs is written down"


def order(customer: str, number: int, at_us: int) -> bytes:
    return orjson.dumps(
        {
            "customer_id": customer,
            "order_id": f"new{number}",
            "occurred_at": f"{np.datetime64(at_us, 'us')}Z",
            "amount": "12.50",
        }
    )
