"""Fetches through Faust on a real broker: every record once and in order, whoever joins, leaves or is paused."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any, ClassVar

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from kafka_cluster import Broker, Cluster

from rfmstream.engine.live.kafka import transport
from rfmstream.engine.live.kafka.seams import install_fetches
from rfmstream.engine.live.kafka.transport import App, Fetched, Reading
from rfmstream.engine.live.model import Source
from rfmstream.engine.service.kafka.client import administrator
from rfmstream.schemas.errors import ConfigError, StateError


@pytest.fixture(autouse=True, scope="module")
def _installed() -> None:
    install_fetches()


class Member:
    """A member of a group that reads where the group has got to: `progress` stands for what is committed."""

    def __init__(self, cluster: Cluster, progress: dict[Source, int], seen: dict[Source, list[int]]) -> None:
        self.progress = progress
        self.seen = seen
        self.epochs: dict[Source, int] = {}
        self.errors: list[BaseException] = []
        self.confirmed: dict[Source, int] = {}
        self.reading = Reading(cluster.config(session_timeout_s=6), self.errors.append)
        self.app = App(self.reading, self._receive)
        self.app.on_partitions_assigned.connect(self._on_assigned)
        self.app.on_partitions_revoked.connect(self._on_revoked)
        self.numbers = iter(range(1, 1_000_000))

    async def start(self) -> None:
        await self.app.start()

    async def stop(self) -> None:
        self.epochs.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(10):
                await self.app.stop()

    async def seek(self, source: Source, offset: int) -> None:
        self.epochs[source] = next(self.numbers)
        await self.app.consumer.seek_lane(source, offset, self.epochs[source])

    async def _on_assigned(self, _: App, assigned: Iterable[Any], **__: object) -> None:
        for tp in assigned:
            source = Source(*tp)
            asyncio.get_running_loop().create_task(self.seek(source, self.progress.get(source, 0)))

    async def _on_revoked(self, *_: object, **__: object) -> None:
        self.epochs.clear()

    def _receive(self, source: Source, fetched: Fetched) -> None:
        if fetched.epoch != self.epochs.get(source):
            return
        assert fetched.begin == self.progress.get(source, 0), "nothing is dropped on the way"
        self.seen[source] += fetched.records.offsets
        self.progress[source] = fetched.records.position
        if fetched.confirmed_us is not None:
            assert fetched.records.position >= fetched.end
            self.confirmed[source] = fetched.records.position


class Group:
    """Members, and what they have seen together."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.progress: dict[Source, int] = {}
        self.seen: dict[Source, list[int]] = defaultdict(list)
        self.members: list[Member] = []

    async def join(self) -> Member:
        member = Member(self.cluster, self.progress, self.seen)
        self.members.append(member)
        await member.start()
        return member

    async def until(self, what: Callable[[], bool]) -> None:
        async with asyncio.timeout(40):
            while not what():  # noqa: ASYNC110 - what happens does so in the consumer's thread
                await asyncio.sleep(0.02)

    def all_seen_once(self, partitions: int, count: int) -> bool:
        expected = list(range(count))
        return all(self.seen[Source(self.cluster.orders, number)] == expected for number in range(partitions))


def run(cluster: Cluster, partitions: int, test: Callable[[Group], Awaitable[None]]) -> None:
    async def whole() -> None:
        await cluster.create(cluster.orders, partitions)
        group = Group(cluster)
        try:
            await test(group)
            assert [error for member in group.members for error in member.errors] == []
        finally:
            await asyncio.gather(*(member.stop() for member in group.members))

    asyncio.run(whole())


def rows(partitions: int, first: int, last: int) -> list[tuple[int, bytes, bytes]]:
    return [(number, b"key", b"value %d" % at) for at in range(first, last) for number in range(partitions)]


def test_members_that_join_and_leave_lose_and_repeat_nothing(cluster: Cluster) -> None:
    async def test(group: Group) -> None:
        first = await group.join()
        sending = asyncio.create_task(send_slowly(cluster, 4, 4000))
        await group.until(lambda: len(group.seen[Source(cluster.orders, 0)]) > 100)
        await group.join()
        await group.until(lambda: all(len(member.epochs) == 2 for member in group.members))
        await group.join()
        await group.until(lambda: sorted(len(member.epochs) for member in group.members) == [1, 1, 2])
        await first.stop()
        await sending
        await group.until(lambda: group.all_seen_once(4, 4000))

    run(cluster, 4, test)


async def send_slowly(cluster: Cluster, partitions: int, count: int) -> None:
    for start in range(0, count, 50):
        await cluster.send(rows(partitions, start, start + 50))
        await asyncio.sleep(0.02)


def test_a_partition_that_is_withheld_waits_and_the_others_do_not(cluster: Cluster) -> None:
    async def test(group: Group) -> None:
        member = await group.join()
        slow, fast = Source(cluster.orders, 0), Source(cluster.orders, 1)
        await group.until(lambda: len(member.confirmed) == 2)
        member.reading.withheld.add(slow)
        # A poll that is under way may still bring some.
        await asyncio.sleep(0.5)
        await cluster.send(rows(2, 0, 1000))
        await group.until(lambda: len(group.seen[fast]) == 1000)
        assert group.seen[slow] == []
        member.reading.withheld.discard(slow)
        await group.until(lambda: group.all_seen_once(2, 1000))

    run(cluster, 2, test)


def test_the_end_of_a_partition_is_confirmed_where_no_record_marks_it(cluster: Cluster) -> None:
    async def test(group: Group) -> None:
        source = Source(cluster.orders, 0)
        producer = AIOKafkaProducer(bootstrap_servers=cluster.bootstrap, transactional_id=cluster.name)
        await producer.start()
        try:
            await producer.begin_transaction()
            await producer.send_and_wait(cluster.orders, b"aborted", partition=0)
            await producer.abort_transaction()
            async with producer.transaction():
                await producer.send(cluster.orders, b"kept", partition=0)
            member = await group.join()
            # Offset 0 was aborted, 1 and 3 are the marks of the two transactions.
            await group.until(lambda: member.confirmed.get(source) == 4)
            assert group.seen[source] == [2]
            await producer.begin_transaction()
            await producer.send_and_wait(cluster.orders, b"open", partition=0)
            await asyncio.sleep(0.5)
            assert member.confirmed[source] == 4, "what is not decided is not read"
            await producer.commit_transaction()
            await group.until(lambda: member.confirmed.get(source) == 6)
            assert group.seen[source] == [2, 4]
        finally:
            await producer.stop()

    run(cluster, 1, test)


def test_an_offset_out_of_range_ends_the_worker(cluster: Cluster) -> None:
    async def test(group: Group) -> None:
        source = Source(cluster.orders, 0)
        group.progress[source] = 77
        member = await group.join()
        await group.until(lambda: bool(member.errors))
        error = member.errors.pop()
        assert isinstance(error, StateError)
        assert f"{source} at 77" in str(error)

    run(cluster, 1, test)


def test_a_topic_that_is_deleted_ends_the_worker(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(group: Group) -> None:
        member = await group.join()
        await cluster.send(rows(2, 0, 10))
        await group.until(lambda: group.all_seen_once(2, 10))
        async with administrator(member.reading.config.client, "deleting failed") as admin:
            await admin.delete_topics([cluster.orders])
        await group.until(lambda: bool(member.errors))
        error = member.errors.pop()
        member.errors.clear()
        assert isinstance(error, ConfigError)
        assert str(error).startswith(f"input_topics: there is no topic {cluster.orders} any more; create it")

    monkeypatch.setattr(transport, "GONE_S", 0.5)
    run(cluster, 2, test)


def test_a_broker_that_restarts_is_ridden_out(own_broker: Broker) -> None:
    cluster = Cluster(own_broker.bootstrap, "restart")

    async def test(group: Group) -> None:
        await group.join()
        await group.join()
        await cluster.send(rows(2, 0, 100))
        await group.until(lambda: group.all_seen_once(2, 100))
        await asyncio.to_thread(own_broker.stop)
        await asyncio.sleep(1)
        await asyncio.to_thread(own_broker.start)
        await cluster.send(rows(2, 100, 200))
        await group.until(lambda: group.all_seen_once(2, 200))

    run(cluster, 2, test)


def test_a_damaged_fetch_takes_nothing_of_other_partitions_with_it(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The client drops what it had of the partitions before the one with the error, but has moved on in them.
    class Damaged(fetcher.PartitionRecords):
        read: ClassVar[set[TopicPartition]] = set()
        is_over: ClassVar[bool] = False

        def __next__(self) -> object:
            self.read.add(self._tp)
            if len(self.read) > 1 and not Damaged.is_over:
                Damaged.is_over = True
                raise CorruptRecordException
            return super().__next__()

    async def test(group: Group) -> None:
        await cluster.send(rows(3, 0, 500))
        await group.join()
        await group.until(lambda: group.all_seen_once(3, 500))
        assert Damaged.is_over

    monkeypatch.setattr(fetcher, "PartitionRecords", Damaged)
    run(cluster, 3, test)
