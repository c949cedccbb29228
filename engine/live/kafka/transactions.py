"""The transactions of a worker, one after another; each holds the steps of all partitions that are ready.

A transaction costs brokers and worker some ten milliseconds, however little it holds. If each of twelve partitions made
its own, they would wait for each other. So steps that become ready while a transaction is under way go into the next
one together.

Why each step is committed exactly once, whichever worker writes it (KIP-447; Kafka Streams: exactly_once_v2):
- One transaction holds the tier changes, rejected rows, ticks and input offsets of its steps.
- A commit names its group generation; the broker rejects older generations. So a worker whose partition was given to
  another one cannot commit.
- A worker that takes a partition over waits until no transaction that writes its offset is open. The metadata of the
  last committed offset names its writer, so the new owner ends a dead worker's transaction at once.
- After any error the producer is thrown away. The next one has the same id and ends what was open.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from itertools import cycle
from typing import Any, Final, NamedTuple
from uuid import uuid4

from aiokafka import TopicPartition
from aiokafka import errors as kafka
from aiokafka.client import AIOKafkaClient
from aiokafka.structs import OffsetAndMetadata

from rfmstream.engine.live.kafka.membership import NOBODY, Membership
from rfmstream.engine.live.kafka.transactional import Batches, TransactionalProducer, close, together
from rfmstream.engine.service.client_config import ClientConfig
from rfmstream.engine.service.kafka.client import TRANSACTION_SECONDS_MAX, connection_options

PRODUCERS: Final = 2
"""They take turns: brokers write the marks of a transaction after they have said that it is committed, and until they
have they send the next one of the same producer away."""

STEPS_MAX: Final = 64
"""Steps of a transaction."""

_END_SECONDS_MAX: Final = 1.0
"""For ending what is open before letting go; brokers that do not answer end it when its time is over."""

_log = logging.getLogger(__name__)


class Writing(NamedTuple):
    """One partition's part of a transaction.

    Fields  place   the input partition; of several that are read as one, the first
            offsets the position of each, and what is noted beside it
            member  who owned it when the step was made
            first   what is written first
            more    returns what is written next; nothing: that was all. None: the first is all
    """

    place: TopicPartition
    offsets: Mapping[TopicPartition, OffsetAndMetadata]
    member: Membership
    first: Batches
    more: Callable[[], Coroutine[Any, Any, Batches]] | None


_Step = tuple[Writing, asyncio.Future[None]]
"""One partition's part, and the future of its caller."""


class Transactions:
    """Commits the steps of a worker's partitions.

    Fields  name    what the transactional ids begin with
            member  who we are in the group, since the last assignment
    Errors  of all methods: aiokafka's, and TimeoutError
    """

    def __init__(self, client: ClientConfig, app_id: str) -> None:
        self.name = f"{app_id}/{uuid4().hex}"
        self.member = NOBODY
        self._config = client
        self._app_id = app_id
        self._client: AIOKafkaClient | None = None
        self._starting = asyncio.Lock()
        self._producers: list[asyncio.Task[TransactionalProducer] | None] = [None] * PRODUCERS
        self._turns = cycle(range(PRODUCERS))
        self._waiting: dict[TopicPartition, _Step] = {}
        self._running: dict[TopicPartition, asyncio.Future[None]] = {}
        self._task: asyncio.Task[None] | None = None
        self._fenced: dict[str, asyncio.Task[None]] = {}

    async def client(self) -> AIOKafkaClient:
        """Return a connected client that asks brokers questions."""
        async with self._starting:
            if self._client is None:
                client = AIOKafkaClient(**connection_options(self._config))
                try:
                    await client.bootstrap()
                except BaseException:
                    await close(client)
                    raise
                self._client = client
            return self._client

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
        """Wait until no step of a partition is under way, after its caller was cancelled."""
        running = self._running.get(place)
        if running is not None:
            await asyncio.wait([running])

    async def fence(self, name: str) -> None:
        """Abort the open transactions of a dead worker; `name` is its transactional-id prefix."""
        if name == self.name:
            return
        if name not in self._fenced or self._fenced[name].done():
            self._fenced[name] = asyncio.create_task(self._end(name))
        # Several callers may wait for it, and one of them may be cancelled.
        await asyncio.shield(self._fenced[name])

    async def close(self) -> None:
        """End the open transaction, which would hide other writers' records, and close; never raises."""
        await _cancel([self._task, *self._fenced.values()])
        starting = [task for task in self._producers if task is not None]
        if starting:
            await asyncio.wait(starting, timeout=_END_SECONDS_MAX)
            await _cancel(starting)
        for number in range(PRODUCERS):
            await self._let_go(number)
        if self._client is not None:
            await close(self._client)

    async def _work(self) -> None:
        while self._waiting:
            steps = [self._waiting.pop(place) for place in list(self._waiting)[:STEPS_MAX]]
            for writing, done in steps:
                if writing.member != self.member:
                    _tell(done, kafka.IllegalGenerationError())
            ours = [step for step in steps if not step[1].done()]
            if ours:
                await self._commit_together(next(self._turns), ours)

    async def _commit_together(self, number: int, steps: list[_Step]) -> None:
        self._running = {writing.place: done for writing, done in steps}
        error: BaseException | None = None
        try:
            async with asyncio.timeout(TRANSACTION_SECONDS_MAX):
                await self._transact(
                    await asyncio.shield(self._producer(number)), [writing for writing, _ in steps]
                )
        except BaseException as raised:
            error = raised
            await self._renew(number)
            if not isinstance(raised, Exception):
                raise
        finally:
            for _, done in steps:
                _tell(done, error)
            self._running = {}

    async def _transact(self, producer: TransactionalProducer, some: Sequence[Writing]) -> None:
        first = [placed for writing in some for placed in writing.first]
        offsets = {place: offset for writing in some for place, offset in writing.offsets.items()}
        await producer.begin((place for place, _ in first), self._app_id)
        # In the name under which the steps were made: since then the partitions may have been another worker's.
        member = some[0].member
        await together(
            producer.commit_offsets(offsets, self._app_id, member), self._write(producer, first, some)
        )
        await producer.commit()

    @staticmethod
    async def _write(producer: TransactionalProducer, first: Batches, some: Sequence[Writing]) -> None:
        written = asyncio.Event()

        async def write_first() -> None:
            await producer.write(first)
            written.set()

        rest = [writing.more for writing in some if writing.more is not None]
        await together(write_first(), *(_write_more(producer, written, more) for more in rest))

    def _producer(self, number: int) -> asyncio.Task[TransactionalProducer]:
        """Return who starts a producer, or has started it."""
        task = self._producers[number]
        if task is None or (task.done() and not _has_result(task)):
            task = self._producers[number] = asyncio.create_task(self._started(_id_of(self.name, number)))
            task.add_done_callback(_has_result)
        return task

    async def _renew(self, number: int) -> None:
        """Throw a producer away; the next one ends its open transaction, which hides other writers' records."""
        if self._producer(number).done():
            await self._let_go(number)
            self._producer(number)

    async def _let_go(self, number: int) -> None:
        task, self._producers[number] = self._producers[number], None
        if task is not None and _has_result(task):
            await task.result().close()

    async def _started(self, name: str) -> TransactionalProducer:
        producer = TransactionalProducer(self._config, name, timeout_ms=TRANSACTION_SECONDS_MAX * 1000)
        try:
            await producer.start()
        except BaseException:
            await producer.close()
            raise
        return producer

    async def _end(self, name: str) -> None:
        for number in range(PRODUCERS):
            await (await self._started(_id_of(name, number))).close()
        _log.info("transactions of a worker that is gone ended", extra={"id": name})


async def _write_more(
    producer: TransactionalProducer, before: asyncio.Event, more: Callable[[], Coroutine[Any, Any, Batches]]
) -> None:
    """Write what there is more of a step, behind what comes before; the next is made while brokers take that."""
    batches = await more()
    await before.wait()
    while batches:
        made, _ = await together(more(), producer.write(batches))
        batches = made or ()


async def _cancel(tasks: Iterable[asyncio.Task[Any] | None]) -> None:
    some = [task for task in tasks if task is not None]
    for task in some:
        task.cancel()
    if some:
        await asyncio.wait(some)


def _has_result(task: asyncio.Task[Any]) -> bool:
    """Tell whether a task has ended well; where it has not, its error counts as seen."""
    return not task.cancelled() and task.exception() is None


def _id_of(name: str, number: int) -> str:
    return f"{name}/{number}"


def _tell(done: asyncio.Future[None], error: BaseException | None) -> None:
    if error is None:
        done.set_result(None)
        return
    done.set_exception(error if isinstance(error, Exception) else kafka.ProducerClosed())
    done.exception()  # seen, whether or not anybody waits
