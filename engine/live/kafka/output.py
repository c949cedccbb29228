"""A partition's log on Kafka: its offsets, its ticks, and its part of the worker's transactions."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka import errors as kafka
from aiokafka.client import AIOKafkaClient
from aiokafka.structs import OffsetAndMetadata

from rfmstream.engine.live.config import OutputTopics
from rfmstream.engine.live.encode import EncodedRecords, Encoder
from rfmstream.engine.live.kafka.batches import Compression, RecordBatch, batch_of_one, record_batches
from rfmstream.engine.live.kafka.client import client_errors
from rfmstream.engine.live.kafka.offset_notes import OffsetNote, digest_of_topics, inputs_of
from rfmstream.engine.live.kafka.offsets import (
    EARLIEST,
    LATEST,
    READ_COMMITTED,
    READ_UNCOMMITTED,
    fetch_offsets,
    partition_offset,
    retried,
)
from rfmstream.engine.live.kafka.transactional import Batches, together
from rfmstream.engine.live.kafka.transactions import Transactions, Writing
from rfmstream.engine.live.model import Bounds, Committed, Rejection, Runs, Source, Step, Tick, Told
from rfmstream.engine.service.client_config import ClientConfig
from rfmstream.engine.service.kafka.client import RETRY_BACKOFF_MS, connection_options
from rfmstream.schemas.errors import ConfigError, StateError

if TYPE_CHECKING:
    from rfmstream.engine.live.kafka.membership import Membership

OPEN_SECONDS_MAX: Final = 40
READ_SECONDS_MAX: Final = 90
"""Enough for a broker to abort the transaction of a dead owner: it looks for expired transactions every 10 s."""
UNSTABLE_SECONDS_MAX: Final = 1.0
"""How long a worker that has just given up the partition may take to end its transaction."""

_PARTS: Final = 12
"""Batches of a step that are encoded at a time, for each of the two topics of changes."""
_SMALL_ROWS: Final = 2_048
"""A step of at most so many changes, signals and rejected rows is encoded on the event loop, at once."""


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
        self._writes_to = digest_of_topics(*topics)
        self._signals_to = ""
        self._read = [outputs.changes, outputs.current, outputs.rejected]
        if encoder.tells_signals or any(
            of.encoder.tells_signals and not of.is_shadow for of in views.values()
        ):
            self._signals_to = digest_of_topics(outputs.signals)
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
        self._inputs = [TopicPartition(*part) for part in source.parts]
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
                await self._transactions.settle(self._inputs[0])
                client = await self._transactions.client()
                committed = await self._stable(client)
                await self._refuse_others(client)
        self._member = member
        return committed

    async def _stable(self, client: AIOKafkaClient) -> Committed:
        """Return what is committed, once no open transaction can change it or hide records written after it."""
        clock = asyncio.get_running_loop()
        patience = clock.time() + UNSTABLE_SECONDS_MAX
        has_fenced = False
        while True:
            found = await retried(lambda: self._fetch_committed(client, stable=True))
            # Other writers of these topics may go on; the earlier owner of this partition has ended.
            if found is not None and (has_fenced or not await self._is_hidden(client)):
                return found[0]
            if clock.time() > patience:
                before = await retried(lambda: self._fetch_committed(client, stable=False))
                if before is not None and before[1]:
                    await self._transactions.fence(before[1])
                has_fenced = True
                patience = clock.time() + UNSTABLE_SECONDS_MAX
            await asyncio.sleep(RETRY_BACKOFF_MS / 1000)

    async def _refuse_others(self, client: AIOKafkaClient) -> None:
        """Refuse to go on where workers of this app read other topics, or write to others, which parts the changes.

        Errors  ConfigError  in any partition of the inputs
        """
        places = dict.fromkeys((one.topic for one in self._inputs), range(self._partitions))
        found = await retried(lambda: fetch_offsets(client, self._app_id, places, stable=False))
        notes = {source: note for source, (_, note) in (found or {}).items()}
        for source, note in notes.items():
            if note.token and note.inputs != inputs_of(self._source):
                raise ConfigError(
                    f"workers of app {self._app_id} read {source.topic} "
                    f"{'together with other topics than these' if note.inputs else 'by itself'}",
                    key="input_topics",
                    fix="name the topics they read; to read others as well, begin anew with another app_id and other "
                    "output topics: the topics are then read from their first records",
                )
        for source, note in {} if self._accept_gap else notes.items():
            # A ruleset that asks for no signals knows of no topic of theirs.
            if self._signals_to and note.signals and note.signals != self._signals_to:
                raise ConfigError(
                    f"workers of app {self._app_id} write the signals of {source} to another "
                    "topic than these settings name",
                    key="signals_topic",
                    fix="give all workers of an app the same signals_topic; to move an app after a stop, --accept-gap: "
                    "the new topic lacks what was told before",
                )
            if note.outputs and note.outputs != self._writes_to:
                raise ConfigError(
                    f"workers of app {self._app_id} write the changes of {source} to other topics "
                    "than these settings name",
                    key="changes_topic",
                    fix="give all workers of an app the same changes_topic, current_topic, rejected_topic and "
                    "clock_topic; to move an app after a stop, --accept-gap: the new topics lack what was told before",
                )

    async def _is_hidden(self, client: AIOKafkaClient) -> bool:
        """Tell whether an open transaction hides our partition's newest records from consumers of committed records."""
        ends = await together(
            *(
                partition_offset(client, TopicPartition(topic, self._source.partition), LATEST, isolation)
                for isolation in (READ_COMMITTED, READ_UNCOMMITTED)
                for topic in self._read
            )
        )
        return ends[: len(self._read)] != ends[len(self._read) :]

    async def _fetch_committed(self, client: AIOKafkaClient, *, stable: bool) -> tuple[Committed, str] | None:
        """Return what is committed and its writer's transactional-id prefix; None: a transaction may change it."""
        places = {place.topic: [place.partition] for place in self._inputs}
        found = await fetch_offsets(client, self._app_id, places, stable=stable)
        return None if found is None else self._as_committed(found)

    def _as_committed(self, found: Mapping[Source, tuple[int, OffsetNote]]) -> tuple[Committed, str]:
        """Return what the offsets of the inputs and their notes say."""
        [(offset, note)] = found.values()
        return Committed(offset if offset >= 0 else None, note.token), note.writer

    async def bounds(self) -> Bounds:
        """Return the offsets the input partition holds; its end is that of committed transactions."""
        with client_errors(self._client, f"the offsets of {self._source} cannot be read", "Read"):
            async with asyncio.timeout(OPEN_SECONDS_MAX):
                client = await self._transactions.client()
                found = [
                    Bounds(
                        await partition_offset(client, place, EARLIEST, READ_COMMITTED),
                        await partition_offset(client, place, LATEST, READ_COMMITTED),
                    )
                    for place in self._inputs
                ]
                return self._together(found)

    def _together(self, found: Sequence[Bounds]) -> Bounds:
        """Return the offsets that the inputs hold as one."""
        [bounds] = found
        return bounds

    def place(self, offset: int) -> tuple[Source, int]:
        """Return where a record is: where it says."""
        return self._source, offset

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
                    end = await partition_offset(client, clock, LATEST, READ_UNCOMMITTED)
                    await consumer.start()
                    consumer.assign([clock])
                    ticks: list[Tick] = []
                    async for tick in self._read_ticks(consumer, clock, mark, end):
                        if tick is None:
                            ticks.clear()
                            self._forget_notes()
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
                    tick = None if record.value is None else self._tick_of(record.value)
                    if record.value is None or tick is not None:
                        yield tick
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
            noted = self._noted(step, token)
            first = [*first, *((self._clock, batch) for batch in noted)]
            inputs = inputs_of(self._source)
            note = OffsetNote(token, self._transactions.name, self._writes_to, self._signals_to, inputs)
            offsets = {
                place: OffsetAndMetadata(offset, str(note))
                for place, offset in self._positions(step.position)
            }
            await self._transactions.commit(
                Writing(self._inputs[0], offsets, member, first, None if is_small else some)
            )
        # After an error only the next `open` learns whether the commit happened.
        self._member = member
        if noted:
            self._mark = max(self._mark, noted[-1].offset + 1)
        if begins:
            # Of two that begin at the same moment the second one sees the first.
            with client_errors(self._client, f"the offsets of {self._source} cannot be read", "Read"):
                await self._refuse_others(await self._transactions.client())

    def _positions(self, position: int) -> Iterable[tuple[TopicPartition, int]]:
        """Return the offset to commit of each input."""
        return [(self._inputs[0], position)]

    def _noted(self, step: Step, token: str) -> list[RecordBatch]:  # noqa: ARG002 - others need it
        """Return what goes into the clock topic."""
        return [] if step.tick is None else [self._batch_of(step.tick.noted())]

    def _parts(self, step: Step) -> Iterator[Batches]:
        """Yield batches and their places, some at a time, so that a step may be larger than its records' memory."""
        now_ms = time.time_ns() // 1_000_000
        number = self._source.partition
        for source, rows in self._rejected(step.rejections):
            records = self._encoder.rejections(rows, source)
            place = TopicPartition(self._outputs.rejected, number)
            yield [(place, batch) for batch in record_batches(records, timestamp_ms=now_ms)]
        for told in step.told:
            of = self._views.get(told.view) or ViewOutput(self._encoder)
            yield from self._told_parts(told, of, now_ms)

    def _rejected(self, rows: Sequence[Rejection]) -> Iterable[tuple[Source, Sequence[Rejection]]]:
        """Return rejected rows by the partition they came from, with their offsets there."""
        return [(self._source, rows)] if rows else []

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

    def _batch_of(self, noted: Mapping[str, Any]) -> RecordBatch:
        return batch_of_one(self._tick_key, orjson.dumps(noted), timestamp_ms=time.time_ns() // 1_000_000)

    def _tick_of(self, value: bytes) -> Tick | None:
        """Return the tick that a note of this partition is; None: it is another one."""
        try:
            return Tick(**orjson.loads(value))
        except (orjson.JSONDecodeError, TypeError):
            raise self._no_tick() from None

    def _forget_notes(self) -> None:
        """Take note that what was noted before is of a history that has ended."""

    def _no_tick(self) -> StateError:
        return StateError(
            f"the clock topic holds a record of {self._source} that is no tick",
            fix="let nobody else write to it",
        )

    async def close(self) -> None:
        """Let go: nothing is held."""
        self._member = None
