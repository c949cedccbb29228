"""A partition's log on Kafka: its offsets, its ticks, and its part of the worker's transactions."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from itertools import chain, islice
from types import MappingProxyType
from typing import Final, NamedTuple, TypeVar

import orjson
import xxhash
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka import errors as kafka
from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.structs import OffsetAndMetadata

from rfmstream.engine.live.config import OutputTopics
from rfmstream.engine.live.encode import EncodedRecords, Encoder
from rfmstream.engine.live.kafka.batches import Compression, RecordBatch, batch_of_one, record_batches
from rfmstream.engine.live.kafka.client import client_errors
from rfmstream.engine.live.kafka.groups import WRITTEN_BY
from rfmstream.engine.live.kafka.membership import UNSTABLE_OFFSET_COMMIT, Membership, OffsetFetch
from rfmstream.engine.live.kafka.transactional import Batches, together
from rfmstream.engine.live.kafka.transactions import Transactions, Writing
from rfmstream.engine.live.model import Bounds, Committed, Runs, Source, Step, Tick, Told
from rfmstream.engine.service.client_config import ClientConfig
from rfmstream.engine.service.kafka.client import RETRY_BACKOFF_MS, connection_options
from rfmstream.schemas.errors import ConfigError, StateError

_T = TypeVar("_T")

OPEN_SECONDS_MAX: Final = 40
READ_SECONDS_MAX: Final = 90
"""Enough for a broker to abort the transaction of a dead owner: it looks for expired transactions every 10 s."""
UNSTABLE_SECONDS_MAX: Final = 1.0
"""How long a worker that has just given up the partition may take to end its transaction."""

_WRITES_TO: Final = "#"
"""Precedes the digest of the writer's output topics in the offset metadata."""
_SIGNALS_TO: Final = "+"
"""Precedes the digest of the signals topic in the offset metadata, where the ruleset asks for signals."""

_PARTS: Final = 12
"""Batches of a step that are encoded at a time, for each of the two topics of changes."""
_SMALL_ROWS: Final = 2_048
"""A step of at most so many changes, signals and rejected rows is encoded on the event loop, at once."""
_EARLIEST: Final = -2
_LATEST: Final = -1
_READ_UNCOMMITTED: Final = 0
_READ_COMMITTED: Final = 1


class ViewOutput(NamedTuple):
    """How what a view tells is written."""

    encoder: Encoder
    is_shadow: bool = False


NO_VIEWS: Final[Mapping[str, ViewOutput]] = MappingProxyType({})


class KafkaPartitionLog:
    """Implements engine.live.model.PartitionLog for one input partition.

    In      transactions  the worker's
            app_id        the consumer group
            encoder       of tier changes, signals and rejected rows
            views         by name, where there are several: what encodes what they tell
            compression   of tier changes and signals
            run           calls a function here or in another thread
            partitions    of the input topic
            accept_gap    let other output topics take over, which lack what was told before
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
        views: Mapping[str, ViewOutput] = NO_VIEWS,
        compression: Compression | None = None,
        run: Runs,
        partitions: int = 1,
        accept_gap: bool = False,
    ) -> None:
        self._source = source
        self._partitions = partitions
        self._accept_gap = accept_gap
        topics = outputs.changes, outputs.current, outputs.rejected, outputs.clock
        self._writes_to = xxhash.xxh3_64_hexdigest(" ".join(topics).encode())
        self._signals_to = ""
        self._read = [outputs.changes, outputs.current, outputs.rejected]
        if encoder.tells_signals or any(
            of.encoder.tells_signals and not of.is_shadow for of in views.values()
        ):
            self._signals_to = xxhash.xxh3_64_hexdigest(outputs.signals.encode())
            self._read.append(outputs.signals)
        self._rival: str | None = None
        self._transactions = transactions
        self._client = client
        self._app_id = app_id
        self._outputs = outputs
        self._encoder = encoder
        self._views = views
        if any(of.is_shadow for of in views.values()):
            self._read.append(outputs.shadow)
        self._compression = compression
        self._run = run
        self._input = TopicPartition(source.topic, source.partition)
        self._clock = TopicPartition(outputs.clock, source.partition)
        self._tick_key = f"{app_id}/{source.topic}".encode()
        self._member: Membership | None = None
        self._mark = 0

    @property
    def mark(self) -> int:
        """The offset of the clock topic behind the last tick that was read or committed here."""
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
                client = await self._transactions.client()
                committed = await self._stable(client)
                await self._refuse_other_outputs(client)
        self._member = member
        return committed

    async def _stable(self, client: AIOKafkaClient) -> Committed:
        """Return what is committed, once no open transaction can change it or hide records written after it."""
        clock = asyncio.get_running_loop()
        patience = clock.time() + UNSTABLE_SECONDS_MAX
        has_fenced = False
        while True:
            found = await _retried(lambda: self._fetch_offset(client, stable=True))
            # Other writers of these topics may go on; the earlier owner of this partition has ended.
            if found is not None and (has_fenced or not await self._is_hidden(client)):
                return found[0]
            if clock.time() > patience:
                before = await _retried(lambda: self._fetch_offset(client, stable=False))
                if before is not None and before[1]:
                    await self._transactions.fence(before[1])
                has_fenced = True
                patience = clock.time() + UNSTABLE_SECONDS_MAX
            await asyncio.sleep(RETRY_BACKOFF_MS / 1000)

    async def _refuse_other_outputs(self, client: AIOKafkaClient) -> None:
        """Refuse to go on where workers of this app write to other topics: the changes would be here and there.

        Errors  ConfigError  in any partition of the input
        """
        if self._accept_gap:
            return
        numbers = range(self._partitions)
        notes = await _retried(lambda: self._fetch_notes(client, numbers))
        for number, note in notes.items():
            writes_to, _, signals_to = note.partition(_WRITES_TO)[2].partition(_SIGNALS_TO)
            # A ruleset that asks for no signals knows of no topic of theirs.
            if self._signals_to and signals_to and signals_to != self._signals_to:
                raise ConfigError(
                    f"workers of app {self._app_id} write the signals of {self._source.topic}-{number} to another "
                    "topic than these settings name",
                    key="signals_topic",
                    fix="give all workers of an app the same signals_topic; to move an app after a stop, --accept-gap: "
                    "the new topic lacks what was told before",
                )
            if writes_to and writes_to != self._writes_to:
                raise ConfigError(
                    f"workers of app {self._app_id} write the changes of {self._source.topic}-{number} to other topics "
                    "than these settings name",
                    key="changes_topic",
                    fix="give all workers of an app the same changes_topic, current_topic, rejected_topic and "
                    "clock_topic; to move an app after a stop, --accept-gap: the new topics lack what was told before",
                )

    async def _fetch_notes(self, client: AIOKafkaClient, numbers: Sequence[int]) -> dict[int, str]:
        """Return the metadata of the committed offsets of partitions."""
        node = await client.coordinator_lookup(CoordinationType.GROUP, self._app_id)
        request = OffsetFetch(self._app_id, self._source.topic, *numbers, stable=False)
        response = await client.send(node, request, group=ConnectionGroup.COORDINATION)
        _raise_for(response.error_code)
        [(_, partitions, _)] = response.topics
        for _, _, _, _, error, _ in partitions:
            _raise_for(error)
        return {number: note or "" for number, _, _, note, _, _ in partitions}

    async def _is_hidden(self, client: AIOKafkaClient) -> bool:
        """Tell whether an open transaction hides our partition's newest records from consumers of committed records."""
        ends = await together(
            *(
                self._offset(client, TopicPartition(topic, self._source.partition), _LATEST, isolation)
                for isolation in (_READ_COMMITTED, _READ_UNCOMMITTED)
                for topic in self._read
            )
        )
        return ends[: len(self._read)] != ends[len(self._read) :]

    async def _fetch_offset(self, client: AIOKafkaClient, *, stable: bool) -> tuple[Committed, str] | None:
        """Return what is committed and its writer's transactional-id prefix; None: a transaction may change it."""
        # Not the admin client's method: it takes a coordinator that is still loading for a group without offsets, which
        # would begin the partition again from its start.
        node = await client.coordinator_lookup(CoordinationType.GROUP, self._app_id)
        request = OffsetFetch(self._app_id, *self._source, stable=stable)
        response = await client.send(node, request, group=ConnectionGroup.COORDINATION)
        _raise_for(response.error_code)
        [(_, [(_, offset, _, note, error, _)], _)] = response.topics
        if error == UNSTABLE_OFFSET_COMMIT:
            return None
        _raise_for(error)
        token, _, writer = (note or "").partition(WRITTEN_BY)
        writer = writer.partition(_WRITES_TO)[0]
        return Committed(offset if offset >= 0 else None, token), writer

    async def bounds(self) -> Bounds:
        """Return the offsets the input partition holds; its end is that of committed transactions."""
        with client_errors(self._client, f"the offsets of {self._source} cannot be read", "Read"):
            async with asyncio.timeout(OPEN_SECONDS_MAX):
                client = await self._transactions.client()
                begin = await self._offset(client, self._input, _EARLIEST, _READ_COMMITTED)
                return Bounds(begin, await self._offset(client, self._input, _LATEST, _READ_COMMITTED))

    async def _offset(self, client: AIOKafkaClient, place: TopicPartition, which: int, isolation: int) -> int:
        await client._wait_on_metadata(place.topic)  # noqa: SLF001 - producers have no other way
        return await _retried(lambda: self._asked_offset(client, place, which, isolation))

    @staticmethod
    async def _asked_offset(client: AIOKafkaClient, place: TopicPartition, which: int, isolation: int) -> int:
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
        clock = self._clock
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
                    client = await self._transactions.client()
                    end = await self._offset(client, clock, _LATEST, _READ_UNCOMMITTED)
                    await consumer.start()
                    consumer.assign([clock])
                    ticks: list[Tick] = []
                    async for tick in self._read_ticks(consumer, clock, mark, end):
                        if tick is None:
                            ticks.clear()
                        else:
                            ticks.append(tick)
                    self._mark = end
                    return ticks
            finally:
                await consumer.stop()

    async def _read_ticks(
        self, consumer: AIOKafkaConsumer, clock: TopicPartition, mark: int, end: int
    ) -> AsyncIterator[Tick | None]:
        """Yield the ticks; None: the history of before was ended by `rfmstream state reset`."""
        begin = (await consumer.beginning_offsets([clock]))[clock]
        # A topic that was made anew has not come as far.
        consumer.seek(clock, max(mark, begin) if mark <= end else begin)
        while await consumer.position(clock) < end:
            for record in (await consumer.getmany(clock, timeout_ms=1000)).get(clock, ()):
                if record.key == self._tick_key:
                    yield None if record.value is None else _tick_of(record.value, str(self._source))
                elif record.key is not None:
                    self._look_at_other(record.key, record.value)

    def _look_at_other(self, key: bytes, value: bytes | None) -> None:
        """Remember an app that writes its newest changes to our current topic."""
        app, _, _ = key.decode("utf-8", "replace").partition("/")
        if value is None:
            self._rival = None if self._rival == app else self._rival
            return
        try:
            tick = Tick(**orjson.loads(value))
        except (orjson.JSONDecodeError, TypeError):
            return
        if tick.current == self._outputs.current and app != self._app_id:
            self._rival = app

    async def commit(self, step: Step, token: str) -> None:
        """Write all of a step and its position, or nothing."""
        member, self._member = self._member, None
        begins = step.tick is not None and step.tick.current is not None
        if begins and self._rival is not None and not self._accept_gap:
            raise ConfigError(
                f"app {self._rival} keeps its newest changes in {self._outputs.current}: of a customer of both, "
                "compaction would keep one",
                key="current_topic",
                fix="name another current_topic for this app, or --accept-gap if that app is gone for good",
            )
        with client_errors(self._client, f"the transaction of {self._source} failed", "Write"):
            if member is None:
                raise kafka.ProducerClosed
            parts = self._parts(step)

            async def some() -> Batches:
                return await self._run(lambda: list(chain.from_iterable(islice(parts, _PARTS))))

            rows = len(step.rejections)
            for told in step.told:
                rows += told.changes.num_rows + len(told.forgotten)
                rows += 0 if told.signals is None else told.signals.num_rows
            is_small = rows <= _SMALL_ROWS
            first = list(chain.from_iterable(parts)) if is_small else await some()
            tick = None if step.tick is None else self._batch_of(step.tick)
            if tick is not None:
                first = [*first, (self._clock, tick)]
            note = f"{token}{WRITTEN_BY}{self._transactions.name}{_WRITES_TO}{self._writes_to}"
            if self._signals_to:
                note += f"{_SIGNALS_TO}{self._signals_to}"
            offset = OffsetAndMetadata(step.position, note)
            await self._transactions.commit(
                Writing(self._input, offset, member, first, None if is_small else some)
            )
        # After an error only the next `open` learns whether the commit happened.
        self._member = member
        if tick is not None:
            self._mark = max(self._mark, tick.offset + 1)
        if begins:
            # Of two that begin at the same moment the second one sees the first.
            with client_errors(self._client, f"the offsets of {self._source} cannot be read", "Read"):
                await self._refuse_other_outputs(await self._transactions.client())

    def _parts(self, step: Step) -> Iterator[Batches]:
        """Yield batches and their places, some at a time, so that a step may be larger than its records' memory."""
        now_ms = time.time_ns() // 1_000_000
        number = self._source.partition
        if step.rejections:
            records = self._encoder.rejections(step.rejections, self._source)
            place = TopicPartition(self._outputs.rejected, number)
            yield [(place, batch) for batch in record_batches(records, timestamp_ms=now_ms)]
        for told in step.told:
            of = self._views.get(told.view) or ViewOutput(self._encoder)
            yield from self._told_parts(told, of, now_ms)

    def _told_parts(self, told: Told, of: ViewOutput, now_ms: int) -> Iterator[Batches]:
        """Yield the batches of what a view tells; a shadow's changes go where no automation listens."""
        outputs, number = self._outputs, self._source.partition
        if told.changes.num_rows or told.forgotten:
            topics = (outputs.shadow,) if of.is_shadow else (outputs.changes, outputs.current)
            for changes, current in of.encoder.parts(told.changes, told.forgotten):
                some = self._batches(changes, now_ms)
                made = [some]
                if not of.is_shadow:
                    is_same = current is changes
                    made.append(
                        [batch.copy() for batch in some] if is_same else self._batches(current, now_ms)
                    )
                yield [
                    (TopicPartition(topic, number), batch)
                    for topic, batches in zip(topics, made, strict=True)
                    for batch in batches
                ]
        if told.signals is not None and not of.is_shadow:
            place = TopicPartition(outputs.signals, number)
            for signals in of.encoder.signals(told.signals):
                yield [(place, batch) for batch in self._batches(signals, now_ms)]

    def _batches(self, records: EncodedRecords, now_ms: int) -> list[RecordBatch]:
        return list(record_batches(records, timestamp_ms=now_ms, compression=self._compression))

    def _batch_of(self, tick: Tick) -> RecordBatch:
        return batch_of_one(
            self._tick_key, orjson.dumps(tick.noted()), timestamp_ms=time.time_ns() // 1_000_000
        )

    async def close(self) -> None:
        """Let go: nothing is held."""
        self._member = None


async def _retried(call: Callable[[], Awaitable[_T]]) -> _T:
    """Repeat a call while a broker answers that it is not ready for it; the caller limits the time."""
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
