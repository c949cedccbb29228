"""The transactional producer, and what brokers may answer: waited out, sent again as it was, or told.

The brokers here are scripted: real ones give these answers when they please. Whole transactions on a real broker are in
tests/kafka/test_partition_log.py.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka import errors as kafka
from aiokafka.client import CoordinationType
from aiokafka.protocol.produce import ProduceRequest_v7
from aiokafka.protocol.transaction import (
    AddOffsetsToTxnRequest,
    AddPartitionsToTxnRequest,
    EndTxnRequest,
    InitProducerIdRequest,
)
from aiokafka.record import MemoryRecords
from aiokafka.structs import OffsetAndMetadata
from hypothesis import given
from hypothesis import strategies as st

from rfmstream.engine.live.kafka.batches import RecordBatch, batch_of_one
from rfmstream.engine.live.kafka.membership import Membership, TxnOffsetCommit
from rfmstream.engine.live.kafka.produce import Produce
from rfmstream.engine.live.kafka.transactional import REQUEST_BYTES, TransactionalProducer
from rfmstream.engine.live.kafka.transactions import Transactions
from rfmstream.engine.service.client_config import ClientConfig

ONE, OTHER = TopicPartition("changes", 0), TopicPartition("current", 0)
INPUT = TopicPartition("orders", 0)
MEMBER = Membership(7, "member")
NODE, NEXT_NODE = 1, 2


class Brokers:
    """In place of the client: answers each kind of request from a list, and well once that has ended."""

    def __init__(self, **answers: list[Any]) -> None:
        self.answers = {name: deque(codes) for name, codes in answers.items()}
        self.asked: list[tuple[str, int]] = []
        self.sent: list[dict[TopicPartition, bytes]] = []
        self.leaders = deque([NODE])
        self.news = 0
        self.cluster = SimpleNamespace(leader_for_partition=lambda _: self.leaders[0])

    async def bootstrap(self) -> None:
        for error in iter(self._next("bootstrap")):
            raise error

    async def close(self) -> None:
        pass

    async def coordinator_lookup(self, _kind: CoordinationType, _key: str) -> int:
        self.asked.append(("lookup", NODE))
        for error in self._next("lookup"):
            raise error
        return self.leaders[0]

    async def force_metadata_update(self) -> None:
        self.news += 1
        if len(self.leaders) > 1:
            self.leaders.popleft()

    async def _wait_on_metadata(self, _topic: str) -> None:
        pass

    async def send(self, node: int, request: Any, **_: Any) -> SimpleNamespace:  # noqa: ANN401
        name = {
            InitProducerIdRequest: "init",
            AddPartitionsToTxnRequest: "partitions",
            AddOffsetsToTxnRequest: "group",
            TxnOffsetCommit: "offsets",
            EndTxnRequest: "end",
            Produce: "produce",
        }[type(request)]
        self.asked.append((name, node))
        codes = self._next(name)
        if codes and isinstance(codes[0], Exception):
            raise codes[0]
        if name == "produce":
            return self._produced(request, codes)
        if name in ("partitions", "offsets"):
            topics = [topic for topic, *_ in getattr(request, "_topics", [("orders", [0])])]
            codes = codes if len(codes) > 1 else (codes or [0]) * len(topics)
            return SimpleNamespace(
                errors=[(topic, [(0, code)]) for topic, code in zip(topics, codes, strict=True)]
            )
        return SimpleNamespace(error_code=codes[0] if codes else 0, producer_id=5, producer_epoch=3)

    def _next(self, name: str) -> list[Any]:
        left = self.answers.get(name)
        if not left:
            return []
        answer = left.popleft()
        return answer if isinstance(answer, list) else [answer]

    def _produced(self, request: Any, codes: list[int]) -> SimpleNamespace:  # noqa: ANN401
        places = [
            (TopicPartition(topic, number), b"".join(batch.parts))
            for topic, batches in request.topics.items()
            for number, batch in batches
        ]
        self.sent.append(dict(places))
        codes = codes or [0] * len(places)
        return SimpleNamespace(
            topics=[
                (place.topic, [(place.partition, code, 100 if code == 0 else -1, -1)])
                for (place, _), code in zip(places, codes, strict=True)
            ]
        )


def run_with(brokers: Brokers, test: Callable[[TransactionalProducer], Awaitable[None]]) -> None:
    async def run() -> None:
        producer = TransactionalProducer(ClientConfig(("127.0.0.1:9",)), "app/0", timeout_ms=60_000)
        producer.client = brokers  # type: ignore[assignment]
        async with asyncio.timeout(20):
            await producer.start()
            await test(producer)

    asyncio.run(run())


def batch(value: bytes = b"value") -> RecordBatch:
    return batch_of_one(b"key", value, timestamp_ms=1)


def header(data: bytes) -> tuple[int, int, int]:
    """Return the producer's id and epoch, and the sequence, of a batch with a checksum that holds."""
    made = MemoryRecords(data).next_batch()
    assert made is not None
    assert made.validate_crc()
    return made.producer_id, made.producer_epoch, made.base_sequence


async def transact(producer: TransactionalProducer, *batches: tuple[TopicPartition, RecordBatch]) -> None:
    await producer.begin([place for place, _ in batches], "group")
    await producer.write(batches)
    await producer.commit_offsets({INPUT: OffsetAndMetadata(7, "token")}, "group", MEMBER)
    await producer.commit()


def test_a_transaction_asks_each_thing_once_and_numbers_its_batches() -> None:
    brokers = Brokers()

    async def test(producer: TransactionalProducer) -> None:
        first = batch()
        await transact(producer, (ONE, first), (OTHER, batch()))
        assert first.offset == 100
        await transact(producer, (ONE, batch()))

    run_with(brokers, test)
    names = [name for name, _ in brokers.asked]
    assert names == [
        *("lookup", "init"),
        *("partitions", "group", "produce", "lookup", "offsets", "end"),
        *("partitions", "group", "produce", "offsets", "end"),
    ]
    assert [header(each[ONE]) for each in brokers.sent] == [(5, 3, 0), (5, 3, 1)]


@pytest.mark.parametrize("name", ["init", "partitions", "group", "offsets", "end", "produce"])
@pytest.mark.parametrize(
    "answers",
    [
        [kafka.ConcurrentTransactions.errno, kafka.NotEnoughReplicasError.errno],
        [kafka.GroupLoadInProgressError.errno],
        [kafka.NotCoordinatorForGroupError.errno],
        [kafka.NotLeaderForPartitionError.errno],
        [kafka.KafkaConnectionError("gone"), kafka.RequestTimedOutError()],
    ],
)
def test_what_passes_is_waited_out(name: str, answers: list[Any]) -> None:
    brokers = Brokers(**{name: answers})

    async def test(producer: TransactionalProducer) -> None:
        await transact(producer, (ONE, batch()))

    run_with(brokers, test)
    assert [each for each, _ in brokers.asked].count(name) == len(answers) + 1
    assert len(set(map(str, brokers.sent))) == 1, "what is sent again is what was sent"


def test_brokers_may_be_busy_for_as_long_as_a_caller_waits() -> None:
    """The pause between tries grows, up to a limit."""

    async def test(producer: TransactionalProducer) -> None:
        await producer._wait_out([kafka.NotEnoughReplicasError()], 5000)

    run_with(Brokers(), test)


def test_where_a_partition_or_a_coordinator_has_moved_it_is_looked_for() -> None:
    brokers = Brokers(
        produce=[kafka.NotLeaderForPartitionError.errno], end=[kafka.NotCoordinatorForGroupError.errno]
    )

    async def test(producer: TransactionalProducer) -> None:
        brokers.leaders.append(NEXT_NODE)
        await transact(producer, (ONE, batch()))

    run_with(brokers, test)
    assert [node for name, node in brokers.asked if name == "produce"] == [NODE, NEXT_NODE]
    assert [node for name, node in brokers.asked if name == "end"][-1] == NEXT_NODE


def test_only_what_was_not_taken_is_sent_again() -> None:
    brokers = Brokers(produce=[[kafka.DuplicateSequenceNumber.errno, kafka.NotEnoughReplicasError.errno]])

    async def test(producer: TransactionalProducer) -> None:
        await transact(producer, (ONE, batch()), (OTHER, batch()))

    run_with(brokers, test)
    assert [set(each) for each in brokers.sent] == [{ONE, OTHER}, {OTHER}]
    assert brokers.sent[0][OTHER] == brokers.sent[1][OTHER]


@pytest.mark.parametrize(
    ("name", "codes", "error", "about"),
    [
        ("offsets", [kafka.IllegalGenerationError.errno], kafka.IllegalGenerationError, ()),
        ("partitions", [kafka.InvalidProducerEpoch.errno], kafka.InvalidProducerEpoch, ()),
        ("end", [90], kafka.InvalidProducerEpoch, ()),
        ("group", [30], kafka.GroupAuthorizationFailedError, ({"group"},)),
        ("partitions", [29, 29], kafka.TopicAuthorizationFailedError, ({"changes", "current"},)),
        ("partitions", [55, 29], kafka.TopicAuthorizationFailedError, ({"current"},)),
        ("produce", [0, 10], kafka.MessageSizeTooLargeError, ()),
        ("produce", [45, 0], kafka.OutOfOrderSequenceNumber, ()),
    ],
)
def test_what_does_not_pass_is_told(
    name: str, codes: list[int], error: type[Exception], about: tuple[Any, ...]
) -> None:
    async def test(producer: TransactionalProducer) -> None:
        with pytest.raises(error) as caught:
            await transact(producer, (ONE, batch()), (OTHER, batch()))
        assert caught.value.args == about or error is kafka.InvalidProducerEpoch

    run_with(Brokers(**{name: [codes]}), test)


def test_who_may_not_use_the_group_or_the_transaction_is_told_which() -> None:
    async def test(producer: TransactionalProducer) -> None:
        with pytest.raises(kafka.GroupAuthorizationFailedError) as caught:
            await transact(producer, (ONE, batch()))
        assert caught.value.args == ({"group"},)

    run_with(Brokers(lookup=[[], kafka.GroupAuthorizationFailedError()]), test)


def test_a_request_has_one_batch_of_a_partition_and_is_not_too_large() -> None:
    brokers = Brokers()
    large = b"x" * (REQUEST_BYTES // 3)

    async def test(producer: TransactionalProducer) -> None:
        places = [TopicPartition("changes", number) for number in range(4)]
        await producer.begin([*places, OTHER], "group")
        await producer.write(
            [
                (ONE, batch()),
                (ONE, batch()),
                *((place, batch(large)) for place in places[1:]),
                (OTHER, batch()),
            ]
        )

    run_with(brokers, test)
    # The first of every partition as far as there is room, then the rest.
    assert [len(each) for each in brokers.sent] == [3, 3]
    assert [header(each[ONE])[2] for each in brokers.sent if ONE in each] == [0, 1]


@given(
    st.dictionaries(
        st.text(max_size=9),
        st.lists(st.tuples(st.integers(0, 2**31 - 1), st.binary(max_size=99)), max_size=3),
        max_size=3,
    )
)
def test_a_request_is_that_of_aiokafka(topics: dict[str, list[tuple[int, bytes]]]) -> None:
    batches = {
        topic: [(partition, batch(value)) for partition, value in partitions]
        for topic, partitions in topics.items()
    }
    theirs = [
        (topic, [(partition, b"".join(each.parts)) for partition, each in partitions])
        for topic, partitions in batches.items()
    ]
    request = Produce("us", 30_000, batches).prepare({0: (3, 12)})
    assert request.encode() == ProduceRequest_v7("us", -1, 30_000, theirs).encode()
    assert request.API_VERSION == ProduceRequest_v7.API_VERSION


def test_partitions_that_come_late_join_before_they_are_written_to() -> None:
    brokers = Brokers()

    async def test(producer: TransactionalProducer) -> None:
        await producer.begin([ONE], "group")
        await producer.write([(ONE, batch())])
        await producer.write([(ONE, batch()), (OTHER, batch())])

    run_with(brokers, test)
    names = [name for name, _ in brokers.asked if name in ("partitions", "produce")]
    assert names == ["partitions", "produce", "partitions", "produce"]


def test_a_broker_that_is_away_at_the_start_is_waited_for() -> None:
    brokers = Brokers(bootstrap=[kafka.KafkaConnectionError("away")])
    run_with(brokers, lambda producer: transact(producer, (ONE, batch())))
    assert len(brokers.sent) == 1


def test_more_of_a_step_is_made_while_what_comes_before_is_written_and_written_behind_it() -> None:
    told = []
    made = iter([["second"], ["third"], []])

    async def test() -> None:
        making = asyncio.Event()

        async def more() -> list[str]:
            making.set()
            return next(made)

        async def write(batches: list[str]) -> None:
            told.append(batches)
            await making.wait()
            told.append("done")

        writing = SimpleNamespace(more=more)
        async with asyncio.timeout(5):
            await Transactions._write(SimpleNamespace(write=write), ["first"], [writing])

    asyncio.run(test())
    assert told == [["first"], "done", ["second"], "done", ["third"], "done"]
