"""What happens to a worker in clusters of others: their clients, their clocks, their tools."""

import asyncio
import json
import re
import time
import urllib.error
import urllib.request
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from click.testing import CliRunner
from kafka_cluster import Broker, Cluster
from kafka_logs import Sent, metrics_of, records_of, retold, send_records, wait_until
from kafka_workers import WorkerProcess, assert_is_the_replay, flags_of, worker

from rfmstream.engine.cli.app import cli
from rfmstream.engine.live.placement import places_of

DAY_MS = 86_400_000
PARTITIONS = 4


def order(customer: str, number: int, at_us: int | None = None, amount: int = 1, **more: object) -> bytes:
    at = np.datetime64(at_us or time.time_ns() // 1000, "us")
    return orjson.dumps(
        {
            "customer_id": customer,
            "order_id": f"o{number}",
            "occurred_at": f"{at}Z",
            "amount": amount,
            **more,
        }
    )


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def ready_of(process: WorkerProcess) -> dict[str, Any]:
    log = process.log.read_text()
    url = log[log.rindex("status=") + len("status=") :].split()[0]
    with urllib.request.urlopen(f"{url}/readyz", timeout=30) as answer:  # noqa: S310 - our own
        found: dict[str, Any] = json.load(answer)
    return found


def test_two_kinds_of_producers_are_told(cluster: Cluster, tmp_path: Path) -> None:
    """History by murmur2, then live orders by librdkafka's CRC-32; a worker that starts in between remembers."""
    flags = flags_of(cluster, tmp_path / "state", listen="127.0.0.1:0")
    names = [f"c{n}" for n in range(40)]
    keys = [name.encode() for name in names]
    asyncio.run(cluster.create(cluster.orders, PARTITIONS))
    history = [
        Sent(int(place), order(name, 1), name.encode())
        for name, place in zip(names, places_of(keys, PARTITIONS), strict=True)
    ]
    asyncio.run(send_records(cluster, history))
    with worker(flags, tmp_path / "log") as first:
        wait_until(lambda: read(first) == len(names), first)
        assert metrics_of(first)["rfmstream_keys"] == {("murmur2",): 40, ("elsewhere",): 0}
        assert metrics_of(first)["rfmstream_producers_mixed"].total() == 0
        first.terminate()
        assert first.exit_code() == 0
    others = [Sent(zlib.crc32(key) % PARTITIONS, order(key.decode(), 2), key) for key in keys]
    with worker(flags, tmp_path / "second") as second:
        wait_until(lambda: second.log.exists() and "partition recovered" in second.log.read_text(), second)
        asyncio.run(send_records(cluster, others))
        wait_until(lambda: read(second) == len(names), second)
        metrics = metrics_of(second)
        assert metrics["rfmstream_keys"]["elsewhere",] > 20
        assert metrics["rfmstream_producers_mixed"].total() > 0
        assert any("producers_mixed" in one for one in ready_of(second)["partitions"])
    assert "producers choose partitions differently" in second.log.read_text()


def read(process: WorkerProcess) -> float:
    if "status=" not in (process.log.read_text() if process.log.exists() else ""):
        return -1
    return metrics_of(process).get("rfmstream_records_total", Counter()).total()


def test_a_record_time_far_ahead_ages_nobody(cluster: Cluster, tmp_path: Path) -> None:
    """One record 400 days ahead, another producer 50 minutes fast; killed and started again, the same history."""
    flags = flags_of(cluster, tmp_path / "state", listen="127.0.0.1:0")
    asyncio.run(cluster.create(cluster.orders, 1, message_timestamp_after_max_ms=str(1000 * DAY_MS)))
    now_us = time.time_ns() // 1000

    def sent(number: int, ahead_ms: int) -> Sent:
        return Sent(0, order(f"c{number}", number, now_us), b"c", timestamp_ms=now_ms() + ahead_ms)

    some = [sent(0, 0), sent(1, 400 * DAY_MS), sent(2, 0), sent(3, 50 * 60_000), sent(4, 100_000), sent(5, 0)]
    log = tmp_path / "log"
    with worker(flags, log) as first:
        wait_until(lambda: log.exists() and "partition recovered" in log.read_text(), first)
        for each in some:
            asyncio.run(send_records(cluster, [each]))
        wait_until(lambda: read(first) == len(some), first)
        metrics = metrics_of(first)
        assert metrics["rfmstream_times_ahead_total"].total() == 2
        assert metrics["rfmstream_clock_seconds"].total() < time.time() + 120
        assert ready_of(first)["partitions"][0]["times_ahead"] == 2
        first.kill()
    assert "records are ahead of the wall clock and count as of now" in log.read_text()
    asyncio.run(cluster.expel(cluster.name))
    seen = len(log.read_text())
    with worker(flags, log) as second:
        second.wait_for("partition recovered", after=seen)
        assert "checkpoint=None" in log.read_text()[seen:]
        asyncio.run(send_records(cluster, [sent(6, 0)]))
        wait_until(lambda: read(second) == 1, second)
        assert metrics_of(second)["rfmstream_clock_seconds"].total() < time.time() + 120
    changes = asyncio.run(records_of(cluster, cluster.outputs.changes, 1))[0]
    rows = [orjson.loads(record.value) for record in changes]
    assert [row["reason"] for row in rows] == ["first_order"] * 7, "nobody has lapsed"
    assert_is_the_replay(cluster, 1, asyncio.run(retold(cluster, 1)))


@pytest.mark.parametrize(
    ("kind", "options", "problem"),
    [
        ("orders", {"cleanup_policy": "compact"}, r"input_topics: topic .*orders is compacted"),
        ("clock", {"cleanup_policy": "compact"}, r"clock_topic: topic .*clock is compacted"),
        (
            "clock",
            {"retention_ms": str(7 * DAY_MS)},
            r"clock_topic: topic .*clock has retention.ms=604800000",
        ),
    ],
)
def test_topics_that_would_lose_the_state_are_refused(
    cluster: Cluster, tmp_path: Path, kind: str, options: dict[str, str], problem: str
) -> None:
    asyncio.run(cluster.create(f"{cluster.name}.{kind}", 1, **options))
    if kind != "orders":
        asyncio.run(cluster.create(cluster.orders, 1))
    line = refused(flags_of(cluster, tmp_path / "state"), tmp_path / "log", code=2)
    assert re.search(problem, line), line


def refused(flags: dict[str, object], log: Path, *, code: int) -> str:
    """Return the one line in which a worker says why it does not go on."""
    with worker(flags, log) as process:
        assert process.exit_code() == code, log.read_text()
    assert "Traceback" not in log.read_text()
    line = log.read_text().splitlines()[-1]
    assert line.startswith("rfmstream: ")
    return line


def test_a_topic_made_anew_is_told_and_nothing_of_it_skipped(cluster: Cluster, tmp_path: Path) -> None:
    flags = flags_of(cluster, tmp_path / "state", listen="127.0.0.1:0")
    asyncio.run(cluster.create(cluster.orders, 1))
    with worker(flags, tmp_path / "log") as first:
        asyncio.run(send_records(cluster, [Sent(0, order(f"a{n}", n), b"k") for n in range(10)]))
        wait_until(lambda: read(first) == 10, first)
        first.terminate()
        assert first.exit_code() == 0

    async def make_anew() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap)
        await admin.start()
        await admin.delete_topics([cluster.orders])
        while cluster.orders in await admin.list_topics():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        await admin.close()
        await cluster.create(cluster.orders, 1)
        await send_records(cluster, [Sent(0, order(f"b{n}", n), b"k") for n in range(25)])

    asyncio.run(make_anew())
    line = refused(flags, tmp_path / "refused", code=4)
    assert "is not the one its state was made from: it was deleted and created anew" in line
    with worker({**flags, "accept_gap": True}, tmp_path / "accepted") as second:
        wait_until(lambda: read(second) == 25, second)
        metrics = metrics_of(second)
        assert metrics["rfmstream_customers"].total() == 35
        assert metrics["rfmstream_customers_tier"].total() == 35
        second.kill()
    asyncio.run(cluster.expel(cluster.name))
    # From here on it is its topic.
    with worker(flags, tmp_path / "after") as third:
        third.wait_for("partition recovered")
        asyncio.run(send_records(cluster, [Sent(0, order("c", 1), b"k")]))
        wait_until(lambda: read(third) == 1, third)
        assert metrics_of(third)["rfmstream_customers"].total() == 36


def test_partitions_that_are_added_end_the_worker(cluster: Cluster, tmp_path: Path) -> None:
    asyncio.run(cluster.create(cluster.orders, 2))

    async def add() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap)
        await admin.start()
        await admin.create_partitions({cluster.orders: NewPartitions(3)})
        await admin.close()

    with worker(flags_of(cluster, tmp_path / "state"), tmp_path / "log") as process:
        process.wait_for("partition recovered")
        asyncio.run(add())
        assert process.exit_code(90) == 2, process.log.read_text()
    assert "has 3 partitions now and had 2" in process.log.read_text().splitlines()[-1]


def test_an_open_transaction_holds_time_back(cluster: Cluster, tmp_path: Path) -> None:
    """A customer's second order lies behind an open transaction: he must not lapse before it is read."""
    rules = tmp_path / "brief.toml"
    rules.write_text('name = "brief"\nextends = "rfm8-annual"\nday_unit = "duration"\ncurrency = "USD"\n')
    flags = flags_of(cluster, tmp_path / "state", ruleset=rules, listen="127.0.0.1:0")
    del flags["currency"]
    asyncio.run(cluster.create(cluster.orders, 1))
    lapse_us = time.time_ns() // 1000 + 12_000_000

    async def hold(process: WorkerProcess) -> None:
        await send_records(cluster, [Sent(0, order("c", 1, lapse_us - 30 * DAY_MS * 1000), b"c")])
        while read(process) < 1:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        producer = AIOKafkaProducer(
            bootstrap_servers=cluster.bootstrap, transactional_id=f"{cluster.name}-other"
        )
        await producer.start()
        await producer.begin_transaction()
        await producer.send_and_wait(cluster.orders, order("x", 1), partition=0)
        await send_records(cluster, [Sent(0, order("c", 2), b"c")])
        while time.time_ns() // 1000 < lapse_us + 2_000_000:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        assert metrics_of(process)["rfmstream_lag_records"].total() == 2
        assert metrics_of(process)["rfmstream_lag_seconds"].total() > 0
        await producer.commit_transaction()
        await producer.stop()
        while read(process) < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.1)

    with worker(flags, tmp_path / "log") as process:
        process.wait_for("partition recovered")
        asyncio.run(hold(process))
        wait_until(lambda: metrics_of(process)["rfmstream_lag_records"].total() == 0, process)
    changes = asyncio.run(records_of(cluster, cluster.outputs.changes, 1))[0]
    assert "recency_expired" not in [orjson.loads(record.value)["reason"] for record in changes]


def test_brokers_that_refuse_the_time_of_records_end_the_worker(cluster: Cluster, tmp_path: Path) -> None:
    """An output topic that takes no record older than it arrives stands for clocks that are far apart."""

    async def topics() -> None:
        await cluster.create(cluster.orders, 1)
        await cluster.create(cluster.outputs.changes, 1, message_timestamp_before_max_ms="0")
        await send_records(cluster, [Sent(0, order("c", 1), b"c")])

    asyncio.run(topics())
    with worker(flags_of(cluster, tmp_path / "state"), tmp_path / "log") as process:
        assert process.exit_code(240) == 2, process.log.read_text()
    last = process.log.read_text().splitlines()[-1]
    assert "the brokers refuse records of this machine's time" in last
    assert "message.timestamp.before.max.ms" in last


def test_rejects_are_heard(cluster: Cluster, tmp_path: Path) -> None:
    flags = flags_of(cluster, tmp_path / "state", listen="127.0.0.1:0")
    asyncio.run(cluster.create(cluster.orders, 1))
    with worker(flags, tmp_path / "log") as process:
        process.wait_for("partition recovered")
        assert metrics_of(process)["rfmstream_orders_rejected_total"]["currency_mismatch",] == 0
        assert ("unknown_order",) in metrics_of(process)["rfmstream_orders_rejected_total"]
        asyncio.run(send_records(cluster, [Sent(0, order("c", n, currency="EUR"), b"c") for n in range(50)]))
        wait_until(lambda: read(process) == 50, process)
        assert ready_of(process)["partitions"][0]["rejected"] == {"currency_mismatch": 50}
        process.wait_for("rows rejected")
    [line, *more] = [line for line in process.log.read_text().splitlines() if "rows rejected" in line]
    assert more == []
    assert "reason=currency_mismatch" in line
    assert f"{cluster.orders}-0 offset 0 row 0" in line


def test_a_broker_that_refuses_for_good_ends_the_worker(own_broker: Broker, tmp_path: Path) -> None:
    own_broker.stop()
    own_broker.properties = {"transaction.max.timeout.ms": "30000"}
    own_broker.start()
    cluster = Cluster(own_broker.bootstrap, "refuses")
    asyncio.run(cluster.create(cluster.orders, 1))
    line = refused(flags_of(cluster, tmp_path / "state"), tmp_path / "log", code=2)
    assert "raise the brokers' transaction.max.timeout.ms to 60000 or more" in line


def test_two_workers_of_other_outputs_and_two_apps_of_one_current_topic(
    cluster: Cluster, tmp_path: Path
) -> None:
    flags = flags_of(cluster, tmp_path / "state", listen="127.0.0.1:0")
    asyncio.run(cluster.create(cluster.orders, 2))
    with worker(flags, tmp_path / "log") as first:
        wait_until(lambda: first.log.exists() and first.log.read_text().count("recovered") == 2, first)
        line = refused({**flags, "changes_topic": f"{cluster.name}.elsewhere"}, tmp_path / "other", code=2)
        assert f"changes_topic: workers of app {cluster.name} write the changes of {cluster.orders}-" in line
        line = refused({**flags, "signals_topic": f"{cluster.name}.elsewhere"}, tmp_path / "told", code=2)
        assert f"signals_topic: workers of app {cluster.name} write the signals of {cluster.orders}-" in line
        # The one that was first goes on.
        asyncio.run(send_records(cluster, [Sent(number, order("c", 1), b"c") for number in range(2)]))
        wait_until(lambda: read(first) == 2, first)
        another = {**flags, "app_id": f"{cluster.name}2", "checkpoints": str(tmp_path / "state2")}
        line = refused(another, tmp_path / "rival", code=2)
        assert (
            f"current_topic: app {cluster.name} keeps its newest changes in {cluster.outputs.current}" in line
        )
        first.terminate()
        assert first.exit_code() == 0
    moved = {**flags, "changes_topic": f"{cluster.name}.elsewhere", "accept_gap": True}
    with worker(moved, tmp_path / "moved") as second:
        wait_until(lambda: second.log.exists() and second.log.read_text().count("recovered") == 2, second)
        asyncio.run(send_records(cluster, [Sent(0, order("d", 1), b"d")]))
        wait_until(lambda: read(second) == 1, second)
        second.terminate()
        assert second.exit_code() == 0
    with worker({**moved, "accept_gap": False}, tmp_path / "stays") as third:
        wait_until(lambda: third.log.exists() and third.log.read_text().count("recovered") == 2, third)


def test_a_refund_that_overtook_its_order_is_put_back(cluster: Cluster, tmp_path: Path) -> None:
    flags = flags_of(cluster, tmp_path / "state", listen="127.0.0.1:0")
    asyncio.run(cluster.create(cluster.orders, 2))
    refund = order("c", 1, amount=1500, type="refunded")
    event = {
        "specversion": "1.0",
        "id": "1",
        "source": "/shop",
        "type": "x",
        "data": json.loads(order("d", 2)),
    }
    event["data"]["type"] = "cancelled"
    ce = [("content-type", b"application/cloudevents+json")]
    with worker(flags, tmp_path / "log") as process:
        process.wait_for("partition recovered")
        begin = np.datetime64(time.time_ns() // 1000 - 1_000_000, "us")
        some = [
            Sent(1, refund, b"c"),
            Sent(1, orjson.dumps(event), b"d", ce),
            Sent(1, order("c", 1, amount=1500), b"c"),
            Sent(1, order("d", 2, amount=1500), b"d"),
            Sent(0, b"{", b"x"),
        ]
        asyncio.run(send_records(cluster, some))
        wait_until(lambda: read(process) == len(some), process)
        command = [
            "redrive",
            "--bootstrap-servers",
            cluster.bootstrap,
            "--rejected-topic",
            cluster.outputs.rejected,
        ]
        command += ["--reason", "unknown_order", "--since", f"{begin}Z"]
        shown = CliRunner().invoke(cli, [*command, "--dry-run"])
        assert shown.output == f"2 rows rejected as unknown_order would be put back: {cluster.orders}\n", (
            shown.output
        )
        shown = CliRunner().invoke(cli, command)
        assert (shown.exit_code, shown.output) == (
            0,
            f"2 rows rejected as unknown_order put back: {cluster.orders}\n",
        )
        wait_until(lambda: read(process) == len(some) + 2, process)
        # Once more: what was applied is a duplicate.
        assert CliRunner().invoke(cli, command).exit_code == 0
        wait_until(lambda: read(process) == len(some) + 4, process)
        metrics = metrics_of(process)
        assert metrics["rfmstream_orders_rejected_total"]["unknown_order",] == 2
        assert metrics["rfmstream_orders_duplicate_total"].total() == 2
    changes = asyncio.run(records_of(cluster, cluster.outputs.changes, 2))[1]
    last = {row["customer_id"]: row for row in (orjson.loads(record.value) for record in changes)}
    assert {name: (row["reason"], row["to_tier"]) for name, row in last.items()} == {
        "c": ("refund", None),
        "d": ("cancellation", None),
    }


def test_half_a_snapshot_is_none_unless_it_is_asked_for(cluster: Cluster, tmp_path: Path) -> None:
    flags = flags_of(cluster, tmp_path / "state", listen="127.0.0.1:0")
    asyncio.run(cluster.create(cluster.orders, PARTITIONS))
    names = [f"c{n}" for n in range(40)]
    sent = [Sent(n % PARTITIONS, order(name, 1), name.encode()) for n, name in enumerate(names)]
    asyncio.run(send_records(cluster, sent))
    with worker(flags, tmp_path / "one") as one, worker(flags, tmp_path / "two") as two:

        def share() -> bool:
            return all(
                "status=" in (each.log.read_text() if each.log.exists() else "")
                and len(partitions_of(each)) == PARTITIONS // 2
                for each in (one, two)
            )

        wait_until(share, one)
        out = tmp_path / "tiers.csv"
        ask = ["snapshot", "--out", str(out), "--worker", url_of(one)]
        found = CliRunner().invoke(cli, ask)
        assert found.exit_code == 4, found.output
        missing = ", ".join(sorted(partitions_of(two)))
        assert f"2 of {PARTITIONS} partitions are missing: {missing}" in found.output
        assert not out.exists()
        assert CliRunner().invoke(cli, [*ask, "--partial"]).exit_code == 0
        whole = CliRunner().invoke(cli, [*ask, "--worker", url_of(two)])
        assert whole.output.startswith(f"40 customers of {PARTITIONS} partitions"), whole.output


def url_of(process: WorkerProcess) -> str:
    log = process.log.read_text()
    return log[log.rindex("status=") + len("status=") :].split()[0]


def partitions_of(process: WorkerProcess) -> list[str]:
    """Return the partitions a worker has that are live; none before all of its own are."""
    try:
        found = ready_of(process)
    except urllib.error.HTTPError:
        return []
    return [f"{one['topic']}-{one['partition']}" for one in found["partitions"]]
