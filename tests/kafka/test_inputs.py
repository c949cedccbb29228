"""Several input topics as one population: the order they are read in is written down, and told as one log is."""

import asyncio
import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import orjson
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from kafka_cluster import Cluster
from kafka_logs import wait_until
from kafka_workers import flags_of, worker

from rfmstream.engine.core.engine import Engine
from rfmstream.engine.live.decode import Decoder
from rfmstream.engine.live.encode import Encoder
from rfmstream.engine.live.interleaving import Interleaving, OrderNote
from rfmstream.engine.live.kafka.app_moves import copy_app, reset_app
from rfmstream.engine.live.kafka.app_state import App, list_apps, state_of
from rfmstream.engine.live.kafka.check import check_worker
from rfmstream.engine.live.model import RawRecords, Source, Tick
from rfmstream.engine.live.partition import Partition
from rfmstream.engine.live.placement import places_of
from rfmstream.engine.live.store import Store
from rfmstream.schemas.ruleset import load_ruleset

PARTITIONS = 3
KINDS = ("web", "pos", "refunds")
DAY_MS = 86_400_000
NOTHING: Mapping[tuple[str, int, int], Any] = MappingProxyType({})


class Sent(NamedTuple):
    """A record of one of the topics."""

    kind: str
    partition: int
    key: bytes
    value: bytes
    timestamp_ms: int


def topics_of(cluster: Cluster) -> dict[str, str]:
    return {kind: f"{cluster.name}.{kind}" for kind in KINDS}


def history(count: int, days: int, until_ms: int, seed: int = 5) -> list[Sent]:
    """Return records of three topics in order of time: orders here and there, refunds of both in a third."""
    rng = random.Random(seed)  # noqa: S311
    orders: list[tuple[str, str]] = []
    sent = []
    for number in range(count):
        at_ms = until_ms - days * DAY_MS + days * DAY_MS * number // count
        if orders and rng.random() < 0.2:
            customer, order = rng.choice(orders[-200:])
            kind, row = "refunds", {"order_id": order, "type": "refunded", "amount": "1.00"}
        else:
            customer, order = f"c{rng.randrange(count // 6)}", f"o{number}"
            kind, row = (
                rng.choice(KINDS[:2]),
                {"order_id": order, "amount": f"{rng.choice([5, 400, 900])}.00"},
            )
        when = datetime.fromtimestamp(at_ms / 1000, UTC).isoformat()
        value = orjson.dumps({"customer_id": customer, "occurred_at": when, **row})
        if rng.random() < 0.02:
            value = b"{no order"
        elif kind != "refunds":
            orders.append((customer, order))
        [partition] = places_of([customer.encode()], PARTITIONS).tolist()
        sent.append(Sent(kind, partition, customer.encode(), value, at_ms))
    return sent


async def send_to(cluster: Cluster, topics: dict[str, str], rows: Sequence[Sent]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=cluster.bootstrap, enable_idempotence=True)
    await producer.start()
    try:
        waiting = [
            await producer.send(
                topics[row.kind],
                row.value,
                key=row.key,
                partition=row.partition,
                timestamp_ms=row.timestamp_ms,
            )
            for row in rows
        ]
        await asyncio.gather(*waiting)
    finally:
        await producer.stop()


def prepare(cluster: Cluster) -> dict[str, str]:
    topics = topics_of(cluster)

    async def create() -> None:
        for topic in topics.values():
            options = {"retention_ms": "-1", "message_timestamp_after_max_ms": str(90 * DAY_MS)}
            await cluster.create(topic, PARTITIONS, **options)

    asyncio.run(create())
    return topics


def committed(cluster: Cluster, topic: str) -> list[Any]:
    return asyncio.run(cluster.committed_records(topic, range(PARTITIONS)))


def written_order(cluster: Cluster, topics: dict[str, str]) -> dict[int, list[tuple[str, int]]]:
    """Return, of each partition, the topic and offset of each record in the order that the clock topic tells."""
    notes: dict[int, list[OrderNote]] = defaultdict(list)
    key = f"{cluster.name}/{'+'.join(sorted(topics.values()))}".encode()
    for record in committed(cluster, cluster.outputs.clock):
        assert record.key == key
        noted = orjson.loads(record.value)
        if "order" in noted:
            notes[record.partition].append(OrderNote.of(noted["order"]))
    found = {}
    for number, own in notes.items():
        order = Interleaving.read(own)
        ordinals, offsets = order.records_at(range(order.begin, order.end))
        found[number] = [
            (own[0].topics[ordinal], offset)
            for ordinal, offset in zip(ordinals.tolist(), offsets.tolist(), strict=True)
        ]
    return found


def records_of(cluster: Cluster, topics: dict[str, str]) -> dict[tuple[str, int, int], Any]:
    return {
        (record.topic, record.partition, record.offset): record
        for topic in topics.values()
        for record in committed(cluster, topic)
    }


def in_written_order(
    cluster: Cluster, topics: dict[str, str], gone: Mapping[tuple[str, int, int], Any] = NOTHING
) -> list[Sent]:
    """Return all records as the one log that the workers say they have read.

    In      gone  records that were read and are not there any more
    """
    records = {**gone, **records_of(cluster, topics)}
    rows = [
        Sent("merged", number, record.key, record.value, record.timestamp)
        for number, places in written_order(cluster, topics).items()
        for topic, offset in places
        if (record := records.pop((topic, number, offset), None)) is not None
    ]
    assert not records, "every record is in the order"
    return rows


def told(cluster: Cluster) -> Counter[bytes | None]:
    return Counter(record.value for record in committed(cluster, cluster.outputs.changes))


def rejected(cluster: Cluster, joined: str | None = None) -> Counter[tuple[bytes, str]]:
    """Return what was rejected, without what a view that joined rejects by itself: of several topics it is not told."""
    return Counter(
        (record.value, headers["rfm-reason"].decode())
        for record in committed(cluster, cluster.outputs.rejected)
        for headers in (dict(record.headers),)
        if joined is None or headers.get("rfm-views") != joined.encode()
    )


def assert_told_as_one_log(
    cluster: Cluster,
    topics: dict[str, str],
    tmp_path: Path,
    *before: dict[str, object],
    gone: Mapping[tuple[str, int, int], Any] = NOTHING,
    joined: str | None = None,
    **flags: object,
) -> None:
    """Compare what was told of the topics with what a worker tells of one topic with the same records in that order.

    joined  the view that joins in the last run
    """
    rows = in_written_order(cluster, topics, gone)
    one = replace(cluster, name=f"{cluster.name}one")
    options = {"retention_ms": "-1", "message_timestamp_after_max_ms": str(90 * DAY_MS)}
    asyncio.run(one.create(one.orders, PARTITIONS, **options))
    asyncio.run(send_to(one, {"merged": one.orders}, rows))
    for number, each in enumerate(before):
        with worker(flags_of(one, tmp_path / "one", **each), tmp_path / f"one-{number}.log") as process:
            assert process.exit_code() == 0, process.log.read_text()
    with worker(flags_of(one, tmp_path / "one", **flags), tmp_path / "one.log") as process:
        if flags.get("until_end"):
            assert process.exit_code() == 0, process.log.read_text()
        else:
            read_to(process, one, {"merged": one.orders})
            process.terminate()
            assert process.exit_code() == 0, process.log.read_text()
    assert told(cluster) == told(one)
    assert rejected(cluster, joined) == rejected(one, joined)
    seqs: dict[tuple[str, str], list[int]] = defaultdict(list)
    for record in committed(cluster, cluster.outputs.changes):
        change = orjson.loads(record.value)
        seqs[change["view"], change["customer_id"]].append(change["seq"])
    assert all(own == list(range(1, len(own) + 1)) for own in seqs.values()), "each once, and in order"


def offsets_of(cluster: Cluster, topics: dict[str, str]) -> dict[TopicPartition, int]:
    """Return what the group has committed."""

    async def ask() -> dict[TopicPartition, int]:
        admin = AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap)
        await admin.start()
        try:
            found = await admin.list_consumer_group_offsets(cluster.name)
        finally:
            await admin.close()
        return {place: told.offset for place, told in found.items() if place.topic in topics.values()}

    return asyncio.run(ask())


def assert_told_as_repeated(cluster: Cluster, topics: dict[str, str]) -> int:
    """Compare what was told with what the records tell in the written order with the notes of time; return how many."""
    rows = in_written_order(cluster, topics)
    ruleset = load_ruleset("rfm8-annual", currency="USD")
    ticks: dict[int, list[Tick]] = defaultdict(list)
    begins: dict[int, int] = {}
    for record in committed(cluster, cluster.outputs.clock):
        noted = orjson.loads(record.value)
        if "order" in noted:
            begins.setdefault(record.partition, sum(noted["order"]["begins"]))
        else:
            ticks[record.partition].append(Tick(**noted))
    repeated = []
    for number in range(PARTITIONS):
        own = [row for row in rows if row.partition == number]
        # No topic has a gap, so the place of a record is its number in the order.
        records = RawRecords(
            keys=[row.key for row in own],
            values=[row.value for row in own],
            headers=[()] * len(own),
            timestamps_ms=[row.timestamp_ms for row in own],
            offsets=list(range(begins[number], begins[number] + len(own))),
            position=begins[number] + len(own),
        )
        engine = Engine(ruleset)
        partition = Partition(engine, clock="log", tolerance_us=300_000_000, position=begins[number])
        partition.state.use_mode("live")
        partition.caps = [tick for tick in ticks[number] if tick.until is not None]
        partition.repeated = lambda step: repeated.append(step.changes)
        passing = [tick for tick in ticks[number] if tick.until is None and tick.clock_us >= 0]
        batch = Decoder(currency="USD").decode(records)
        done = partition.repeat(batch, 0, len(own), passing)
        for tick in passing[done:]:
            partition.repeat_tick(tick)
    values = Counter(
        record.value for table in repeated for record in Encoder(ruleset, source="/test").changes(table)
    )
    assert told(cluster) == values
    return sum(tick.until is None and tick.clock_us >= 0 for own in ticks.values() for tick in own)


def read_to(process: Any, cluster: Cluster, topics: dict[str, str]) -> None:  # noqa: ANN401
    """Wait until all that is in the topics is committed."""
    places = [TopicPartition(topic, number) for topic in topics.values() for number in range(PARTITIONS)]
    ends = asyncio.run(cluster.ends(places))
    wanted = {place: end for place, end in ends.items() if end}

    def is_there() -> bool:
        assert process.is_alive, process.log.read_text()
        found = offsets_of(cluster, topics)
        return all(found.get(place, 0) >= end for place, end in wanted.items())

    wait_until(is_there, process)


@pytest.mark.parametrize("clock", ["log", "event"])
def test_three_topics_with_kills_and_a_rebalance_are_told_as_one_log(
    cluster: Cluster, tmp_path: Path, clock: str
) -> None:
    topics = prepare(cluster)
    now_ms = time.time_ns() // 1_000_000
    # A clock here and there is wrong.
    rows = [
        row._replace(timestamp_ms=now_ms + 40 * DAY_MS) if at % 500 == 499 else row
        for at, row in enumerate(history(9_000, 90, now_ms))
    ]
    flags = flags_of(
        cluster,
        tmp_path / "state",
        input_topics=",".join(topics.values()),
        checkpoint_interval_s=1,
        clock=clock,
    )
    pieces = np.array_split(np.arange(len(rows)), 30)
    rng = random.Random(3)  # noqa: S311

    def send_pieces(count: int) -> None:
        for _ in range(count):
            piece = pieces.pop(0)
            asyncio.run(send_to(cluster, topics, [rows[at] for at in piece]))

    send_pieces(6)
    for number in range(3):
        with worker(flags, tmp_path / f"killed-{number}") as process:
            process.wait_for("partition recovered")
            send_pieces(2)
            time.sleep(rng.choice([0.05, 0.4, 1.5]))
            process.kill()
        asyncio.run(cluster.expel(cluster.name))
    with worker(flags, tmp_path / "first") as first:
        first.wait_for("partitions assigned count=3")
        send_pieces(2)
        with worker(flags, tmp_path / "second") as second:
            second.wait_for("partitions assigned count=")
            send_pieces(4)
            first.kill()
            asyncio.run(cluster.expel(cluster.name))
            second.wait_for("partitions assigned count=3")
            send_pieces(len(pieces))
            read_to(second, cluster, topics)
            second.terminate()
            assert second.exit_code() == 0, second.log.read_text()
    order = written_order(cluster, topics)
    assert len(order) == PARTITIONS
    assert all(len({topic for topic, _ in own[:200]}) == len(KINDS) for own in order.values())
    if clock == "log":
        assert_told_as_repeated(cluster, topics)
        caps = [
            record.value for record in committed(cluster, cluster.outputs.clock) if b'"until"' in record.value
        ]
        assert caps, "what those records count as is noted"
    else:
        assert_told_as_one_log(cluster, topics, tmp_path, clock=clock)
    places = {
        (headers["rfm-topic"].decode(), record.partition)
        for record in committed(cluster, cluster.outputs.rejected)
        for headers in [dict(record.headers)]
    }
    assert {topic for topic, _ in places} == set(topics.values()), "each says the topic it came from"
    sent = {
        (record.topic, record.partition, record.offset): record.value
        for topic in topics.values()
        for record in committed(cluster, topic)
    }
    for record in committed(cluster, cluster.outputs.rejected):
        headers = {name: value.decode() for name, value in record.headers}
        place = headers["rfm-topic"], int(headers["rfm-partition"]), int(headers["rfm-offset"])
        assert sent[place] == record.value


def test_a_history_in_three_topics_is_read_in_order_of_time(cluster: Cluster, tmp_path: Path) -> None:
    topics = prepare(cluster)
    rows = history(3_000, 400, time.time_ns() // 1_000_000 - 10 * DAY_MS, seed=9)
    asyncio.run(send_to(cluster, topics, rows))
    run = {"clock": "event", "until_end": True}
    flags = flags_of(cluster, tmp_path / "state", input_topics=",".join(topics.values()), **run)
    with worker(flags, tmp_path / "log") as process:
        assert process.exit_code() == 0, process.log.read_text()
    for number in range(PARTITIONS):
        times = [row.timestamp_ms for row in in_written_order(cluster, topics) if row.partition == number]
        assert times == sorted(times)
    reasons = {reason for _, reason in rejected(cluster)}
    assert "unknown_order" not in reasons, "no refund came before its order"
    assert_told_as_one_log(cluster, topics, tmp_path, **run)


def test_an_open_transaction_in_one_topic_holds_the_clock_and_not_the_others(
    cluster: Cluster, tmp_path: Path
) -> None:
    topics = prepare(cluster)
    flags = flags_of(cluster, tmp_path / "state", input_topics=",".join(topics.values()))

    async def hold() -> AIOKafkaProducer:
        producer = AIOKafkaProducer(
            bootstrap_servers=cluster.bootstrap, transactional_id=f"{cluster.name}-open"
        )
        await producer.start()
        await producer.begin_transaction()
        now = datetime.now(UTC).isoformat()
        row = {"customer_id": "held", "order_id": "h", "amount": "5.00", "occurred_at": now}
        await producer.send_and_wait(topics["pos"], orjson.dumps(row), key=b"held", partition=0)
        return producer

    async def run() -> None:
        producer = await hold()
        try:
            now = datetime.now(UTC).isoformat()
            row = {"customer_id": "ann", "order_id": "1", "amount": "5.00", "occurred_at": now}
            await cluster.send([(0, b"ann", orjson.dumps(row))], topic=topics["web"])
            for _ in range(200):
                await asyncio.sleep(0.1)
                changes = await cluster.committed_records(cluster.outputs.changes, [0])
                if changes:
                    break
            assert [record.key for record in changes] == [b"ann"]
            await producer.commit_transaction()
        finally:
            await producer.stop()

    with worker(flags, tmp_path / "log") as process:
        process.wait_for("partitions assigned count=3")
        asyncio.run(run())
        wait_until(lambda: len(committed(cluster, cluster.outputs.changes)) == 2, process)
        process.terminate()
        assert process.exit_code() == 0, process.log.read_text()


@pytest.mark.parametrize(
    ("before", "after"), [(KINDS[:2], KINDS), (KINDS[:1], KINDS[:2]), (KINDS[:2], KINDS[:1])]
)
def test_other_topics_than_before_are_refused_by_name(
    cluster: Cluster, tmp_path: Path, before: tuple[str, ...], after: tuple[str, ...]
) -> None:
    topics = prepare(cluster)
    asyncio.run(send_to(cluster, topics, history(60, 30, time.time_ns() // 1_000_000)))
    named = [",".join(topics[kind] for kind in kinds) for kinds in (before, after)]
    flags = flags_of(cluster, tmp_path / "state", clock="event", until_end=True)
    with worker({**flags, "input_topics": named[0]}, tmp_path / "before") as process:
        assert process.exit_code() == 0, process.log.read_text()
    changes = told(cluster)
    for more in ({}, {"accept_gap": True}):
        with worker({**flags, "input_topics": named[1], **more}, tmp_path / f"after{len(more)}") as process:
            assert process.exit_code() == 2, process.log.read_text()
        last = process.log.read_text().splitlines()[-1]
        assert last.startswith("rfmstream: input_topics: ")
        assert ("by itself" in last) == (len(before) == 1)
        assert "begin anew with another app_id" in last
    # Named in another order they are the same topics.
    reversed_ = ",".join(reversed(named[0].split(",")))
    with worker({**flags, "input_topics": reversed_}, tmp_path / "again") as process:
        assert process.exit_code() == 0, process.log.read_text()
    assert told(cluster) == changes


def test_a_topic_whose_offset_is_reset_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    topics = prepare(cluster)
    asyncio.run(send_to(cluster, topics, history(300, 30, time.time_ns() // 1_000_000)))
    flags = flags_of(
        cluster, tmp_path / "state", input_topics=",".join(topics.values()), clock="event", until_end=True
    )
    with worker(flags, tmp_path / "log") as process:
        assert process.exit_code() == 0, process.log.read_text()
    changes = told(cluster)

    async def reset() -> None:
        place = TopicPartition(topics["web"], 0)
        consumer = AIOKafkaConsumer(
            bootstrap_servers=cluster.bootstrap, group_id=cluster.name, enable_auto_commit=False
        )
        await consumer.start()
        consumer.assign([place])
        await consumer.commit({place: 1})
        await consumer.stop()

    asyncio.run(reset())
    with worker(flags, tmp_path / "refused") as process:
        assert process.exit_code() == 4, process.log.read_text()
    assert "was set by something other than a worker" in process.log.read_text()
    with worker({**flags, "accept_gap": True}, tmp_path / "accepted") as process:
        assert process.exit_code() == 0, process.log.read_text()
    assert told(cluster) == changes
    asyncio.run(send_to(cluster, topics, history(300, 30, time.time_ns() // 1_000_000, seed=8)))
    with worker(flags, tmp_path / "on") as process:
        assert process.exit_code() == 0, process.log.read_text()
    assert_told_as_one_log(cluster, topics, tmp_path, clock="event", until_end=True)


def test_without_checkpoints_everything_is_read_again_in_the_same_order(
    cluster: Cluster, tmp_path: Path
) -> None:
    topics = prepare(cluster)
    flags = flags_of(cluster, tmp_path / "state", input_topics=",".join(topics.values()))
    rows = history(900, 60, time.time_ns() // 1_000_000 - 40 * DAY_MS)
    # Not by time: what comes after the first has been read is behind it.
    parts = [rows[600:], rows[:300], rows[300:600]]
    for number, part in enumerate(parts):
        asyncio.run(send_to(cluster, topics, part))
        with worker(
            {**flags, "checkpoints": str(tmp_path / f"state-{number}")}, tmp_path / f"log-{number}"
        ) as process:
            read_to(process, cluster, topics)
            # All have lapsed since.
            wait_until(
                lambda: b"recency_expired" in b"".join(value or b"" for value in told(cluster)), process
            )
            process.terminate()
            assert process.exit_code() == 0, process.log.read_text()
    assert assert_told_as_repeated(cluster, topics) > 0, "the wall clock has moved them"


def test_the_source_of_several_topics_has_their_names() -> None:
    source = Source.of(["web", "pos", "web"], 3)
    assert str(source) == "pos+web-3"
    assert source.parts == (Source("pos", 3), Source("web", 3))
    assert source.is_merged
    assert Source.of(["web"], 3) == Source("web", 3)
    assert not Source("web", 3).is_merged
    assert json.dumps(source) == '["pos+web", 3]'


def test_the_state_of_several_topics_is_shown_copied_and_reset(cluster: Cluster, tmp_path: Path) -> None:
    topics = prepare(cluster)
    trial = replace(cluster, name=f"{cluster.name}trial")
    flags = flags_of(
        cluster, tmp_path / "state", input_topics=",".join(topics.values()), clock="event", until_end=True
    )
    copy_flags = flags_of(
        trial,
        tmp_path / "copy",
        input_topics=flags["input_topics"],
        clock_topic=flags["clock_topic"],
        clock="event",
        until_end=True,
    )
    rows = history(600, 60, time.time_ns() // 1_000_000)
    asyncio.run(send_to(cluster, topics, rows[:400]))
    with worker(flags, tmp_path / "log") as process:
        assert process.exit_code() == 0, process.log.read_text()
    first = told(cluster)
    client = cluster.config().client
    app = App(
        client, cluster.name, cluster.outputs.clock, Store(str(tmp_path / "state"), app_id=cluster.name)
    )
    to = App(client, trial.name, cluster.outputs.clock, Store(str(tmp_path / "copy"), app_id=trial.name))
    state = asyncio.run(state_of(app))
    assert list(state.partitions) == [Source.of(topics.values(), number) for number in range(PARTITIONS)]
    for one in state.partitions.values():
        assert (one.committed, one.lag, one.is_foreign) == (one.end, 0, False)
        assert one.checkpoints[-1].offset == one.committed
        # The law alone: the order in which the topics were read is noted beside it, and passes no time.
        assert one.notes == 1
    [listed] = [
        one for one in asyncio.run(list_apps(client, app.clock_topic, app.store)) if one.app_id == app.app_id
    ]
    assert (listed.topics, listed.partitions, listed.lag) == (tuple(sorted(topics.values())), PARTITIONS, 0)
    assert listed.notes == PARTITIONS
    asyncio.run(copy_app(app, to, trial.outputs.current))
    asyncio.run(send_to(cluster, topics, rows[400:]))
    for each, log in ((flags, "on"), (copy_flags, "copied")):
        with worker(each, tmp_path / log) as process:
            assert process.exit_code() == 0, process.log.read_text()
    assert told(trial) == told(cluster) - first
    # Alone it is another app's, even for one that was copied.
    with worker({**copy_flags, "input_topics": topics["web"]}, tmp_path / "alone") as process:
        assert process.exit_code() == 2, process.log.read_text()
    asyncio.run(reset_app(app))
    with worker(flags, tmp_path / "anew") as process:
        assert process.exit_code() == 0, process.log.read_text()
    assert told(cluster).total() > len(told(cluster)), "all was told anew"


def test_the_check_of_several_topics(cluster: Cluster, tmp_path: Path) -> None:
    topics = prepare(cluster)
    config = cluster.config(input_topics=tuple(topics.values()), checkpoints=str(tmp_path))
    [found] = [one for one in asyncio.run(check_worker(config)) if one.what == "input topics"]
    assert found.verdict == "ok"
    assert found.found.endswith("read as one population")
    asyncio.run(cluster.create(f"{cluster.name}.more", PARTITIONS + 1))
    config = cluster.config(input_topics=(topics["web"], f"{cluster.name}.more"), checkpoints=str(tmp_path))
    [found] = [one for one in asyncio.run(check_worker(config)) if one.what == "input topics"]
    assert found.verdict == "wrong"
    assert f"{cluster.name}.more: {PARTITIONS + 1} partitions" in found.found
    assert "start a worker for it" in (found.fix or "")


def test_a_view_that_joins_reads_the_topics_in_the_order_of_the_others(
    cluster: Cluster, tmp_path: Path
) -> None:
    topics = prepare(cluster)
    rows = history(900, 300, time.time_ns() // 1_000_000)
    run: dict[str, object] = {"clock": "event", "until_end": True}
    flags = flags_of(cluster, tmp_path / "state", input_topics=",".join(topics.values()), **run)
    # Two stretches of history, the later one first: by time alone the order would be another one.
    for part, log in ((rows[500:], "first"), (rows[:500], "second")):
        asyncio.run(send_to(cluster, topics, part))
        with worker(flags, tmp_path / log) as process:
            assert process.exit_code() == 0, process.log.read_text()
    both = {"ruleset": "rfm8-annual,scores4", **run}
    with worker({**flags, **both}, tmp_path / "joined") as process:
        assert process.exit_code() == 0, process.log.read_text()
    assert "views have joined" in process.log.read_text()
    assert_told_as_one_log(cluster, topics, tmp_path, run, joined="scores4", **both)


def test_records_that_are_gone_in_one_topic_are_told_and_can_be_done_without(
    cluster: Cluster, tmp_path: Path
) -> None:
    topics = prepare(cluster)
    rows = history(900, 60, time.time_ns() // 1_000_000)
    flags = flags_of(
        cluster, tmp_path / "state", input_topics=",".join(topics.values()), clock="event", until_end=True
    )
    asyncio.run(send_to(cluster, topics, rows[:300]))
    with worker(flags, tmp_path / "log") as process:
        assert process.exit_code() == 0, process.log.read_text()
    applied = records_of(cluster, topics)
    asyncio.run(send_to(cluster, topics, rows[300:600]))
    gone = TopicPartition(topics["pos"], 1)
    end = asyncio.run(cluster.ends([gone]))[gone]

    async def delete() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap)
        await admin.start()
        try:
            await admin.delete_records({gone: RecordsToDelete(end - 2)})
        finally:
            await admin.close()

    changes = told(cluster)
    asyncio.run(delete())
    with worker(flags, tmp_path / "refused") as process:
        assert process.exit_code() == 4, process.log.read_text()
    assert "records up to" in process.log.read_text().splitlines()[-1]
    with worker({**flags, "accept_gap": True}, tmp_path / "accepted") as process:
        assert process.exit_code() == 0, process.log.read_text()
    assert told(cluster) > changes
    asyncio.run(send_to(cluster, topics, rows[600:]))
    with worker(flags, tmp_path / "on") as process:
        assert process.exit_code() == 0, process.log.read_text()
    assert_told_as_one_log(cluster, topics, tmp_path, gone=applied, clock="event", until_end=True)
