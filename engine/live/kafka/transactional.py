"""A transactional producer of whole record batches that waits for brokers three times a transaction.

aiokafka's producer sends its requests one after another, and brokers refuse records while they still register other
partitions of the transaction. This producer first registers all partitions and the group at once, then sends records
and offsets together, then ends the transaction. It has no queue and does not linger, since its caller has batches.

An error leaves a transaction in doubt, and the producer must be thrown away. A new producer of the same transactional
id, when it starts, makes the broker end what the old one left open; later answers to the old one mean nothing.

Source: Kafka's protocol guide; KIP-98 (transactions), KIP-447 (offsets by members of the group)
"""

import asyncio
from collections import defaultdict
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from itertools import count
from operator import itemgetter
from typing import Any, Final, TypeVar

from aiokafka import TopicPartition
from aiokafka import errors as kafka
from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.protocol.transaction import (
    AddOffsetsToTxnRequest,
    AddPartitionsToTxnRequest,
    EndTxnRequest,
    InitProducerIdRequest,
)
from aiokafka.structs import OffsetAndMetadata

from rfmstream.engine.live.kafka.batches import RecordBatch
from rfmstream.engine.live.kafka.membership import Membership, TxnOffsetCommit
from rfmstream.engine.live.kafka.produce import Produce
from rfmstream.engine.service.client_config import ClientConfig
from rfmstream.engine.service.kafka.client import NO_RIGHT, RETRY_BACKOFF_MS, connection_options

_T = TypeVar("_T")

Batches = Sequence[tuple[TopicPartition, RecordBatch]]
"""Batches and the partition of each; those of one partition are in order."""

REQUEST_BYTES: Final = 16 << 20
"""A request is full from so many bytes of batches on; brokers accept a hundred megabytes."""

CLOSE_SECONDS_MAX: Final = 0.5

_BUSY_S: Final = 0.004
"""How long brokers take to write the markers of a transaction; until then they refuse the next one's requests."""

_SEQUENCES: Final = 1 << 31
_PRODUCE_MS_MAX: Final = 30_000
_FENCED_ANEW: Final = 90
"""The newer error code for the error that aiokafka calls InvalidProducerEpoch."""

_BUSY: Final = (
    kafka.ConcurrentTransactions,
    kafka.NotEnoughReplicasError,
    kafka.GroupLoadInProgressError,
)
"""Brokers also answer with the latter two while they do not know yet whether a transaction is open (KIP-890)."""


class TransactionalProducer:
    """One transactional id.

    In      name        the transactional id
            timeout_ms  after which brokers end a transaction of their own accord
    Errors  of all methods: aiokafka's. Those that pass are waited out, for as long as the caller waits
    """

    def __init__(self, config: ClientConfig, name: str, *, timeout_ms: int) -> None:
        self.client = AIOKafkaClient(**connection_options(config))
        self._name = name
        self._timeout_ms = timeout_ms
        self._producer = -1, -1
        self._coordinators: dict[tuple[CoordinationType, str], int] = {}
        self._joined: set[TopicPartition] = set()
        self._sequences: defaultdict[TopicPartition, int] = defaultdict(int)

    async def start(self) -> None:
        """Connect, and end what a producer of the same id has left open."""
        while True:
            try:
                await self.client.bootstrap()
                break
            except kafka.KafkaConnectionError:
                await asyncio.sleep(RETRY_BACKOFF_MS / 1000)
        request = InitProducerIdRequest(self._name, self._timeout_ms)
        response = await self._ask(CoordinationType.TRANSACTION, self._name, request)
        self._producer = response.producer_id, response.producer_epoch

    async def begin(self, places: Iterable[TopicPartition], group_id: str) -> None:
        """Begin a transaction that writes to partitions, and offsets of a group."""
        self._joined.clear()
        # Both on one connection, where brokers do one thing after the other: nobody needs to wait in between.
        await together(
            self._join(places),
            self._ask(
                CoordinationType.TRANSACTION,
                self._name,
                AddOffsetsToTxnRequest(self._name, *self._producer, group_id),
                about=group_id,
            ),
        )

    async def write(self, batches: Batches) -> None:
        """Write batches, those of a partition in order, and return when the brokers have them."""
        await self._join(place for place, _ in batches if place not in self._joined)
        for place, batch in batches:
            batch.stamp(*self._producer, self._sequences[place])
            self._sequences[place] = (self._sequences[place] + len(batch)) % _SEQUENCES
        for some in _requests(batches):
            await self._write(some)

    async def commit_offsets(
        self, offsets: Mapping[TopicPartition, OffsetAndMetadata], group_id: str, member: Membership
    ) -> None:
        """Have offsets of a group committed with the transaction, by a member."""
        request = TxnOffsetCommit(self._name, group_id, self._producer, member, offsets)
        await self._ask(CoordinationType.GROUP, group_id, request)

    async def commit(self) -> None:
        """Commit the transaction."""
        request = EndTxnRequest(self._name, *self._producer, True)  # noqa: FBT003 - the protocol's
        await self._ask(CoordinationType.TRANSACTION, self._name, request)

    async def abort(self) -> None:
        """Give the transaction up: none of it counts."""
        request = EndTxnRequest(self._name, *self._producer, False)  # noqa: FBT003 - the protocol's
        await self._ask(CoordinationType.TRANSACTION, self._name, request)

    async def close(self) -> None:
        """Close; never raises. An open transaction stays open until it times out or a producer of its id starts."""
        await close(self.client)

    async def _join(self, places: Iterable[TopicPartition]) -> None:
        joining = set(places)
        if not joining:
            return
        topics: defaultdict[str, list[int]] = defaultdict(list)
        for topic, partition in sorted(joining):
            topics[topic].append(partition)
        request = AddPartitionsToTxnRequest(self._name, *self._producer, list(topics.items()))
        await self._ask(CoordinationType.TRANSACTION, self._name, request)
        self._joined |= joining

    async def _write(self, batches: dict[TopicPartition, RecordBatch]) -> None:
        for tries in count():
            at: defaultdict[int, list[TopicPartition]] = defaultdict(list)
            for place in batches:
                at[await self._leader(place)].append(place)
            sends = [self._send(node, {place: batches[place] for place in some}) for node, some in at.items()]
            left: dict[TopicPartition, kafka.KafkaError] = {}
            for errors in await together(*sends):
                left |= errors
            if not left:
                return
            batches = {place: batches[place] for place in left}
            await self._wait_out(left.values(), tries)

    async def _leader(self, place: TopicPartition) -> int:
        await self.client._wait_on_metadata(place.topic)  # noqa: SLF001 - producers have no other way
        while (node := self.client.cluster.leader_for_partition(place)) in (None, -1):
            await self._wait_out([kafka.LeaderNotAvailableError()], 0)
        return int(node)

    async def _send(
        self, node: int, batches: dict[TopicPartition, RecordBatch]
    ) -> dict[TopicPartition, kafka.KafkaError]:
        """Send a request; return the batches that were refused, and why."""
        topics: defaultdict[str, list[tuple[int, RecordBatch]]] = defaultdict(list)
        for (topic, partition), batch in batches.items():
            topics[topic].append((partition, batch))
        try:
            response = await self.client.send(node, Produce(self._name, _PRODUCE_MS_MAX, topics))
        except kafka.KafkaError as error:
            return dict.fromkeys(batches, error)
        left: dict[TopicPartition, kafka.KafkaError] = {}
        for topic, partitions in response.topics:
            for partition, code, offset, *_ in partitions:
                place = TopicPartition(topic, partition)
                # Brokers know by its number what they have, if not where, when it is sent again.
                if kafka.for_code(code) in (kafka.NoError, kafka.DuplicateSequenceNumber):
                    batches[place].offset = offset
                else:
                    left[place] = self._error(code, {topic})
        return left

    async def _ask(
        self,
        kind: CoordinationType,
        key: str,
        request: Any,  # noqa: ANN401 - not typed there
        about: str = "",
    ) -> Any:  # noqa: ANN401
        """Ask the coordinator of a transactional id or a group until it has an answer.

        about  what it is asked about, if not that
        """
        for tries in count():
            try:
                node = await self._coordinator(kind, key)
                response = await self.client.send(node, request, group=ConnectionGroup.COORDINATION)
                codes = _codes(response, about or key)
                errors = [self._error(code, names) for code, names in codes.items()]
                if not errors:
                    return response
            except kafka.KafkaError as error:
                errors = [error]
            await self._wait_out(errors, tries)
        raise AssertionError

    def _error(self, code: int, names: set[str]) -> kafka.KafkaError:
        """Return the error of a code; one about a right names what lacks it."""
        kind = kafka.InvalidProducerEpoch if code == _FENCED_ANEW else kafka.for_code(code)
        if kind is kafka.TransactionalIdAuthorizationFailed:
            # Brokers say it of each topic and group that was asked about.
            return kind({self._name})
        return kind(names) if kind in NO_RIGHT else kind()

    async def _wait_out(self, errors: Iterable[kafka.KafkaError], tries: int) -> None:
        """Wait until a retry may succeed; raise the error where none can."""
        is_busy = True
        for error in errors:
            if isinstance(error, _BUSY):
                continue
            if not error.retriable:
                raise error
            is_busy = False
        if not is_busy:
            self._coordinators.clear()
            await self.client.force_metadata_update()
        wait_s = RETRY_BACKOFF_MS / 1000
        await asyncio.sleep(min(_BUSY_S * (tries + 1), wait_s) if is_busy else wait_s)

    async def _coordinator(self, kind: CoordinationType, key: str) -> int:
        node = self._coordinators.get((kind, key))
        if node is None:
            try:
                node = await self.client.coordinator_lookup(kind, key)
            except (kafka.GroupAuthorizationFailedError, kafka.TransactionalIdAuthorizationFailed) as error:
                raise type(error)({key}) from None
            self._coordinators[kind, key] = node
        return node


async def together(*calls: Coroutine[Any, Any, _T]) -> list[_T]:
    """Make calls side by side and return their results; the first error ends the others, and is raised by itself."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(call) for call in calls]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


async def close(client: AIOKafkaClient) -> None:
    """Close a client; never raises."""
    try:
        # One that has lost its broker would wait for it.
        async with asyncio.timeout(CLOSE_SECONDS_MAX):
            await client.close()
    except Exception:  # noqa: BLE001, S110 - nothing can be done about it
        pass


def _requests(batches: Batches) -> Iterator[dict[TopicPartition, RecordBatch]]:
    """Yield the batches of each request: at most one of a partition, and no more bytes than fill it."""
    ordinals: defaultdict[TopicPartition, count[int]] = defaultdict(count)
    # First the first batches of all partitions, then the second ones: so as few requests as can be.
    in_turn = sorted(((next(ordinals[place]), place, batch) for place, batch in batches), key=itemgetter(0))
    some: dict[TopicPartition, RecordBatch] = {}
    size = 0
    for _, place, batch in in_turn:
        if some and (place in some or size + batch.size() > REQUEST_BYTES):
            yield some
            some, size = {}, 0
        some[place] = batch
        size += batch.size()
    if some:
        yield some


def _codes(response: Any, key: str) -> dict[int, set[str]]:  # noqa: ANN401 - not typed there
    """Return the error codes of an answer, each with the topic or group that it is about."""
    codes: defaultdict[int, set[str]] = defaultdict(set)
    if hasattr(response, "error_code"):
        codes[response.error_code].add(key)
    else:
        for topic, places, *_tags in response.errors:
            for _, code, *_more in places:
                codes[code].add(topic)
    codes.pop(kafka.NoError.errno, None)
    # It says that another failed.
    codes.pop(kafka.OperationNotAttempted.errno, None)
    return codes
