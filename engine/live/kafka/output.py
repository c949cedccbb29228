"""A partition's log on Kafka: its offsets, its ticks, and its part of the worker's transactions."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from itertools import chain, islice
from typing import Any, Final, TypeVar

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka import errors as kafka
from aiokafka.client import ConnectionGroup, CoordinationType
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.structs import OffsetAndMetadata

from engine.live.config import ClientConfig, OutputTopics
from engine.live.encode import Encoder
from engine.live.kafka.batches import Compression, RecordBatch, record_batches
from engine.live.kafka.client import RETRY_BACKOFF_MS, client_errors, connection_options
from engine.live.kafka.membership import UNSTABLE_OFFSET_COMMIT, Membership, OffsetFetch
from engine.live.kafka.transactions import Transactions, Writing
from engine.live.model import Bounds, Committed, Source, Step, Tick
from schemas.errors import StateError

_T = TypeVar("_T")

_Part = list[tuple[str, RecordBatch]]
"""Batches with their topics."""

OPEN_SECONDS_MAX: Final = 40
READ_SECONDS_MAX: Final = 90
"""Enough for a broker to end the transaction of an owner that is gone, which it looks for every 10 s."""
UNSTABLE_SECONDS_MAX: Final = 1.0
"""How long a worker that has just given the partition up may take to end its transaction."""

_WRITTEN_BY: Final = "@"
"""Between the token of a commit and the transactional id of who made it, in what is noted beside an offset."""

_PARTS: Final = 2
_EARLIEST: Final = -2
_LATEST: Final = -1
_READ_UNCOMMITTED: Final = 0
_READ_COMMITTED: Final = 1


class KafkaPartitionLog:
    """Implements engine.live.model.PartitionLog for one input partition.

    In      transactions  the worker's
            app_id        the consumer group
            encoder       of tier changes and rejected rows
            compression   of tier changes
            run           calls a function in another thread
    """

    def __init__(  # noqa: PLR0913 - each by name
        self,
        source: Source,
        *,
        transactions: Transactions,
        client: ClientConfig,
        app_id: str,
        outputs: OutputTopics,
        encoder: Encoder,
        compression: Compression | None = None,
        run: Callable[[Callable[[], _T]], Awaitable[_T]],
    ) -> None:
        self._source = source
        self._transactions = transactions
        self._client = client
        self._app_id = app_id
        self._outputs = outputs
        self._encoder = encoder
        self._compression = compression
        self._run: Callable[[Callable[[], Any]], Awaitable[Any]] = run
        self._input = TopicPartition(source.topic, source.partition)
        self._tick_key = f"{app_id}/{source.topic}".encode()
        self._member: Membership | None = None
        self._mark = self._tick_end = 0

    @property
    def mark(self) -> int:
        """Where the ticks end that were read or committed here: an offset of the clock topic."""
        return self._mark

    async def open(self) -> Committed:
        """Wait until nothing of earlier owners is open, and return what is committed.

        From here on they cannot commit any more: they are no members of the generation that we are of.
        """
        self._member = None
        with client_errors(self._client, f"partition {self._source} cannot be taken over"):
            async with asyncio.timeout(OPEN_SECONDS_MAX):
                member = self._transactions.member
                await self._transactions.settle(self._input)
                producer = await self._transactions.producer()
                committed = await self._stable(producer)
        self._member = member
        return committed

    async def _stable(self, producer: AIOKafkaProducer) -> Committed:
        """Return what is committed once no transaction can change it."""
        clock = asyncio.get_running_loop()
        patience = clock.time() + UNSTABLE_SECONDS_MAX
        while True:
            found = await _retried(lambda: self._fetch_offset(producer, stable=True))
            if found is not None:
                return found[0]
            if clock.time() > patience:
                before = await _retried(lambda: self._fetch_offset(producer, stable=False))
                if before is not None and before[1]:
                    await self._transactions.fence(before[1])
                patience = clock.time() + UNSTABLE_SECONDS_MAX
            await asyncio.sleep(RETRY_BACKOFF_MS / 1000)

    async def _fetch_offset(
        self, producer: AIOKafkaProducer, *, stable: bool
    ) -> tuple[Committed, str] | None:
        """Return what is committed and the transactional id of who did it; None: a transaction may change it."""
        # Not the admin client's method: it takes a coordinator that is still loading for a group without offsets, which
        # would begin the partition again from its start.
        node = await producer.client.coordinator_lookup(CoordinationType.GROUP, self._app_id)
        request = OffsetFetch(self._app_id, *self._source, stable=stable)
        response = await producer.client.send(node, request, group=ConnectionGroup.COORDINATION)
        _raise_for(response.error_code)
        [(_, [(_, offset, _, note, error, _)], _)] = response.topics
        if error == UNSTABLE_OFFSET_COMMIT:
            return None
        _raise_for(error)
        token, _, writer = (note or "").partition(_WRITTEN_BY)
        return Committed(offset if offset >= 0 else None, token), writer

    async def bounds(self) -> Bounds:
        """Return the offsets the input partition holds; its end is that of committed transactions."""
        with client_errors(self._client, f"the offsets of {self._source} cannot be read"):
            async with asyncio.timeout(OPEN_SECONDS_MAX):
                begin = await self._offset(self._input, _EARLIEST, _READ_COMMITTED)
                return Bounds(begin, await self._offset(self._input, _LATEST, _READ_COMMITTED))

    async def _offset(self, place: TopicPartition, which: int, isolation: int) -> int:
        client = (await self._transactions.producer()).client
        await client._wait_on_metadata(place.topic)  # noqa: SLF001 - producers have no other way
        return await _retried(lambda: self._asked_offset(client, place, which, isolation))

    @staticmethod
    async def _asked_offset(client: Any, place: TopicPartition, which: int, isolation: int) -> int:  # noqa: ANN401 - the client is not typed
        node = client.cluster.leader_for_partition(place)
        if node in (None, -1):
            client.force_metadata_update()
            raise kafka.LeaderNotAvailableError
        partitions = [(place.topic, [(place.partition, which)])]
        response = await client.send(node, OffsetRequest(-1, isolation, partitions))
        [(_, [(_, error, _, offset)])] = response.topics
        if error:
            client.force_metadata_update()
        _raise_for(error)
        return int(offset)

    async def ticks(self, mark: int = 0) -> list[Tick]:
        """Return the committed ticks of the partition from a mark on, oldest first."""
        clock = TopicPartition(self._outputs.clock, self._source.partition)
        with client_errors(self._client, f"the ticks of {self._source} cannot be read", "Read"):
            consumer = AIOKafkaConsumer(
                **connection_options(self._client),
                isolation_level="read_committed",
                enable_auto_commit=False,
                auto_offset_reset="none",
            )
            try:
                async with asyncio.timeout(READ_SECONDS_MAX):
                    # Other partitions and applications write here, too, and what they have open hides ours behind it.
                    # So the end is that of all records, and is reached once those transactions have ended.
                    end = await self._offset(clock, _LATEST, _READ_UNCOMMITTED)
                    await consumer.start()
                    consumer.assign([clock])
                    ticks = [tick async for tick in self._read_ticks(consumer, clock, mark, end)]
                    self._mark = end
                    return ticks
            finally:
                await consumer.stop()

    async def _read_ticks(
        self, consumer: AIOKafkaConsumer, clock: TopicPartition, mark: int, end: int
    ) -> AsyncIterator[Tick]:
        begin = (await consumer.beginning_offsets([clock]))[clock]
        # A topic that was made anew has not come as far.
        consumer.seek(clock, max(mark, begin) if mark <= end else begin)
        while await consumer.position(clock) < end:
            for record in (await consumer.getmany(clock, timeout_ms=1000)).get(clock, ()):
                if record.key == self._tick_key:
                    yield _tick_of(record.value, str(self._source))

    async def commit(self, step: Step, token: str) -> None:
        """Write all of a step and its position, or nothing."""
        member, self._member = self._member, None
        with client_errors(self._client, f"the transaction of {self._source} failed", "Write"):
            if member is None:
                raise kafka.ProducerClosed
            parts = self._parts(step)
            some = await self._run(lambda: list(islice(parts, _PARTS)))
            offset = OffsetAndMetadata(step.position, f"{token}{_WRITTEN_BY}{self._transactions.name}")
            send = partial(self._send, some, parts, step.tick)
            await self._transactions.commit(Writing(self._input, offset, member, send))
        # After an error only the next open knows what became of it.
        self._member = member
        self._mark = max(self._mark, self._tick_end)

    async def _send(
        self, some: list[_Part], parts: Iterator[_Part], tick: Tick | None, producer: AIOKafkaProducer
    ) -> None:
        """Send everything and wait until the brokers have it: a commit does not fail for a batch that did."""
        sent: list[asyncio.Future[Any]] = []
        try:
            if tick is not None:
                sent.append(asyncio.ensure_future(self._send_tick(producer, tick)))
            while some:
                for topic, batch in chain.from_iterable(some):
                    sent.append(await producer.send_batch(batch, topic, partition=self._source.partition))
                # Most steps are one part: then nobody needs to ask for more.
                some = await self._run(lambda: list(islice(parts, _PARTS))) if len(some) == _PARTS else []
            await asyncio.gather(*sent)
        except BaseException:
            # The others fail too, for the same reason or because the producer is dropped: nobody asks them.
            for each in sent:
                each.cancel()
            raise

    def _parts(self, step: Step) -> Iterator[_Part]:
        """Yield batches with their topics, some at a time, so that a step may be larger than its records' memory."""
        now_ms = time.time_ns() // 1_000_000
        rejected: list[tuple[str, RecordBatch]] = []
        if step.rejections:
            records = self._encoder.rejections(step.rejections, self._source)
            rejected = [
                (self._outputs.rejected, batch) for batch in record_batches(records, timestamp_ms=now_ms)
            ]
        if step.changes.num_rows:
            for changes, current in self._encoder.parts(step.changes):
                part = [
                    (topic, batch)
                    for topic, records in ((self._outputs.changes, changes), (self._outputs.current, current))
                    for batch in record_batches(records, timestamp_ms=now_ms, compression=self._compression)
                ]
                yield part + rejected
                rejected = []
        elif rejected:
            yield rejected

    async def _send_tick(self, producer: AIOKafkaProducer, tick: Tick) -> None:
        written = await producer.send_and_wait(
            self._outputs.clock,
            orjson.dumps(tick._asdict()),
            key=self._tick_key,
            partition=self._source.partition,
        )
        self._tick_end = written.offset + 1

    async def close(self) -> None:
        """Let go: nothing is held."""
        self._member = None


async def _retried(call: Callable[[], Awaitable[_T]]) -> _T:
    """Repeat a call while a broker says that it is not ready for it; whoever calls sets the time."""
    while True:
        try:
            return await call()
        except kafka.KafkaError as error:
            if not error.retriable:
                raise
            await asyncio.sleep(RETRY_BACKOFF_MS / 1000)


def _tick_of(value: bytes, source: str) -> Tick:
    try:
        return Tick(**orjson.loads(value))
    except (orjson.JSONDecodeError, TypeError):
        raise StateError(
            f"the clock topic holds a record of {source} that is no tick", fix="let nobody else write to it"
        ) from None


def _raise_for(code: int) -> None:
    if code:
        error: type[kafka.KafkaError] = kafka.for_code(code)
        raise error
