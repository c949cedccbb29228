"""Time on a real broker: customers age out of topics in which nothing happens, at the exact instant, once."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from kafka_cluster import Cluster
from kafka_logs import Sent, records_of, retold, send_records, ticks_of, wait_until, written
from kafka_workers import assert_is_the_replay, flags_of, worker

from rfmstream.engine.live.partition import STEP_CHANGES
from rfmstream.kernels.layout import DAY_US
from rfmstream.schemas.ruleset import Ruleset, load_ruleset

SECOND_US: Final = 1_000_000
PROMPT_US: Final = 5 * SECOND_US
"""A tier change may be told up to a second after it took effect; on a busy machine up to this."""

DAYS: Final = 20
MANY: Final = {1: 5, 2: 1700}
"""How many customers buy on each day, by partition: of the latter more than make a step lapse in a year."""

RULES = 'name = "brief"\nextends = "rfm8-annual"\nday_unit = "duration"\ncurrency = "USD"\n'


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "brief.toml"
    path.write_text(RULES)
    return path


def ruleset_in(path: Path) -> Ruleset:
    return load_ruleset(str(path))


def test_customers_age_out_of_idle_topics_whoever_is_killed(
    cluster: Cluster, tmp_path: Path, rules: Path
) -> None:
    """Each customer has two orders that were recent until a certain instant, and one that counts until a later one."""
    partitions, customers = 3, 30
    flags = flags_of(cluster, tmp_path / "state", ruleset=rules)
    del flags["currency"]
    log = tmp_path / "log"
    log.touch()
    asyncio.run(cluster.create(cluster.orders, partitions))
    with worker(flags, log) as first:
        wait_until(lambda: log.read_text().count("partition recovered") == partitions, first)
        begin_us = time.time_ns() // 1000 + 2 * SECOND_US
        lapses = {f"c{n}": begin_us + n * 120_007 for n in range(customers)}
        leaves = {name: at_us + 12 * SECOND_US for name, at_us in lapses.items()}
        asyncio.run(send_records(cluster, aging(lapses, leaves, partitions)))
        wait_until(lambda: len(told(cluster, partitions, "recency_expired")) >= customers // 3, first)
        first.kill()
    asyncio.run(cluster.expel(cluster.name))
    killed_us = time.time_ns() // 1000
    seen = len(log.read_text())
    with worker(flags, log) as second:
        wait_until(lambda: log.read_text()[seen:].count("partition recovered") == partitions, second)
        back_us = time.time_ns() // 1000
        wait_until(lambda: len(told(cluster, partitions, "window_expired")) == customers, second)
        second.terminate()
        assert second.exit_code() == 0, log.read_text()
    assert "checkpoint=None" in log.read_text()[seen:], "the ticks alone say what had happened"

    recency, window = (told(cluster, partitions, f"{kind}_expired") for kind in ("recency", "window"))
    assert sorted(told_at(recency)) == sorted(lapses.items())
    assert sorted(told_at(window)) == sorted(leaves.items())
    assert {(row["from_tier"], row["to_tier"], row["order_id"]) for _, row in recency} == {
        ("110", "010", None)
    }
    assert {(row["from_tier"], row["to_tier"], row["order_id"]) for _, row in window} == {
        ("010", "000", None)
    }
    late_us = [at_us - effective_us(row) for at_us, row in recency + window]
    assert min(late_us) > -1000, "nothing is told before it is true"
    prompt = [
        at_us - effective_us(row)
        for at_us, row in recency + window
        if not killed_us - PROMPT_US < effective_us(row) < back_us
    ]
    assert prompt
    assert min(prompt) < SECOND_US
    assert_is_the_replay(
        cluster, partitions, asyncio.run(retold(cluster, partitions, ruleset=ruleset_in(rules)))
    )


def aging(lapses: dict[str, int], leaves: dict[str, int], partitions: int) -> Iterator[Sent]:
    for number, name in enumerate(lapses):
        for at, (days, stops) in enumerate([(365, leaves), (30, lapses), (30, lapses)]):
            yield Sent(number % partitions, order(name, at, stops[name] - days * DAY_US), name.encode())


def order(customer: str, number: int, at_us: int, amount: int = 1) -> bytes:
    at = str(np.datetime64(at_us, "us")) + "Z"
    return orjson.dumps(
        {"customer_id": customer, "order_id": f"o{number}", "occurred_at": at, "amount": amount}
    )


def told(cluster: Cluster, partitions: int, reason: str) -> list[tuple[int, dict[str, Any]]]:
    """Return the changes of a reason, each with the time at which it was written, µs."""
    changes = asyncio.run(records_of(cluster, cluster.outputs.changes, partitions))
    rows = [(record.timestamp * 1000, orjson.loads(record.value)) for of in changes.values() for record in of]
    return [(at_us, row) for at_us, row in rows if row["reason"] == reason]


def told_at(rows: list[tuple[int, dict[str, Any]]]) -> list[tuple[str, int]]:
    return [(row["customer_id"], effective_us(row)) for _, row in rows]


def effective_us(row: dict[str, Any]) -> int:
    return int(np.datetime64(row["effective_at"].removesuffix("Z"), "us").astype(np.int64))


@pytest.mark.deep
def test_a_day_and_a_year_without_a_worker_pass_in_bounded_steps(
    cluster: Cluster, tmp_path: Path, rules: Path
) -> None:
    """Partition 0 ends a day ago, 1 more than a year ago; in 2 a year passes between two records of many."""
    partitions, now_us = 3, time.time_ns() // 1000
    flags = flags_of(cluster, tmp_path / "state", ruleset=rules, checkpoint_interval_s=1)
    del flags["currency"]
    asyncio.run(cluster.create(cluster.orders, partitions, retention_ms="-1"))
    day_ago_us, year_ago_us = now_us - DAY_US - SECOND_US, now_us - 500 * DAY_US
    days_us = [year_ago_us + day * DAY_US for day in range(DAYS)]

    def history() -> Iterator[Sent]:
        for n in range(48):
            # One lapses each hour, since yesterday and until tomorrow.
            at_us = day_ago_us + n * DAY_US // 24 - 30 * DAY_US
            yield Sent(0, order(f"h{n}", 0, at_us), timestamp_ms=day_ago_us // 1000)
        for number, many in MANY.items():
            for day, at_us in enumerate(days_us):
                yield Sent(number, bought(f"y{number}-{day}", many, at_us), timestamp_ms=at_us // 1000)
        yield Sent(2, order("the last", 0, now_us), timestamp_ms=now_us // 1000)

    asyncio.run(send_records(cluster, history()))
    logs = [tmp_path / f"log-{n}" for n in range(3)]
    for log, enough in zip(logs, (DAYS * MANY[2], DAYS * MANY[2] + STEP_CHANGES, None), strict=True):
        log.touch()
        with worker(flags, log) as process:
            if enough is None:
                wait_until(lambda: logs[-1].read_text().count("partition recovered") == partitions, process)
                wait_until(
                    lambda: have_arrived(cluster, (day_ago_us + DAY_US, days_us[-1] + 365 * DAY_US)), process
                )
                process.terminate()
                assert process.exit_code() == 0, log.read_text()
            else:
                wait_until(partial(has_written, cluster, enough, tmp_path / "state"), process)
                process.kill()
                asyncio.run(cluster.expel(cluster.name))
    assert f"partition={cluster.orders}-2 checkpoint=0" in logs[-1].read_text()

    assert_is_the_replay(
        cluster, partitions, asyncio.run(retold(cluster, partitions, ruleset=ruleset_in(rules)))
    )
    changes = asyncio.run(records_of(cluster, cluster.outputs.changes, partitions))
    rows = {number: [orjson.loads(record.value) for record in of] for number, of in changes.items()}
    for number, many in MANY.items():
        for reason, days in (("recency_expired", 30), ("window_expired", 365)):
            at = Counter(effective_us(row) for row in rows[number] if row["reason"] == reason)
            assert at == dict.fromkeys((day_us + days * DAY_US for day_us in days_us), many)
    hours = sorted(effective_us(row) for row in rows[0] if row["reason"] == "recency_expired")
    assert hours[:25] == [day_ago_us + n * DAY_US // 24 for n in range(25)]
    # No transaction holds more than a step and what one instant brings.
    edges = [tick.clock_us for tick in asyncio.run(ticks_of(cluster, partitions))[2]]
    steps = np.bincount(
        np.searchsorted(edges, [effective_us(row) for row in rows[2] if row["order_id"] is None])
    )
    assert len(steps) > 1
    assert max(steps) < STEP_CHANGES + MANY[2]


def has_written(cluster: Cluster, enough: int, checkpoints: Path) -> bool:
    """Tell whether so many changes are told, and of the longest partition a checkpoint is there."""
    return (
        any(checkpoints.glob(f"{cluster.orders}-2/0*"))
        and asyncio.run(written(cluster, cluster.outputs.changes, 3)) > enough
    )


def have_arrived(cluster: Cluster, last_us: Sequence[int]) -> bool:
    """Tell whether time has passed up to certain instants in the partitions that end in the past."""
    ticks = asyncio.run(ticks_of(cluster, 3))
    return all(
        ticks[n] and ticks[n][-1].clock_us >= at_us for n, at_us in enumerate(last_us)
    ) and asyncio.run(read_to_its_end(cluster, 2))


async def read_to_its_end(cluster: Cluster, partition: int) -> bool:
    admin = AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap)
    await admin.start()
    try:
        place = TopicPartition(cluster.orders, partition)
        offsets = await admin.list_consumer_group_offsets(cluster.name, partitions=[place])
        return bool(offsets[place].offset == DAYS + 1)
    finally:
        await admin.close()


def bought(prefix: str, customers: int, at_us: int) -> bytes:
    """Return an Arrow stream: a first order of many customers."""
    sink = pa.BufferOutputStream()
    table = pa.table(
        {
            "customer_id": [f"{prefix}-{n}" for n in range(customers)],
            "order_id": ["o"] * customers,
            "occurred_at": pa.array([at_us] * customers, pa.timestamp("us", "UTC")),
            "amount": ["1500"] * customers,
        }
    )
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    value: bytes = sink.getvalue().to_pybytes()
    return value
