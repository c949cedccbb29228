"""Faust's transport, with one message for each poll: it holds the fetches of all partitions.

Faust spends some 100 µs on a message (docs/experiments.md). A poll brings thousands of records, so a record costs
next to nothing, and no partition waits for another one's fetch. Other differences from Faust's own driver, and their
reasons:

- Only a partition's lane seeks. After an assignment a partition is paused until its lane has recovered the state and
  says where to read. Faust's own seeks, to the committed offsets, do nothing.
- Each seek has a number. A fetch carries the number of the seek before it, and the offset at which it begins. So a lane
  recognises fetches of before a rebalance, and notices fetches that were dropped: Faust drops messages while its flow
  is off.
- An offset out of range is an error, since only the checkpoints tell which records are missing.
- Messages have running numbers instead of offsets, since Faust drops a message whose offset is lower than an earlier
  one.

The consumer runs in a thread of its own, with its own event loop, so that heartbeats go out whatever the worker does.
"""

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, NamedTuple

import faust
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka import errors as kafka
from aiokafka.client import AIOKafkaClient
from faust.app.base import BootStrategy
from faust.tables.manager import TableManager
from faust.transport.drivers import TRANSPORTS
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage
from mode import Service
from mode.threads import ServiceThread, WorkerThread

from rfmstream.engine.live.config import WorkerConfig
from rfmstream.engine.live.kafka import fetches
from rfmstream.engine.live.kafka.assignor import assignor_of
from rfmstream.engine.live.kafka.client import as_rfm_error
from rfmstream.engine.live.kafka.codecs import BATCH_BYTES_MAX
from rfmstream.engine.live.kafka.fetches import as_fetched, raw_records
from rfmstream.engine.live.kafka.membership import NOBODY, Membership
from rfmstream.engine.live.model import RawRecords, Source
from rfmstream.engine.service.kafka.client import connection_options
from rfmstream.schemas.errors import ConfigError, StateError

SCHEME: Final = "rfmstream"

PARTITION_FETCH_BYTES: Final = 1 << 20
FETCH_BYTES: Final = 8 << 20
FETCH_WAIT_MS: Final = 50
"""How long a broker waits for records; a worker learns as often that it has read a partition to its end."""

POLL_WAIT_MS: Final = 200
WITHHELD_WAIT_MS: Final = 20
CONFIRM_EVERY_MS: Final = 200
REBALANCE_MS_MAX: Final = 60_000
POLL_INTERVAL_MS_MAX: Final = 24 * 3600 * 1000
"""A member without partitions never polls; the group must not expel it for that."""
METADATA_MS_MAX: Final = 30_000
"""How old the metadata of topics may be: added partitions are seen within this time."""

GONE_S: Final = 30.0
"""How long brokers may not know an input topic: one that has just started hears of it later."""

_log = logging.getLogger(__name__)
_faust_log = logging.getLogger("faust.rfmstream")
"""Faust's messages about our subclasses go to Faust's log, not to the worker's."""


class Fetched(NamedTuple):
    """What one poll brought from a partition.

    Fields  epoch         number of the seek it follows
            begin         the offset it begins at: where the one before ended
            records       perhaps none: offsets also pass by what is no record
            end           one after the last record of the partition, as last heard, that of an open transaction too
            confirmed_us  the instant at which records.position was known to be the end; None: it is not
            is_read       records.position is the end of what can be read: behind it are open transactions at most
    """

    epoch: int
    begin: int
    records: RawRecords
    end: int
    confirmed_us: int | None
    is_read: bool = False


@dataclass
class _Place:
    """Where a partition is read, in the consumer's thread."""

    epoch: int
    next: int
    confirmed_ms: int = 0
    end: int = -1
    is_read: bool = False


@dataclass
class Reading:
    """State that the worker's thread and the consumer's thread share.

    Fields  config    the worker's
            failed    called, in the worker's thread, with an error that ends the worker
            withheld  partitions whose lane has enough for the moment
            member    who we are in the group since the last assignment
            url       of this worker's data, for the others; "": it serves none, or nobody can reach it
            owners    the URL of the worker that has a partition, as the last assignment told it
            partitions  how many each input topic had at the start; 0: nobody looks
    """

    config: WorkerConfig
    failed: Callable[[BaseException], None]
    withheld: set[Source] = field(default_factory=set)
    member: Membership = NOBODY
    url: str = ""
    owners: Mapping[Source, str] = field(default_factory=dict)
    partitions: int = 0


class _Listener(driver.ConsumerRebalanceListener):
    """Closes the gate before anybody is told of a rebalance."""

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> Any:  # noqa: ANN401 - Faust's
        self._thread.close_gate()
        return super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        tps = list(assigned)
        self._thread.close_gate(pause=tps)
        self._thread.note_membership()
        await super().on_partitions_assigned(tps)


class _DaemonThread(WorkerThread):
    """A thread that a process which ends does not wait for: to join a group can take as long as a session."""

    def __init__(self, service: ServiceThread, **options: Any) -> None:  # noqa: ANN401 - mode's
        super().__init__(service, **options)
        self.daemon = True


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """The consumer's thread: polls, and seeks for the lanes."""

    Worker = _DaemonThread
    logger = _faust_log

    def __post_init__(self) -> None:
        super().__post_init__()
        self._places: dict[Source, _Place] = {}
        self._reading: Reading = self.app.reading
        self._assignor = assignor_of(self._reading.url, self._reading.config.input_topics)
        self._missed_since: dict[str, float] = {}

    def _create_worker_consumer(self, _transport: object) -> AIOKafkaConsumer:
        assert fetches.is_installed(), "see engine.live.kafka.seams"
        config = self._reading.config
        session_ms = config.session_timeout_s * 1000
        fetches.bound_batches(max(BATCH_BYTES_MAX, 2 * config.record_bytes_max))
        return AIOKafkaConsumer(
            **connection_options(config.client),
            group_id=config.app_id,
            # A class of its own, since the assignor keeps its memory in its class.
            partition_assignment_strategy=[self._assignor],
            key_deserializer=as_fetched,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            fetch_max_wait_ms=FETCH_WAIT_MS,
            fetch_max_bytes=FETCH_BYTES,
            max_partition_fetch_bytes=PARTITION_FETCH_BYTES,
            session_timeout_ms=session_ms,
            heartbeat_interval_ms=min(1000, session_ms // 3),
            rebalance_timeout_ms=REBALANCE_MS_MAX,
            max_poll_interval_ms=POLL_INTERVAL_MS_MAX,
            metadata_max_age_ms=METADATA_MS_MAX,
        )

    def close_gate(self, pause: Sequence[TopicPartition] = ()) -> None:
        """Read no partition until its lane has sought."""
        self._places.clear()
        self._reading.withheld.clear()
        consumer = self._ensure_consumer()
        for tp in pause:
            # Any position will do: with one the client does not ask the broker for it.
            consumer.seek(tp, 0)
            consumer.pause(tp)

    def note_membership(self) -> None:
        """Take note of the generation that an assignment is of."""
        coordinator = self._ensure_consumer()._coordinator  # noqa: SLF001 - nothing else tells
        self._reading.member = Membership(coordinator.generation, coordinator.member_id)
        self._reading.owners = self._assignor.owners

    async def seek_lane(self, source: Source, offset: int, epoch: int) -> bool:
        """Read a partition from an offset on; False if it is not ours any more."""
        return bool(await self.call_thread(self._seek_lane, source, offset, epoch))

    async def _seek_lane(self, source: Source, offset: int, epoch: int) -> bool:
        consumer = self._ensure_consumer()
        tp = TopicPartition(*source)
        if tp not in consumer.assignment():
            return False
        consumer.seek(tp, offset)
        consumer.resume(tp)
        self._places[source] = _Place(epoch, offset)
        return True

    async def getmany(self, _active_partitions: object, timeout: float) -> dict[Source, Fetched]:  # noqa: ASYNC109
        """Return the fetches of the partitions that may be read."""
        found: dict[Source, Fetched] = await self.call_thread(self._poll, int(timeout * 1000))
        return found

    async def _poll(self, timeout_ms: int) -> dict[Source, Fetched]:
        if not self.consumer.flow_active:
            return {}
        consumer = self._ensure_consumer()
        withheld = self._reading.withheld
        wanted = [TopicPartition(*source) for source in self._places if source not in withheld]
        if not wanted:
            await asyncio.sleep(WITHHELD_WAIT_MS / 1000)
            return {}
        # A lane that wants more again is served after this poll.
        wait_ms = WITHHELD_WAIT_MS if withheld else POLL_WAIT_MS
        try:
            fetched = await consumer.getmany(*wanted, timeout_ms=min(wait_ms, timeout_ms))
        except kafka.KafkaError as error:
            self._seek_back(consumer)
            await self._complain(error)
            return {}
        # No await from here on: what was fetched belongs to the places as they are now.
        if not self.consumer.flow_active:
            # This poll began before a rebalance and ends after the lanes have sought, while Faust still takes nothing.
            for tp in fetched:
                place = self._places.get(Source(*tp))
                if place is not None:
                    consumer.seek(tp, place.next)
            return {}
        return dict(self._collect(consumer, fetched))

    def _seek_back(self, consumer: AIOKafkaConsumer) -> None:
        """Read again the records of other partitions that the client dropped when it found the error."""
        for source, place in self._places.items():
            tp = TopicPartition(*source)
            if tp in consumer.assignment():
                consumer.seek(tp, place.next)

    def _collect(
        self, consumer: AIOKafkaConsumer, fetched: Mapping[TopicPartition, Sequence[Any]]
    ) -> Iterable[tuple[Source, Fetched]]:
        assignment = consumer._subscription.subscription.assignment  # noqa: SLF001 - position() would wait
        for source, place in self._places.items():
            tp = TopicPartition(*source)
            state = assignment.state_value(tp)
            if state is None or not state.has_valid_position or state.lso is None:
                continue
            records = fetched.get(tp, ())
            # Records behind an open transaction are there, though nobody can read them yet.
            end = max(state.lso, state.highwater)
            confirmed_ms = state.timestamp if state.position >= end else None
            due = confirmed_ms is not None and confirmed_ms >= place.confirmed_ms + CONFIRM_EVERY_MS
            is_read = state.position >= state.lso
            is_news = is_read != place.is_read or state.position > place.next or end > place.end
            if not (records or due or is_news):
                continue
            begin, place.next, place.end, place.is_read = place.next, state.position, end, is_read
            if confirmed_ms is not None:
                place.confirmed_ms = confirmed_ms
            yield (
                source,
                Fetched(
                    epoch=place.epoch,
                    begin=begin,
                    records=raw_records(records, state.position),
                    end=end,
                    confirmed_us=None if confirmed_ms is None else confirmed_ms * 1000,
                    is_read=is_read,
                ),
            )

    async def check_group(self) -> None:
        """End the worker where the group refuses it: polls say so, but nobody polls before there are partitions."""
        await self.call_thread(self._check_group)

    async def _check_group(self) -> None:
        consumer = self._ensure_consumer()
        self._check_topics(consumer._client)  # noqa: SLF001 - nothing else tells
        try:
            consumer._coordinator.check_errors()  # noqa: SLF001 - getmany() would wait
        except kafka.KafkaError as error:
            await self._complain(error)

    def _check_topics(self, client: AIOKafkaClient) -> None:
        """End the worker where a topic that it reads is gone: the group goes on without it, and says so to nobody."""
        now = asyncio.get_running_loop().time()
        known = client.cluster.partitions_for_topic
        missing = [topic for topic in self._reading.config.input_topics if not known(topic)]
        self._missed_since = {topic: self._missed_since.get(topic, now) for topic in missing}
        if missing:
            client.force_metadata_update()
        count = self._reading.partitions
        for topic in self._reading.config.input_topics:
            there = len(known(topic) or ())
            if 0 < count < there:
                added = ConfigError(
                    f"topic {topic} has {there} partitions now and had {count}: customers are in others than before",
                    key="input_topics",
                    fix="start with a new topic of as many, another app_id and other output topics, and produce the "
                    "history into it",
                )
                self.parent_loop.call_soon_threadsafe(self._reading.failed, added)
        for topic, since in self._missed_since.items():
            if now - since > GONE_S:
                gone = ConfigError(
                    f"there is no topic {topic} any more",
                    key="input_topics",
                    fix="create it again, or start without it",
                )
                self.parent_loop.call_soon_threadsafe(self._reading.failed, gone)

    async def _complain(self, error: kafka.KafkaError) -> None:
        """Wait after an error that passes; end the worker for one that does not."""
        if isinstance(error, kafka.OffsetOutOfRangeError):
            places = ", ".join(f"{source} at {place.next}" for source, place in self._places.items())
            failure: BaseException = StateError(
                f"the broker has deleted records that were still to be read (one of {places})",
                fix="start again: it says what is missing, and --accept-gap goes on without",
            )
        elif isinstance(error, kafka.NoOffsetForPartitionError):
            # From a poll that was under way when the partition was assigned: its lane has not sought yet.
            return
        elif error.retriable or isinstance(error, kafka.CorruptRecordException):
            _log.warning("fetching failed, trying again: %s", error)
            await asyncio.sleep(1)
            return
        else:
            failure = as_rfm_error(error, self._reading.config.client, "the group failed", "Read")
        self.parent_loop.call_soon_threadsafe(self._reading.failed, failure)
        await asyncio.sleep(1)


class Consumer(driver.Consumer):
    """Faust's consumer over fetches."""

    logger = _faust_log

    RebalanceListener: ClassVar[Any] = _Listener

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - Faust's
        super().__init__(*args, **kwargs)
        self._numbers = itertools.count()

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def seek_lane(self, source: Source, offset: int, epoch: int) -> bool:
        """Read a partition from an offset on; False if it is not ours any more."""
        return await self._thread.seek_lane(source, offset, epoch)  # type: ignore[no-any-return]

    @Service.task
    async def _watch_group(self) -> None:
        while not self.should_stop:
            await self.sleep(1.0)
            await self._thread.check_group()

    async def perform_seek(self) -> None:
        """Do nothing: the lanes seek."""

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, ConsumerMessage]]:  # noqa: ASYNC109
        """Yield one message, said to be of any of the partitions it is of."""
        if not self.flow_active:
            await self.wait(self.can_resume_flow)
        found = await self._thread.getmany(None, timeout)
        # If the flow resumes without a new assignment, the lanes notice the gap and seek.
        if found and not self.should_stop and self.flow_active:
            tp = TP(*next(iter(found)))
            yield tp, self._message(tp, found)

    def _message(self, tp: TP, found: dict[Source, Fetched]) -> ConsumerMessage:
        return ConsumerMessage(
            tp.topic,
            tp.partition,
            next(self._numbers),
            0.0,
            0,
            (),
            None,
            found,
            None,
            0,
            0,
            tp,
            generation_id=self.app.consumer_generation_id,
        )


class Transport(driver.Transport):
    """Faust's transport over aiokafka, with our consumer."""

    Consumer: ClassVar[Any] = Consumer


TRANSPORTS.aliases[SCHEME] = f"{__name__}:Transport"


class _AsItIs(faust.Schema):
    """Hands messages over as they are."""

    def compile(self, app: faust.App, **_: Any) -> Any:  # noqa: ANN401 - Faust's
        create_event = app.create_event

        async def decode(message: ConsumerMessage, **_: Any) -> Any:  # noqa: ANN401
            return create_event(None, message.value, (), message)

        return decode

    async def decode(self, app: faust.App, message: ConsumerMessage, **_: Any) -> Any:  # noqa: ANN401
        return app.create_event(None, message.value, (), message)


class _Boot(BootStrategy):
    """Neither web pages nor a producer: both are the worker's own."""

    enable_web = False
    enable_kafka_producer = False


class _NoTables(TableManager):
    """Faust's tables, of which there are none: it waits a second for them at every start."""

    async def on_start(self) -> None:
        await self._update_channels()
        await self.recovery.start()


class App(faust.App):
    """The Faust app of a worker: group membership, flow control, and fetches to an agent.

    In      reading  what the transport is told and tells
            receive  called with each partition's fetches, in order; must not wait
    """

    logger = _faust_log
    BootStrategy = _Boot

    def __init__(self, reading: Reading, receive: Callable[[Source, Fetched], None]) -> None:
        self.reading = reading
        config = reading.config
        super().__init__(
            config.app_id,
            broker=f"{SCHEME}://{config.client.bootstrap_servers[0]}",
            autodiscover=False,
            web_enabled=False,
            topic_disable_leader=True,
            topic_allow_declare=False,
            table_standby_replicas=0,
            stream_wait_empty=False,
            TableManager=_NoTables,
            broker_request_timeout=max(90.0, config.session_timeout_s + 1.0),
            broker_session_timeout=float(config.session_timeout_s),
            # Faust has nothing to commit. Its monitor of commits and fetches runs at this pace, too, and would warn
            # of commits that never come.
            broker_commit_interval=1e6,
            reply_create_topic=False,
        )
        topic = self.topic(*config.input_topics, schema=_AsItIs(), acks=False)

        async def take(stream: faust.Stream[Any]) -> None:
            async for event in stream.events():
                for source, fetched in event.value.items():
                    receive(source, fetched)

        self.agent(topic, name="orders")(take)

    def _create_directories(self) -> None:
        """Make none: tables would need them."""
