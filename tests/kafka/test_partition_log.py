"""A partition's log on a real broker: whole transactions or nothing, one owner, and what happens in between."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import orjson
import pyarrow as pa
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import InvalidProducerEpoch
from aiokafka.structs import OffsetAndMetadata
from kafka_cluster import Broker, Cluster

from rfmstream.engine.core.engine import Engine
from rfmstream.engine.live.encode import Encoder
from rfmstream.engine.live.kafka.membership import Membership
from rfmstream.engine.live.kafka.output import KafkaPartitionLog
from rfmstream.engine.live.kafka.topics import prepare_topics
from rfmstream.engine.live.kafka.transactions import Transactions
from rfmstream.engine.live.model import Bounds, Committed, FencedError, Rejection, Source, Step, Tick
from rfmstream.engine.replay.generate import generate_batches
from rfmstream.schemas.changes import CHANGE_SCHEMA
from rfmstream.schemas.errors import TransportError
from rfmstream.schemas.ruleset import load_ruleset

_T = TypeVar("_T")

RULESET = load_ruleset("rfm8")
NOTHING = CHANGE_SCHEMA.empty_table()


async def in_thread(call: Callable[[], _T], *, small: bool = False) -> _T:  # noqa: ARG001
    return await asyncio.to_thread(call)


class Owner:
    """A worker's transactions, and logs that take part in them."""

    def __init__(self, cluster: Cluster, app_id: str | None = None) -> None:
        self._cluster = cluster
        self.app_id = app_id or cluster.name
        self.transactions = Transactions(cluster.config().client, self.app_id)

    def log(self, partition: int = 0) -> KafkaPartitionLog:
        return KafkaPartitionLog(
            Source(self._cluster.orders, partition),
            transactions=self.transactions,
            client=self._cluster.config().client,
            app_id=self.app_id,
            outputs=self._cluster.outputs,
            encoder=Encoder(RULESET, source="/test"),
            run=in_thread,
        )

    async def leave_open(self, step: Step, *, position: bool = True) -> None:
        """Write a step and its position, and end neither this transaction nor its producer."""
        log, producer = self.log(), await self.transactions._producer(0)
        batches = [each for part in log._parts(step) for each in part]
        if step.tick is not None:
            batches.append((log._clock, log._batch_of(step.tick.noted())))
        await producer.begin([place for place, _ in batches], self.app_id)
        await producer.write(batches)
        if position:
            offsets = {log._inputs[0]: OffsetAndMetadata(step.position, "left open")}
            await producer.commit_offsets(offsets, self.app_id, self.transactions.member)


@asynccontextmanager
async def owner_of(cluster: Cluster, app_id: str | None = None) -> AsyncIterator[Owner]:
    owner = Owner(cluster, app_id)
    try:
        yield owner
    finally:
        await owner.transactions.close()


@asynccontextmanager
async def member_of(cluster: Cluster) -> AsyncIterator[AIOKafkaConsumer]:
    """Join the group of the cluster's application."""
    consumer = AIOKafkaConsumer(
        cluster.orders,
        bootstrap_servers=cluster.bootstrap,
        group_id=cluster.name,
        enable_auto_commit=False,
        heartbeat_interval_ms=100,
    )
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


def membership_of(consumer: AIOKafkaConsumer) -> Membership:
    return Membership(consumer._coordinator.generation, consumer._coordinator.member_id)


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
        async with owner_of(cluster) as owner, owner_of(cluster) as other:
            log = owner.log(1)
            assert await log.open() == Committed(None, "")
            assert await log.bounds() == Bounds(0, 0)
            assert await log.ticks() == []
            await log.commit(Step(changes, rejections, 7, Tick(7, 123_456, "law")), "first")
            await log.commit(Step(NOTHING, [], 9), "second")
            assert await log.ticks() == [Tick(7, 123_456, "law")]
            mark = log.mark
            assert await other.log(1).ticks(mark) == []
            await log.commit(Step(NOTHING, [], 9, Tick(9, 223_456)), "third")
            assert await other.log(1).ticks(mark) == [Tick(9, 223_456)]
            assert await other.log(1).ticks(log.mark) == []
            # An offset that is not there yet, as in a topic that was made anew: all of them.
            assert len(await other.log(1).ticks(log.mark + 9)) == 2
            await log.close()
            assert await other.log(1).open() == Committed(9, "third")
            assert await other.log(0).open() == Committed(None, "")

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
        async with owner_of(cluster) as owner:
            log = owner.log()
            await log.open()
            await log.commit(Step(changes, [], 1), "large")
        written = await cluster.committed_records(cluster.outputs.changes, [0])
        assert sum(len(record.value) for record in written) > 8 << 20
        assert [orjson.loads(r.value)["customer_id"] for r in written] == changes["customer_id"].to_pylist()

    run_on(cluster, test)


def test_steps_of_many_partitions_go_together_and_each_once(cluster: Cluster) -> None:
    partitions, steps = 5, 20

    async def test() -> None:
        async with owner_of(cluster) as owner:

            async def work(partition: int) -> None:
                log = owner.log(partition)
                assert await log.open() == Committed(None, "")
                for number in range(1, steps + 1):
                    await log.commit(Step(NOTHING, [rejection(number)], number), f"{partition}/{number}")

            await asyncio.gather(*map(work, range(partitions)))
        async with owner_of(cluster) as owner:
            for partition in range(partitions):
                assert await owner.log(partition).open() == Committed(steps, f"{partition}/{steps}")
        rejected = await cluster.committed_records(cluster.outputs.rejected, list(range(partitions)))
        found = {number: [] for number in range(partitions)}
        for record in rejected:
            found[record.partition].append(int(dict(record.headers)["rfm-offset"]))
        assert found == {number: list(range(1, steps + 1)) for number in range(partitions)}

    run_on(cluster, test, partitions)


def test_once_the_group_has_moved_on_its_old_members_commit_no_more(cluster: Cluster) -> None:
    async def test() -> None:
        async with owner_of(cluster) as first, owner_of(cluster) as second, member_of(cluster) as one:
            first.transactions.member = membership_of(one)
            log, neighbour = first.log(), first.log(1)
            await log.open()
            await neighbour.open()
            await log.commit(Step(NOTHING, [rejection(0)], 1), "first's")
            async with member_of(cluster) as other:
                while membership_of(one).generation < membership_of(other).generation:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
                second.transactions.member = membership_of(other)
                again = second.log()
                assert await again.open() == Committed(1, "first's")
                with pytest.raises(FencedError):
                    await log.commit(Step(NOTHING, [rejection(1)], 2), "too late")
                with pytest.raises(TransportError):
                    # A log that has failed knows nothing any more: its owner has to open it again.
                    await log.commit(Step(NOTHING, [rejection(1)], 2), "too late")
                await again.commit(Step(NOTHING, [rejection(2)], 3), "second's")
                # Given its place in the new generation, the first goes on with what is still its own.
                first.transactions.member = membership_of(one)
                with pytest.raises(FencedError):
                    await neighbour.commit(Step(NOTHING, [], 1), "of the old generation")
                assert await neighbour.open() == Committed(None, "")
                await neighbour.commit(Step(NOTHING, [], 1), "of the new generation")
                assert await first.log().open() == Committed(3, "second's")
        rejected = await cluster.committed_records(cluster.outputs.rejected, [0])
        assert [dict(record.headers)["rfm-offset"] for record in rejected] == [b"0", b"2"]

    run_on(cluster, test)


def test_a_step_is_committed_as_whoever_made_it(cluster: Cluster) -> None:
    """The group may move on while a transaction waits for its producer."""

    async def test() -> None:
        async with owner_of(cluster) as owner, member_of(cluster) as one:
            made_by = owner.transactions.member = membership_of(one)
            log = owner.log()
            await log.open()
            committing = asyncio.create_task(log.commit(Step(NOTHING, [], 1), "made before"))
            while not owner.transactions._running:  # noqa: ASYNC110
                await asyncio.sleep(0)
            owner.transactions.member = Membership(made_by.generation + 1, made_by.member_id)
            await committing
            assert await owner.log().open() == Committed(1, "made before")

    run_on(cluster, test)


def test_what_a_worker_that_is_gone_left_open_is_never_seen(cluster: Cluster) -> None:
    async def test() -> None:
        async with owner_of(cluster) as first, owner_of(cluster) as second:
            log = first.log()
            await log.open()
            await log.commit(Step(NOTHING, [], 1, Tick(1, 1)), "before")
            await first.leave_open(Step(some_changes(), [rejection(1)], 2, Tick(2, 2)))
            logs = [second.log(), second.log()]
            assert await asyncio.gather(*(each.open() for each in logs)) == [Committed(1, "before")] * 2
            assert await logs[0].ticks() == [Tick(1, 1)]
            with pytest.raises(InvalidProducerEpoch):
                await (await first.transactions._producer(0)).commit()
        for topic in (cluster.outputs.changes, cluster.outputs.rejected):
            assert await cluster.committed_records(topic, [0]) == []

    run_on(cluster, test)


def some_step(changes: int, rejections: int, position: int) -> Step:
    table = some_changes(changes, changes) if changes else NOTHING
    return Step(table, [rejection(position - 1)] * rejections, position)


async def is_all_readable(cluster: Cluster) -> bool:
    """Tell whether no transaction is open in what comes of the first partition."""
    outputs = (cluster.outputs.changes, cluster.outputs.current, cluster.outputs.rejected)
    places = [TopicPartition(topic, 0) for topic in outputs]
    return await cluster.ends(places) == await cluster.ends(places, "read_committed")


@pytest.mark.parametrize(("changes", "rejections"), [(3, 0), (0, 3)])
def test_what_a_worker_that_is_gone_left_open_hides_nothing_that_comes_after(
    changes: int, rejections: int, cluster: Cluster
) -> None:
    """Not even if it had not come to writing its position: brokers would wait a minute for it to end."""
    outputs = cluster.outputs

    async def test() -> None:
        async with owner_of(cluster) as first, owner_of(cluster) as second:
            log = first.log()
            await log.open()
            await log.commit(Step(NOTHING, [], 1), "before")
            await first.leave_open(some_step(changes, rejections, 2), position=False)
            log = second.log()
            assert await log.open() == Committed(1, "before")
            assert await is_all_readable(cluster)
            await log.commit(some_step(1, 1, 2), "after")
        for topic in (outputs.changes, outputs.rejected):
            assert len(await cluster.committed_records(topic, [0])) == 1

    run_on(cluster, test)


@pytest.mark.parametrize("is_refused", [True, False], ids=["refused", "under way"])
def test_who_lets_go_leaves_nothing_open(is_refused: bool, cluster: Cluster) -> None:  # noqa: FBT001
    """Neither of a step that was refused nor of one under way: it would hide what others write for a minute."""

    async def test() -> None:
        async with owner_of(cluster) as owner:
            log = owner.log()
            await log.open()
            await owner.leave_open(some_step(3, 3, 1), position=False)
            assert not await is_all_readable(cluster)
            if is_refused:
                owner.transactions.member = log._member = Membership(7, "of no group")
            step = asyncio.create_task(log.commit(some_step(3, 3, 1), "not to be"))
            while not owner.transactions._running:  # noqa: ASYNC110
                await asyncio.sleep(0)
            if is_refused:
                await asyncio.wait([step])
        with pytest.raises((FencedError, TransportError)):
            await step
        assert await is_all_readable(cluster)

    run_on(cluster, test)


def test_who_gives_up_taking_over_leaves_the_others_to_it(cluster: Cluster) -> None:
    """They end what a worker that is gone left open once, for all of them."""

    async def test() -> None:
        async with owner_of(cluster) as first, owner_of(cluster) as second:
            log = first.log()
            await log.open()
            await log.commit(Step(NOTHING, [], 1), "before")
            await first.leave_open(Step(NOTHING, [], 2))
            one, other = [
                asyncio.create_task(second.transactions.fence(first.transactions.name)) for _ in range(2)
            ]
            await asyncio.sleep(0)
            one.cancel()
            await other
            assert await second.log().open() == Committed(1, "before")

    run_on(cluster, test)


def test_who_opens_a_log_waits_for_its_own_step(cluster: Cluster) -> None:
    """A step that nobody waits for any more may still be committed: then the next one begins behind it."""

    async def test() -> None:
        async with owner_of(cluster) as owner:
            log = owner.log()
            await log.open()
            given_up = asyncio.create_task(log.commit(Step(some_changes(), [], 1), "given up"))
            while not owner.transactions._running:  # noqa: ASYNC110
                await asyncio.sleep(0)
            given_up.cancel()
            assert await owner.log().open() == Committed(1, "given up")

    run_on(cluster, test)


def test_workers_of_another_app_have_ticks_and_offsets_of_their_own(cluster: Cluster) -> None:
    async def test() -> None:
        async with owner_of(cluster) as owner, owner_of(cluster, f"{cluster.name}-other") as another:
            one, other = owner.log(), another.log()
            await one.open()
            await one.commit(Step(NOTHING, [], 5, Tick(5, 50)), "one's")
            assert await other.open() == Committed(None, "")
            assert await other.ticks() == []
            await other.commit(Step(NOTHING, [], 6, Tick(6, 60)), "other's")
            assert await one.ticks() == [Tick(5, 50)]
            assert await one.open() == Committed(5, "one's")

    run_on(cluster, test)


def test_ticks_that_others_hide_for_a_while_are_waited_for(cluster: Cluster) -> None:
    """A transaction of another application that is open on the clock topic hides all that was committed after it."""

    async def test() -> None:
        async with owner_of(cluster, f"{cluster.name}-other") as other, owner_of(cluster) as ours:
            await other.leave_open(Step(NOTHING, [], 1, Tick(1, 1)))
            log = ours.log()
            await log.open()
            await log.commit(Step(NOTHING, [], 2, Tick(2, 22)), "ours")
            asked = asyncio.create_task(log.ticks())
            await asyncio.wait([asked], timeout=1)
            assert not asked.done()
            # After an error a producer is thrown away, and the next one of its id ends what was open.
            await other.transactions._let_go(0)
            await other.transactions._producer(0)
            assert await asked == [Tick(2, 22)]

    run_on(cluster, test)


def test_bounds_end_with_what_is_committed(cluster: Cluster) -> None:
    async def test() -> None:
        await cluster.send([(0, b"k", b"v"), (0, b"k", b"v"), (1, b"k", b"v")])
        async with owner_of(cluster) as owner:
            assert await owner.log().bounds() == Bounds(0, 2)

    run_on(cluster, test)


def test_a_commit_without_a_broker_is_unknown_and_told_by_the_next_open(own_broker: Broker) -> None:
    cluster = Cluster(own_broker.bootstrap, "restart")

    async def test() -> None:
        async with owner_of(cluster) as owner:
            log = owner.log()
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
        rejected = await cluster.committed_records(cluster.outputs.rejected, [0])
        assert [dict(record.headers)["rfm-offset"] for record in rejected] == [b"0", b"1"]

    run_on(cluster, test)
