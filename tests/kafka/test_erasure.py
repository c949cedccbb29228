"""Erasure on a real broker: a tombstone for the customer, and nothing of it in the place of the checkpoints."""

import asyncio
import time
from pathlib import Path
from typing import Any

import orjson
from kafka_cluster import Cluster
from kafka_logs import wait_until
from kafka_workers import flags_of, send, worker
from oracle_days import DAY_US
from twins import canonical_batch

PARTITIONS = 2


def paid(customer: str, order: str, at_us: int) -> dict[str, Any]:
    return {
        "customer_id": customer,
        "order_id": order,
        "type": "paid",
        "occurred_at_us": at_us,
        "amount_minor": 5_000,
        "event_id": f"event-{order}",
    }


def erased(customer: str, at_us: int) -> dict[str, Any]:
    return paid(customer, "", at_us) | {"type": "erased", "amount_minor": 0, "event_id": None}


def holds(place: Path, text: bytes) -> bool:
    while True:
        try:
            return any(path.is_file() and text in path.read_bytes() for path in place.rglob("*"))
        except FileNotFoundError:
            continue  # a checkpoint was removed meanwhile


def current(cluster: Cluster) -> dict[bytes, bytes | None]:
    records = asyncio.run(cluster.committed_records(cluster.outputs.current, range(PARTITIONS)))
    return {record.key: record.value for record in records}


def test_an_erased_customer_is_in_no_checkpoint_and_in_no_newest_change(
    cluster: Cluster, tmp_path: Path
) -> None:
    place, now_us = tmp_path / "state", time.time_ns() // 1000
    flags = flags_of(cluster, place, checkpoint_interval_s=1, ruleset="rfm8")
    asyncio.run(cluster.create(cluster.orders, PARTITIONS, retention_ms="-1"))
    orders = [
        paid(f"customer-{n}", f"secret-of-{n}-number-{k}", now_us - (9 - k) * DAY_US)
        for k in range(3)
        for n in range(40)
    ]
    asyncio.run(send(cluster, [canonical_batch(orders)], PARTITIONS))
    gone = [n for n in range(40) if n % 4 == 1]

    def is_held(numbers: list[int]) -> list[int]:
        return [n for n in numbers if holds(place, b"secret-of-%d-number" % n)]

    # Killed after the erasure, perhaps before it could write a checkpoint of it.
    with worker({**flags, "erase_within": "30d"}, tmp_path / "first") as process:
        wait_until(lambda: is_held(list(range(40))) == list(range(40)), process)
        rows = [erased(f"customer-{n}", now_us) for n in gone] + [erased("nobody", now_us)]
        asyncio.run(send(cluster, [canonical_batch(rows)], PARTITIONS))
        wait_until(lambda: current(cluster).get(b"nobody", b"") is None, process)
        process.kill()
    assert is_held(gone) == gone  # the older checkpoints may stay for a month
    # Nothing more happens in the topic; the time is over.
    with worker({**flags, "erase_within": "1s"}, tmp_path / "second") as process:
        wait_until(lambda: not is_held(gone), process)
        process.terminate()
        assert process.exit_code() == 0, process.log.read_text()
    stays = sorted(set(range(40)) - set(gone))
    assert is_held(list(range(40))) == stays
    assert {key: value is None for key, value in current(cluster).items()} == {
        b"nobody": True,
        **{b"customer-%d" % n: n in gone for n in range(40)},
    }
    changes = asyncio.run(cluster.committed_records(cluster.outputs.changes, range(PARTITIONS)))
    told = [orjson.loads(record.value) for record in changes]
    ends = [change for change in told if change["reason"] == "erased"]
    assert sorted(change["customer_id"] for change in ends) == sorted(f"customer-{n}" for n in gone)
    assert {(change["order_id"], change["to_tier"]) for change in ends} == {(None, None)}
    # One comes back: it goes on counting, and has a newest change again.
    asyncio.run(send(cluster, [canonical_batch([paid("customer-1", "anew", now_us + 1)])], PARTITIONS))
    with worker(flags, tmp_path / "third") as process:
        wait_until(lambda: current(cluster)[b"customer-1"] is not None, process)
        process.terminate()
        assert process.exit_code() == 0, process.log.read_text()
    back = orjson.loads(current(cluster)[b"customer-1"] or b"")
    before = max(change["seq"] for change in told if change["customer_id"] == "customer-1")
    assert (back["reason"], back["seq"]) == ("first_order", before + 1)
    assert is_held(gone) == []
