"""The transactions of a worker: one producer, and in each transaction the steps of all partitions that are ready.

A transaction costs brokers and worker some ten milliseconds of work, however little it holds, so twelve partitions that
each make their own wait for each other. While one is under way the next steps gather, and go together into the next.

What makes it exactly once, whichever worker writes (KIP-447, what Kafka Streams calls exactly_once_v2):
- tier changes, rejected rows, ticks and input offsets of all steps are one transaction;
- it says of which generation of the group it is: once the group has given a partition to another, it is refused;
- who takes a partition over waits until no transaction that writes its offset is open. One of a worker that died is
  ended at once by whoever takes over: its transactional id stands beside the last offset it committed;
- after any error the producer is thrown away: the next one, of the same id, ends what was open.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, NamedTuple
from uuid import uuid4

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka import errors as kafka
from aiokafka.producer import sender
from aiokafka.structs import OffsetAndMetadata

from engine.live.config import ClientConfig
from engine.live.kafka.client import connection_options
from engine.live.kafka.membership import NOBODY, Membership, commit_as

TRANSACTION_SECONDS_MAX: Final = 60
TRANSACTION_BACKOFF_MS: Final = 4
"""Brokers send a transaction away that begins while the marks of the last one are being written, and records that come
before they have learnt of its beginning: both pass within a few milliseconds."""

STEPS_MAX: Final = 64
"""Steps of a transaction: each is up to a megabyte a topic in one request, of which brokers take a hundred."""

CLOSE_SECONDS_MAX: Final = 0.5

_log = logging.getLogger(__name__)

sender.BACKOFF_OVERRIDE = TRANSACTION_BACKOFF_MS / 1000


class _Expected(logging.Filter):
    """Leaves out what says nothing: a broker answers so until it has learnt that a transaction has begun (KIP-890)."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a line is to be logged."""
        return kafka.NotEnoughReplicasError not in (record.args or ())


logging.getLogger("aiokafka.producer.sender").addFilter(_Expected())


class Writing(NamedTuple):
    """One partition's part of a transaction.

    Fields  place   the input partition
            offset  its position, and what is noted beside it
            member  who owned it when the step was made
            send    sends the records and waits until the brokers have them
    """

    place: TopicPartition
    offset: OffsetAndMetadata
    member: Membership
    send: Callable[[AIOKafkaProducer], Coroutine[Any, Any, None]]


_Step = tuple[Writing, asyncio.Future[None]]
"""One partition's part, and who waits for it."""


class Transactions:
    """Commits the steps of a worker's partitions.

    Fields  name    the transactional id
            member  who we are in the group, since the last assignment
    Errors  of all methods: aiokafka's, and TimeoutError
    """

    def __init__(self, client: ClientConfig, app_id: str) -> None:
        self.name = f"{app_id}/{uuid4().hex}"
        self.member = NOBODY
        self._client = client
        self._app_id = app_id
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()
        self._waiting: dict[TopicPartition, _Step] = {}
        self._running: dict[TopicPartition, asyncio.Future[None]] = {}
        self._task: asyncio.Task[None] | None = None
        self._fenced: dict[str, asyncio.Task[None]] = {}

    async def producer(self) -> AIOKafkaProducer:
        """Return the producer, started; whatever an earlier one of ours had left open is ended."""
        async with self._starting:
            if self._producer is None:
                self._producer = await self._started(self.name)
            return self._producer

    async def commit(self, writing: Writing) -> None:
        """Commit a step, together with others; after an error it is unknown whether that happened."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        assert writing.place not in self._waiting, "a partition makes one step after the other"
        self._waiting[writing.place] = writing, done
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())
        try:
            await asyncio.shield(done)
        except asyncio.CancelledError:
            self._waiting.pop(writing.place, None)
            raise

    async def settle(self, place: TopicPartition) -> None:
        """Wait until no step of a partition is under way; nobody waits for it any more."""
        running = self._running.get(place)
        if running is not None:
            await asyncio.wait([running])

    async def fence(self, name: str) -> None:
        """End for good what a worker that is gone has left open; `name` is its transactional id."""
        if name == self.name:
            return
        if name not in self._fenced or self._fenced[name].done():
            self._fenced[name] = asyncio.create_task(self._end(name))
        # Several may wait for it, and one of them may give up.
        await asyncio.shield(self._fenced[name])

    async def close(self) -> None:
        """Let go; never raises."""
        tasks = [task for task in (self._task, *self._fenced.values()) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._drop()

    async def _work(self) -> None:
        while self._waiting:
            steps = [self._waiting.pop(place) for place in list(self._waiting)[:STEPS_MAX]]
            for writing, done in steps:
                if writing.member != self.member:
                    _tell(done, kafka.IllegalGenerationError())
            ours = [step for step in steps if not step[1].done()]
            if ours:
                await self._commit_together(ours)

    async def _commit_together(self, steps: list[_Step]) -> None:
        self._running = {writing.place: done for writing, done in steps}
        error: BaseException | None = None
        try:
            await self._transact([writing for writing, _ in steps])
        except BaseException as raised:
            error = raised
            # What became of the transaction is known to the next producer alone.
            await self._drop()
            if not isinstance(raised, Exception):
                raise
        finally:
            for _, done in steps:
                _tell(done, error)
            self._running = {}

    async def _transact(self, some: list[Writing]) -> None:
        async with asyncio.timeout(TRANSACTION_SECONDS_MAX):
            producer = await self.producer()
            await producer.begin_transaction()
            # Not as whoever we are by now: since the steps were made the partitions may have been another's.
            commit_as(producer, some[0].member)
            offsets = {writing.place: writing.offset for writing in some}
            try:
                # All begin before the client has its turn: so all partitions join the transaction in one request.
                async with asyncio.TaskGroup() as group:
                    group.create_task(producer.send_offsets_to_transaction(offsets, self._app_id))
                    for writing in some:
                        group.create_task(writing.send(producer))
            except BaseExceptionGroup as errors:
                raise errors.exceptions[0] from None
            await producer.commit_transaction()

    async def _started(self, name: str) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(
            **(connection_options(self._client) | {"retry_backoff_ms": TRANSACTION_BACKOFF_MS}),
            transactional_id=name,
            transaction_timeout_ms=TRANSACTION_SECONDS_MAX * 1000,
        )
        try:
            await producer.start()
        except BaseException:
            await _stop(producer)
            raise
        return producer

    async def _end(self, name: str) -> None:
        await _stop(await self._started(name))
        _log.info("transaction of a worker that is gone ended", extra={"id": name})

    async def _drop(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await _stop(producer)


def _tell(done: asyncio.Future[None], error: BaseException | None) -> None:
    if error is None:
        done.set_result(None)
        return
    done.set_exception(error if isinstance(error, Exception) else kafka.ProducerClosed())
    done.exception()  # seen, whether or not anybody waits


async def _stop(producer: AIOKafkaProducer) -> None:
    # A producer that has lost its broker would wait for it for ever.
    with suppress(Exception):
        async with asyncio.timeout(CLOSE_SECONDS_MAX):
            await producer.stop()
    with suppress(Exception):
        await producer.client.close()
    end = producer._txn_manager.wait_for_transaction_end()  # noqa: SLF001 - else its error counts as unseen
    if end is not None and end.done() and not end.cancelled():
        end.exception()
