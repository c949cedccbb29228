"""Poison in a topic: each rejected row is told once, with its bytes, its reason and its place; the rest is unharmed."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from aiokafka import AIOKafkaProducer, ConsumerRecord, TopicPartition
from kafka_cluster import Cluster
from kafka_logs import Sent, metrics_of, records_of, retold, send_records, wait_until
from kafka_workers import assert_is_the_replay, flags_of, worker

from rfmstream.engine.live.encode import REJECTED_BYTES_MAX, EncodedRecords
from rfmstream.engine.live.encode_layout import sized, varint
from rfmstream.engine.live.kafka.batch_format import BEFORE_LENGTH, HEADER, TRANSACTIONAL
from rfmstream.engine.live.kafka.batches import RecordBatch, record_batches
from rfmstream.engine.live.kafka.codecs import refusal
from rfmstream.engine.live.kafka.fetches import READ_BYTES_MAX
from rfmstream.engine.live.kafka.seams import install_fetches
from rfmstream.engine.live.kafka.transactional import TransactionalProducer
from rfmstream.kernels.encode_text import LINE_BYTES
from rfmstream.schemas.orders import REJECTION_REASONS

PARTITIONS = 2
LARGE = 10_000_000
NOW = "2026-11-01T12:00:00Z"

Poison = tuple[str, bytes | None, Sequence[tuple[str, bytes | None]]]


def order(customer: str, number: object, **fields: object) -> bytes:
    return orjson.dumps(
        {"customer_id": customer, "order_id": f"o{number}", "occurred_at": NOW, "amount": "1.00", **fields}
    )


def amount(digits: str) -> bytes:
    return order("amounts", 1, amount=0).replace(b":0}", f":{digits}}}".encode())


def arrow(rows: int) -> bytes:
    return stream_of(
        pa.table({"customer_id": ["a"] * rows, "order_id": ["b"] * rows, "amount": ["1"] * rows})
    )


def stream_of(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    value: bytes = sink.getvalue().to_pybytes()
    return value


def arrow_bomb() -> bytes:
    """Return 6 KB of Arrow that stand for 5 GB: a million rows of the same long texts."""
    rows = 1 << 20
    runs = pa.array([rows], pa.int32())
    table = pa.table(
        {
            name: pa.RunEndEncodedArray.from_arrays(runs, pa.array([text], pa.large_string()))
            for name, text in (
                ("customer_id", "x" * 5000),
                ("order_id", "o"),
                ("occurred_at", NOW),
                ("amount", "1"),
            )
        }
    )
    return stream_of(table)


IS_ARROW = [("content-type", b"application/vnd.apache.arrow.stream")]
IS_JSON = [("content-type", b"application/json")]

ALONE: list[Poison] = [
    # Records that are one row and are rejected before they reach a customer.
    ("malformed", b"", ()),
    ("malformed", None, ()),
    ("malformed", b"{", ()),
    ("malformed", b"5", ()),
    ("malformed", b"null", IS_JSON),
    ("malformed", b"\xff\xfe\x00", ()),
    ("malformed", order("x", 1).replace(b"x", b"\xff"), ()),
    ("malformed", order("x", 1).replace(b"x", b"\\ud800"), ()),
    ("malformed", b'{"a":' * 50_000 + b"1" + b"}" * 50_000, ()),
    ("malformed", b"[" * 200_000 + b"]" * 200_000, IS_JSON),
    ("malformed", amount("NaN"), ()),
    ("malformed", arrow(3)[:-9], IS_ARROW),
    ("malformed", arrow(3)[:300], ()),
    ("malformed", arrow_bomb(), ()),
    ("malformed", order("x", 1), IS_ARROW),
    ("malformed", b"\x00" * 3000, [("content-type", b"\xff\xfe"), ("", b""), ("content-type", None)]),
    ("malformed", order("x" * 257, 1), ()),
    ("malformed", b'{"customer_id": "' + b"x" * LARGE, ()),
    ("missing_customer_id", order("", 1), ()),
    ("missing_customer_id", b'{"order_id": "o1"}', [(f"h{n}", None) for n in range(1000)]),
    ("missing_order_id", order("x", 1).replace(b'"o1"', b"null"), ()),
    ("bad_time", order("x", 1, occurred_at="2026-13-01"), ()),
    ("bad_time", order("x", 1, occurred_at="yesterday" * 1000), ()),
    ("bad_amount", amount("1e999"), ()),
    ("bad_amount", amount("-1e999"), ()),
    ("bad_amount", amount("1e-999"), ()),
    ("bad_amount", amount("0.30000000000000004"), ()),
    ("bad_amount", amount("9" * 5000), ()),
    ("malformed", order("x", 1, amount={"of": []}), ()),
    ("negative_amount", amount("-0.01"), ()),
    ("currency_mismatch", order("x", 1, currency="EUR"), ()),
    ("unknown_type", order("x", 1, type="gift"), ()),
    ("rounded_id", order("9.23E+11", 1), ()),
]


def applied_poison(customer: str, later: str) -> list[Poison]:
    """Return records that only the customer's history proves wrong; its order o1 of 5.00 stands."""
    return [
        ("future_time", order(customer, 2, occurred_at=later), ()),
        ("unknown_order", order(customer, 9, type="refunded"), ()),
        ("unknown_order", order(customer, 9, type="cancelled"), ()),
        ("conflicting_duplicate", order(customer, 1, amount="5.01"), ()),
        ("refund_exceeds_order", order(customer, 1, type="refunded", amount="5.01"), ()),
    ]


def test_poison_is_told_once_and_harms_nothing_else(cluster: Cluster, tmp_path: Path) -> None:
    later = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
    poison = {0: ALONE, 1: [*applied_poison("c-1", later), *reversed(ALONE)]}
    # Rates of exchange are a replay's; an erasure comes before a rejection by it, see tests/kafka/test_examples.py.
    others = {"no_rate", "erased_customer"}
    assert {reason for of in poison.values() for reason, *_ in of} == set(REJECTION_REASONS) - others
    sent, expected = mixed(poison)
    flags = flags_of(cluster, tmp_path / "state", listen="127.0.0.1:0")
    asyncio.run(cluster.create(cluster.orders, PARTITIONS, max_message_bytes=str(16 << 20)))
    with worker(flags, tmp_path / "log") as process:
        process.wait_for("partitions assigned")
        offsets = [told.offset for told in asyncio.run(send_records(cluster, sent))]
        asyncio.run(send_with_foreign_header(cluster))
        wait_until(lambda: metrics_of(process)["rfmstream_records_total"].total() == len(sent) + 6, process)
        counted = metrics_of(process)
        process.terminate()
        assert process.exit_code() == 0, process.log.read_text()

    rejected = asyncio.run(records_of(cluster, cluster.outputs.rejected, PARTITIONS))
    for number, of in rejected.items():
        places = [
            (*told, str(offset), str(row))
            for record, offset, rows in zip(sent, offsets, expected, strict=True)
            if record.partition == number
            for row, told in rows
        ]
        behind = len(sent) // 2
        foreign = [("malformed", b"foreign", b"{", str(behind + at), "0") for at in (1, 4) if number == 0]
        seen = [described(record, number, cluster.orders) for record in of]
        assert seen == [(reason, key, cut(value), *where) for reason, key, value, *where in places + foreign]

    reasons = Counter((reason,) for rows in expected for _, (reason, *_) in rows)
    reasons["malformed",] += 2
    assert counted["rfmstream_orders_rejected_total"] == reasons
    rows = sum(len(orjson.loads(record.value)) if is_array(record) else 1 for record in sent) + 6
    applied = counted["rfmstream_orders_applied_total"].total()
    duplicates = counted["rfmstream_orders_duplicate_total"].total()
    assert duplicates == 2 * PARTITIONS + 2
    assert applied + duplicates + reasons.total() == rows

    changes = asyncio.run(records_of(cluster, cluster.outputs.changes, PARTITIONS))
    told = [orjson.loads(record.value) for of in changes.values() for record in of]
    assert counted["rfmstream_tier_changes_total"].total() == len(told)
    for number in range(PARTITIONS):
        newest = {row["customer_id"]: row for row in told if row["customer_id"].endswith(f"-{number}")}
        # A tenth and two tenths are three tenths; and nothing that was rejected counts.
        assert newest[f"tenths-{number}"]["monetary_minor"] == 1000_30
        assert newest[f"large-{number}"]["monetary_minor"] == 100
        assert newest[f"among-{number}"]["frequency"] == 3
    assert Counter(row["order_id"] for row in told if row["customer_id"] == "foreign-0") == {"o1": 1}
    assert not {row["customer_id"] for row in told} & {"x", "amounts", "a"}
    install_fetches()  # what a foreign header does to the client's own way of reading, this one is spared
    assert_is_the_replay(cluster, PARTITIONS, asyncio.run(retold(cluster, PARTITIONS)))

    # Poison is passed in silence when the history is gone through again.
    shutil.rmtree(tmp_path / "state")
    with worker(flags, tmp_path / "again") as process:
        process.wait_for("partition recovered")
        wait_until(lambda: metrics_of(process)["rfmstream_state"] == {("live",): PARTITIONS}, process)
        process.terminate()
        assert process.exit_code() == 0, process.log.read_text()
    again = asyncio.run(records_of(cluster, cluster.outputs.rejected, PARTITIONS))
    assert {n: len(of) for n, of in again.items()} == {n: len(of) for n, of in rejected.items()}
    assert_is_the_replay(cluster, PARTITIONS, asyncio.run(retold(cluster, PARTITIONS)))


Told = tuple[str, bytes | None, bytes | None]


def mixed(poison: dict[int, list[Poison]]) -> tuple[list[Sent], list[list[tuple[int, Told]]]]:
    """Return records in which good and bad are mixed, as many for each partition, and the rejected rows of each."""
    sent, expected = [], []

    def put(record: Sent, *rows: tuple[int, Told]) -> None:
        sent.append(record)
        expected.append(list(rows))

    for number in range(PARTITIONS):
        put(Sent(number, order(f"c-{number}", 1, amount="5.00")))
        put(Sent(number, order(f"c-{number}", 1, amount="5.00")))  # once more
        put(Sent(number, order(f"tenths-{number}", 1, amount=0).replace(b":0}", b":0.1}")))
        put(Sent(number, order(f"tenths-{number}", 2, amount=0).replace(b":0}", b":0.2}")))
        put(Sent(number, order(f"large-{number}", 1, note="x" * LARGE)))
        long = order(f"long-{number}", 1, event_id="e" * 400_000)
        put(Sent(number, long))
        put(Sent(number, long))
        items = [order(f"among-{number}", 1), b"[5]", order(f"among-{number}", 2, amount="x"), b"{}"]
        items += [order(f"among-{number}", 3), order(f"among-{number}", 4)]
        put(
            Sent(number, b"[" + b" , ".join(items) + b"]", b"array"),
            (1, ("malformed", b"array", items[1])),
            (2, ("bad_amount", b"array", items[2])),
            (3, ("missing_customer_id", b"array", items[3])),
        )
        for at, (reason, value, headers) in enumerate(poison[number]):
            key = None if at % 3 and value is not None else b"\xff key %d" % at
            put(Sent(number, value, key, headers), (0, (reason, key, value)))
            put(Sent(number, order(f"c{at % 7}-{number}", at)))
        for filler in range(max(map(len, poison.values())) - len(poison[number])):
            put(Sent(number, order(f"filler-{number}", filler)))
            put(Sent(number, order(f"filler-{number}", filler, type="cancelled")))
        put(Sent(number, order(f"tenths-{number}", 3, amount=1000)))
    return sent, expected


def is_array(record: Sent) -> bool:
    return record.key == b"array"


def cut(value: bytes | None) -> tuple[bytes | None, int | None]:
    """Return what is kept of a value, and how long it was if that is not all of it."""
    if value is None or len(value) < REJECTED_BYTES_MAX // 2:
        return value, None
    return value[:1000], len(value)


def described(record: ConsumerRecord, partition: int, topic: str) -> tuple[Any, ...]:
    headers = dict(record.headers)
    assert headers["rfm-topic"].decode() == topic
    assert headers["rfm-partition"].decode() == str(partition)
    value = record.value
    whole = headers.get("rfm-value-bytes")
    kept = (value, None)
    if whole is not None:
        assert REJECTED_BYTES_MAX * 0.9 < len(value) < REJECTED_BYTES_MAX
        kept = (value[:1000], int(whole))
    return (
        headers["rfm-reason"].decode(),
        record.key,
        kept,
        headers["rfm-offset"].decode(),
        headers["rfm-row"].decode(),
    )


async def send_with_foreign_header(cluster: Cluster) -> None:
    """Send three records, one of them with a header whose name is no UTF-8; brokers take it, as do some clients."""
    values = {b"before": order("foreign-0", 1), b"foreign": b"{", b"after": order("foreign-0", 2)}
    names = {b"before": b"a", b"foreign": b"\xff\xfe", b"after": b"b"}
    parts = [
        sized(key) + sized(value) + varint(1) + sized(names[key]) + sized(b"\x00")
        for key, value in values.items()
    ]
    sizes = np.array(list(map(len, parts)))
    data = np.frombuffer(b"".join(parts) + bytes(LINE_BYTES), np.uint8)
    records = EncodedRecords(data, np.cumsum(sizes) - sizes, sizes)
    place = TopicPartition(cluster.orders, 0)
    batches = [
        (place, batch)
        for compression in (None, "gzip")
        for batch in record_batches(
            records, timestamp_ms=time.time_ns() // 1_000_000, compression=compression
        )
    ]
    producer = TransactionalProducer(cluster.config().client, f"{cluster.name}/foreign", timeout_ms=60_000)
    try:
        await producer.start()
        await producer.begin([place], cluster.name)
        await producer.write(batches)
        await producer.commit()
    finally:
        await producer.close()


@pytest.mark.deep
def test_a_fetch_that_holds_far_more_than_its_size_is_read_in_parts(cluster: Cluster, tmp_path: Path) -> None:
    """Megabytes of spaces, which are some hundred bytes while they are compressed."""
    values = [order(f"c{number % 7}", number) for number in range(100)]
    padded = [value[:-1] + b" " * 1_000_000 + value[-1:] for value in values]
    assert sum(map(len, padded)) > 2 * READ_BYTES_MAX

    async def prepare() -> None:
        await cluster.create(cluster.orders, 1)
        producer = AIOKafkaProducer(
            bootstrap_servers=cluster.bootstrap,
            compression_type="zstd",
            max_batch_size=8 << 20,
            max_request_size=16 << 20,
            linger_ms=50,
        )
        await producer.start()
        try:
            await asyncio.gather(
                *[await producer.send(cluster.orders, value, partition=0) for value in padded]
            )
        finally:
            await producer.stop()

    asyncio.run(prepare())
    flags = flags_of(cluster, tmp_path / "state", clock="event", until_end=True)
    with worker(flags, tmp_path / "log") as process:
        assert process.exit_code() == 0, process.log.read_text()
    assert all(" INFO " in line for line in process.log.read_text().splitlines()), process.log.read_text()
    expected = asyncio.run(retold(cluster, 1, clock="event"))
    assert expected
    assert_is_the_replay(cluster, 1, expected)


def zstd_of(parts: Iterable[bytes]) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        for part in parts:
            stream.write(part)
    packed: bytes = sink.getvalue().to_pybytes()
    return packed


def zstd_bomb(records: int, value_bytes: int, at_ms: int) -> RecordBatch:
    """Return a batch of records of spaces, made without ever having them."""
    piece = b" " * (8 << 20)

    def parts() -> Iterable[bytes]:
        for number in range(records):
            beginning = b"\0" + varint(0) + varint(number) + varint(-1) + varint(value_bytes)
            yield varint(len(beginning) + value_bytes + 1) + beginning
            for start in range(0, value_bytes, len(piece)):
                yield piece[: value_bytes - start]
            yield varint(0)

    sent = zstd_of(parts())
    attributes = TRANSACTIONAL | 4
    length = HEADER.size + len(sent) - BEFORE_LENGTH
    head = HEADER.pack(0, length, -1, 2, 0, attributes, records - 1, at_ms, at_ms, -1, -1, -1, records)
    return RecordBatch(bytearray(head), sent, records)


def test_a_batch_that_holds_gigabytes_is_one_rejected_row(cluster: Cluster, tmp_path: Path) -> None:
    now_ms = time.time_ns() // 1_000_000
    bomb = zstd_bomb(60, 100 << 20, now_ms)
    assert bomb.size() < 600_000
    flags = flags_of(cluster, tmp_path / "state", listen="127.0.0.1:0")
    place = TopicPartition(cluster.orders, 0)

    async def send_bomb() -> None:
        producer = TransactionalProducer(cluster.config().client, f"{cluster.name}/bomb", timeout_ms=60_000)
        try:
            await producer.start()
            await producer.begin([place], cluster.name)
            await producer.write([(place, bomb)])
            await producer.commit()
        finally:
            await producer.close()

    asyncio.run(cluster.create(cluster.orders, 1))
    before = [Sent(0, order(f"c{number % 3}", number)) for number in range(20)]
    after = [Sent(0, order(f"c{number % 3}", number)) for number in range(20, 40)]
    with worker(flags, tmp_path / "log") as process:
        process.wait_for("partitions assigned")
        asyncio.run(send_records(cluster, before))
        wait_until(lambda: metrics_of(process)["rfmstream_orders_applied_total"].total() == 20, process)
        calm_bytes = process.memory_bytes_max()
        asyncio.run(send_bomb())
        asyncio.run(send_records(cluster, after))
        wait_until(lambda: metrics_of(process)["rfmstream_orders_applied_total"].total() == 40, process)
        assert process.memory_bytes_max() - calm_bytes < 400 << 20
        process.terminate()
        assert process.exit_code() == 0, process.log.read_text()
    assert "fenced" not in process.log.read_text()
    [rejected] = asyncio.run(records_of(cluster, cluster.outputs.rejected, 1))[0]
    headers = dict(rejected.headers)
    assert (headers["rfm-reason"], headers["rfm-offset"], headers["rfm-row"]) == (b"malformed", b"79", b"0")
    assert rejected.value == refusal(20, 79)
    changes = asyncio.run(records_of(cluster, cluster.outputs.changes, 1))[0]
    assert {orjson.loads(record.value)["customer_id"] for record in changes} == {"c0", "c1", "c2"}


def test_a_record_that_ended_a_worker_once_is_passed_at_the_second_try(
    cluster: Cluster, tmp_path: Path
) -> None:
    """The worker as the command runs it, with a fault in it that a site of Python's brings."""
    root = Path(__file__).resolve().parents[2]
    flags = flags_of(cluster, tmp_path / "state")
    named = [word for name, value in flags.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(root / "tests" / "support" / "faults"), str(root)]),
        "RFM_FAULT": "SIGSEGV",
    }
    asyncio.run(cluster.create(cluster.orders, 1))
    asyncio.run(send_records(cluster, [Sent(0, order("before", number)) for number in range(5)]))

    def started(name: str) -> subprocess.Popen[bytes]:
        log = (tmp_path / name).open("wb")
        command = [sys.executable, "-m", "rfmstream", "worker", *named]
        return subprocess.Popen(command, env=environment, stderr=log, cwd=tmp_path)

    def changed() -> set[str]:
        changes = asyncio.run(records_of(cluster, cluster.outputs.changes, 1))[0]
        return {orjson.loads(record.value)["customer_id"] for record in changes}

    def wait_for(customer: str, process: subprocess.Popen[bytes], log: str) -> None:
        give_up = time.monotonic() + 240
        while customer not in changed():
            assert process.poll() is None, (tmp_path / log).read_text()
            assert time.monotonic() < give_up, (tmp_path / log).read_text()
            time.sleep(0.5)

    first = started("first")
    try:
        wait_for("before", first, "first")
        poison = order("poison", 1)
        around = [Sent(0, order("beside", 1)), Sent(0, poison, b"its key"), Sent(0, order("behind", 1))]
        asyncio.run(send_records(cluster, around))
        assert first.wait(240) == -signal.SIGSEGV
        second = started("second")
        try:
            wait_for("behind", second, "second")
            asyncio.run(send_records(cluster, [Sent(0, order("later", 1))]))
            wait_for("later", second, "second")
            second.terminate()
            assert second.wait(60) == 0, (tmp_path / "second").read_text()
        finally:
            second.kill()
    finally:
        first.kill()
    assert changed() == {"before", "beside", "behind", "later"}
    [rejected] = asyncio.run(records_of(cluster, cluster.outputs.rejected, 1))[0]
    headers = dict(rejected.headers)
    assert (rejected.key, rejected.value) == (b"its key", poison)
    assert (headers["rfm-reason"], headers["rfm-offset"]) == (b"malformed", b"6")
    assert "a record ended the worker and is left out" in (tmp_path / "second").read_text()
