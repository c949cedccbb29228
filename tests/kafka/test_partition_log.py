"""A partition's log on a real broker: whole transactions or nothing, one owner, and what happens in between."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TypeVar

import orjson
import pyarrow as pa
import pytest
from kafka_cluster import Broker, Cluster

from engine.engine import Engine
from engine.generate import generate_batches
from engine.live.encode import Encoder
from engine.live.kafka.output import KafkaPartitionLog
from engine.live.kafka.topics import prepare_topics
from engine.live.model import Bounds, Committed, FencedError, Rejection, Source, Step, Tick
from schemas.changes import CHANGE_SCHEMA
from schemas.errors import TransportError
from schemas.ruleset import load_ruleset

_T = TypeVar("_T")

RULESET = load_ruleset("rfm8")
NOTHING = CHANGE_SCHEMA.empty_table()


async def in_thread(call: Callable[[], _T]) -> _T:
    return await asyncio.to_thread(call)


def log_of(cluster: Cluster, partition: int = 0, *, app_id: str | None = None) -> KafkaPartitionLog:
    return KafkaPartitionLog(
        Source(cluster.orders, partition),
        client=cluster.config().client,
        app_id=app_id or cluster.name,
        outputs=cluster.outputs,
        encoder=Encoder(RULESET, source="/test"),
        run=in_thread,
    )


def some_changes(customers: int = 300, orders: int = 1000) -> pa.Table:
    engine = Engine(RULESET)
    batches = generate_batches(customers=customers, orders=orders, seed=1)
    return pa.concat_tables([engine.step(batch).changes for batch in batches])


def run_on(cluster: Cluster, test: Callable[[], Awaitable[_T]], partitions: int = 2) -> _T:
    async def run() -> _T:
        await cluster.create(cluster.orders, partitions)
        await prepare_topics(cluster.config())
        return await test()

    return asyncio.run(run())


def rejection(offset: int) -> Rejection:
    return Rejection("malformed", b"key", b"{", offset, 0, 1_000_000)


def test_a_step_is_there_as_a_whole_and_once(cluster: Cluster) -> None:
    changes = some_changes()
    rejections = [rejection(5), rejection(6)]

    async def test() -> None:
        log = log_of(cluster, 1)
        assert await log.open() == Committed(None, "")
        assert await log.bounds() == Bounds(0, 0)
        assert await log.ticks() == []
        await log.commit(Step(changes, rejections, 7, Tick(7, 123_456, "law")), "first")
        await log.commit(Step(NOTHING, [], 9), "second")
        assert await log.ticks() == [Tick(7, 123_456, "law")]
        await log.close()
        assert await log_of(cluster, 1).open() == Committed(9, "second")
        assert await log_of(cluster, 0).open() == Committed(None, "")

        written = await cluster.committed_records(cluster.outputs.changes, [0, 1])
        assert {record.partition for record in written} == {1}
        sent = Encoder(RULESET, source="/test").changes(changes)
        assert [(r.key, r.value, list(r.headers)) for r in written] == [tuple(record) for record in sent]
        current = await cluster.committed_records(cluster.outputs.current, [0, 1])
        assert Counter(record.key for record in current) == dict.fromkeys((r.key for r in written), 1)
        last = {record.key: record.value for record in written}
        assert {record.key: record.value for record in current} == last
        rejected = await cluster.committed_records(cluster.outputs.rejected, [0, 1])
        assert [(r.key, r.value, dict(r.headers)["rfm-offset"]) for r in rejected] == [
            (b"key", b"{", b"5"),
            (b"key", b"{", b"6"),
        ]

    run_on(cluster, test)


def test_a_step_of_many_megabytes_is_one_transaction(cluster: Cluster) -> None:
    changes = some_changes(20_000, 60_000)

    async def test() -> None:
        log = log_of(cluster)
        await log.open()
        await log.commit(Step(changes, [], 1), "large")
        await log.close()
        written = await cluster.committed_records(cluster.outputs.changes, [0])
        assert sum(len(record.value) for record in written) > 8 << 20
        assert [orjson.loads(r.value)["customer_id"] for r in written] == changes["customer_id"].to_pylist()

    run_on(cluster, test)


def test_who_opens_a_log_fences_whoever_had_it(cluster: Cluster) -> None:
    async def test() -> None:
        first, second = log_of(cluster), log_of(cluster)
        await first.open()
        await first.commit(Step(NOTHING, [rejection(0)], 1), "first's")
        assert await second.open() == Committed(1, "first's")
        with pytest.raises(FencedError):
            await first.commit(Step(NOTHING, [rejection(1)], 2), "too late")
        with pytest.raises(TransportError):
            # A producer that has failed knows nothing any more: its owner has to open the log again.
            await first.commit(Step(NOTHING, [rejection(1)], 2), "too late")
        await second.commit(Step(NOTHING, [rejection(2)], 3), "second's")
        await first.close()
        await second.close()
        assert await log_of(cluster).open() == Committed(3, "second's")
        rejected = await cluster.committed_records(cluster.outputs.rejected, [0])
        assert [dict(record.headers)["rfm-offset"] for record in rejected] == [b"0", b"2"]

    run_on(cluster, test)


def test_what_an_owner_left_open_is_never_seen(cluster: Cluster) -> None:
    async def test() -> None:
        first, second = log_of(cluster), log_of(cluster)
        await first.open()
        producer = first._opened()
        await producer.begin_transaction()
        await first._send(producer, Step(some_changes(), [rejection(0)], 1, Tick(1, 1)), "left open")
        assert await second.open() == Committed(None, "")
        assert await second.ticks() == []
        await first.close()
        await second.close()
        for topic in (cluster.outputs.changes, cluster.outputs.rejected):
            assert await cluster.committed_records(topic, [0]) == []

    run_on(cluster, test)


def test_workers_of_another_app_have_ticks_and_offsets_of_their_own(cluster: Cluster) -> None:
    async def test() -> None:
        one, other = log_of(cluster), log_of(cluster, app_id=f"{cluster.name}-other")
        await one.open()
        await one.commit(Step(NOTHING, [], 5, Tick(5, 50)), "one's")
        assert await other.open() == Committed(None, "")
        assert await other.ticks() == []
        await other.commit(Step(NOTHING, [], 6, Tick(6, 60)), "other's")
        assert await one.ticks() == [Tick(5, 50)]
        assert await one.open() == Committed(5, "one's")
        await one.close()
        await other.close()

    run_on(cluster, test)


def test_bounds_end_with_what_is_committed(cluster: Cluster) -> None:
    async def test() -> None:
        await cluster.send([(0, b"k", b"v"), (0, b"k", b"v"), (1, b"k", b"v")])
        log = log_of(cluster)
        await log.open()
        assert await log.bounds() == Bounds(0, 2)
        await log.close()

    run_on(cluster, test)


def test_a_commit_without_a_broker_is_unknown_and_told_by_the_next_open(own_broker: Broker) -> None:
    cluster = Cluster(own_broker.bootstrap, "restart")

    async def test() -> None:
        log = log_of(cluster)
        await log.open()
        await log.commit(Step(NOTHING, [rejection(0)], 1), "before")
        await in_thread(own_broker.stop)
        pending = asyncio.create_task(log.commit(Step(NOTHING, [rejection(1)], 2), "during"))
        await asyncio.wait([pending], timeout=2)
        assert not pending.done(), "it is ridden out"
        await in_thread(own_broker.start)
        try:
            await pending
            expected = Committed(2, "during")
        except TransportError:
            expected = Committed(1, "before")
        committed = await log.open()
        assert committed in (expected, Committed(2, "during"))
        if committed.position == 1:
            await log.commit(Step(NOTHING, [rejection(1)], 2), "again")
        await log.close()
        rejected = await cluster.committed_records(cluster.outputs.rejected, [0])
        assert [dict(record.headers)["rfm-offset"] for record in rejected] == [b"0", b"1"]

    run_on(cluster, test)
