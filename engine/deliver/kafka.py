"""All that delivery does with Kafka: the only module of it that knows aiokafka.

Read at aiokafka 0.14.0. Offsets are committed with a text beside each (`progress.Progress.metadata`), which its
consumer writes and its admin client reads.
"""

import asyncio
import logging
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, NamedTuple

import orjson
from aiokafka import (
    AIOKafkaConsumer,
    AIOKafkaProducer,
    ConsumerRebalanceListener,
    TopicPartition,
)
from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.helpers import create_ssl_context
from aiokafka.structs import OffsetAndMetadata

from rfmstream.engine.deliver.broker import BrokerConfig
from rfmstream.engine.deliver.lanes import Commit
from rfmstream.engine.deliver.model import ANSWER_BYTES_MAX, Event, Place
from rfmstream.engine.deliver.records import Record
from rfmstream.schemas.errors import ConfigError, RfmError, TransportError

_log = logging.getLogger(__name__)

POLL_MS: Final = 200
_RECORDS_MAX: Final = 500
"""Records of a read: what is done with them in one go keeps answers waiting."""
_HEADER_TEXT_MAX: Final = 1024


class Committed(NamedTuple):
    """What a group has committed of a partition; offset None: nothing."""

    offset: int | None
    metadata: str


def options(broker: BrokerConfig) -> dict[str, Any]:
    """Return the connection's options as every aiokafka client takes them.

    Errors  ConfigError  a certificate or key cannot be used
    """
    found: dict[str, Any] = {
        "bootstrap_servers": list(broker.bootstrap_servers),
        "security_protocol": broker.security_protocol.upper(),
        "request_timeout_ms": 30_000,
        "retry_backoff_ms": 100,
    }
    if broker.security_protocol.endswith("ssl"):
        try:
            context = create_ssl_context(
                cafile=broker.tls_ca_file,
                certfile=broker.tls_cert_file,
                keyfile=broker.tls_key_file,
                password=broker.tls_key_password,
            )
        except (OSError, ssl.SSLError, ValueError) as error:
            raise ConfigError(
                f"the TLS files cannot be used ({error})",
                file=broker.tls_cert_file or broker.tls_ca_file,
                fix="check that each is PEM, and the key's password",
            ) from None
        context.check_hostname = broker.tls_check_hostname
        found["ssl_context"] = context
    if broker.security_protocol.startswith("sasl"):
        found |= {
            "sasl_mechanism": broker.sasl_mechanism,
            "sasl_plain_username": broker.sasl_username,
            "sasl_plain_password": broker.sasl_password,
        }
    return found


@contextmanager
def kafka_errors(broker: BrokerConfig, doing: str) -> Iterator[None]:
    """Let only errors of ours out of the block."""
    where = ",".join(broker.bootstrap_servers)
    try:
        yield
    except RfmError:
        raise
    except (
        kafka.TopicAuthorizationFailedError,
        kafka.GroupAuthorizationFailedError,
        kafka.ClusterAuthorizationFailedError,
    ) as error:
        raise ConfigError(
            f"{doing}: the user lacks a right ({type(error).__name__})",
            fix="grant Read on the topics and groups that are read, and Write on those that are written",
        ) from error
    except (kafka.SaslAuthenticationFailed, kafka.AuthenticationFailedError) as error:
        raise ConfigError(
            f"{where} refused the login", key="sasl_username", fix="check user and password"
        ) from error
    except (kafka.KafkaConnectionError, OSError) as error:
        raise TransportError(
            f"{doing}: no broker answers",
            endpoint=where,
            fix="start it, or check bootstrap_servers and security_protocol",
        ) from error
    except (kafka.KafkaError, kafka.IllegalOperation, AssertionError) as error:
        raise TransportError(f"{doing} ({type(error).__name__}: {error})", endpoint=where) from error


@asynccontextmanager
async def administrator(broker: BrokerConfig, doing: str) -> AsyncIterator[AIOKafkaAdminClient]:
    """Give a connected admin client, and let only errors of ours out of the block."""
    with kafka_errors(broker, doing):
        admin = AIOKafkaAdminClient(**options(broker))
        try:
            with _quiet():
                await admin.start()
            yield admin
        finally:
            await admin.close()


async def partition_counts(broker: BrokerConfig, topics: Collection[str]) -> dict[str, int]:
    """Return how many partitions each topic has; what is absent is left out, and not created by asking."""
    async with administrator(broker, "topics cannot be looked up") as admin:
        known = set(await admin.list_topics())
        wanted = [topic for topic in topics if topic in known]
        if not wanted:
            return {}
        return {one["topic"]: len(one["partitions"]) for one in await admin.describe_topics(wanted)}


async def create_topics(broker: BrokerConfig, wanted: Mapping[str, Mapping[str, str]]) -> None:
    """Create the topics that are absent, of one partition each, with their settings."""
    async with administrator(broker, "topics cannot be created") as admin:
        known = set(await admin.list_topics())
        copies = broker.replication_factor or 1
        if not broker.replication_factor and broker.changes_topic in known:
            [found] = await admin.describe_topics([broker.changes_topic])
            copies = len(found["partitions"][0]["replicas"])
        new = [
            NewTopic(topic, 1, copies, topic_configs=dict(settings))
            for topic, settings in wanted.items()
            if topic not in known
        ]
        if new:
            answer = await admin.create_topics(new)
            for topic, code, *rest in answer.topic_errors:
                if code not in (0, kafka.TopicAlreadyExistsError.errno):
                    raise TransportError(f"topic {topic} cannot be created ({rest or code})")


async def retention_ms(broker: BrokerConfig, topics: Collection[str]) -> dict[str, int]:
    """Return how long the topics keep records; those that keep them for ever are left out."""
    found = {}
    async with administrator(broker, "the retention of topics cannot be read") as admin:
        resources = [ConfigResource(ConfigResourceType.TOPIC, topic) for topic in topics]
        for answer in await admin.describe_configs(resources):
            for _, _, _, topic, entries in answer.resources:
                for name, value, *_ in entries:
                    if name == "retention.ms" and value not in (None, "-1"):
                        found[topic] = int(value)
    return found


async def committed(broker: BrokerConfig, group: str, places: Collection[Place]) -> dict[Place, Committed]:
    """Return what a group has committed."""
    async with administrator(broker, "committed offsets cannot be read") as admin:
        wanted = [TopicPartition(*place) for place in places]
        found = await admin.list_consumer_group_offsets(group, partitions=wanted)
        return {
            Place(*one): Committed(None if offset.offset < 0 else offset.offset, offset.metadata or "")
            for one, offset in found.items()
        }


class GroupConsumer:
    """Reads topics as one of a group, committed records only; says when partitions come and go.

    In  came  awaited with new partitions; returns where each is to be read from
        went  awaited with partitions before they belong to somebody else
    """

    def __init__(
        self,
        broker: BrokerConfig,
        group: str,
        came: Callable[[list[Place]], Awaitable[Mapping[Place, int]]],
        went: Callable[[list[Place]], Awaitable[None]],
    ) -> None:
        self._broker = broker
        self._consumer = AIOKafkaConsumer(
            **options(broker),
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            session_timeout_ms=10_000,
            heartbeat_interval_ms=2_000,
            max_poll_interval_ms=600_000,
            metadata_max_age_ms=60_000,
        )
        self._listener = _Listener(self._consumer, came, went)
        self._is_paused = False

    async def start(self, topics: Sequence[str]) -> None:
        """Join.

        Errors  ConfigError, TransportError
        """
        with kafka_errors(self._broker, "the group cannot be joined"), _quiet():
            await self._consumer.start()
        self.subscribe(topics)

    def subscribe(self, topics: Sequence[str]) -> None:
        """Read these topics from now on."""
        self._consumer.subscribe(topics, listener=self._listener)

    async def stop(self) -> None:
        """Leave the group."""
        await self._consumer.stop()

    def pause(self, *, is_paused: bool) -> None:
        """Stop reading for a while, or go on."""
        places = self._consumer.assignment()
        if is_paused:
            self._consumer.pause(*places)
        elif self._is_paused:
            self._consumer.resume(*self._consumer.paused())
        self._is_paused = is_paused

    async def read(self) -> dict[Place, list[Record]]:
        """Return records of partitions, those of each in order; after POLL_MS none.

        Errors  TransportError, ConfigError
        """
        with kafka_errors(self._broker, "reading broke off"):
            try:
                found = await self._consumer.getmany(timeout_ms=POLL_MS, max_records=_RECORDS_MAX)
            except kafka.NoOffsetForPartitionError:
                return {}  # `came` is about to say where it begins
            except kafka.OffsetOutOfRangeError as error:
                lost = list(error.args[0])
                first = await self._consumer.beginning_offsets(lost)
                for place, offset in first.items():
                    _log.error(
                        "records were deleted before they were delivered",
                        extra={"topic": place.topic, "partition": place.partition, "from": offset},
                    )
                    self._consumer.seek(place, offset)
                return {}
        return {Place(*place): records for place, records in found.items()}

    async def positions(self) -> dict[Place, tuple[int, int]]:
        """Return the position of each partition and where its committed records end, as far as is known."""
        found = {}
        for place in self._consumer.assignment():
            end = self._consumer.last_stable_offset(place)
            if end is not None:
                found[Place(*place)] = await self._consumer.position(place), end
        return found

    async def commit(self, commits: Mapping[Place, Commit]) -> bool:
        """Commit; False where another member has the partitions now.

        Errors  TransportError  it may succeed later
        """
        offsets = {
            TopicPartition(*place): OffsetAndMetadata(one.offset, one.metadata)
            for place, one in commits.items()
        }
        with kafka_errors(self._broker, "offsets cannot be committed"):
            try:
                await self._consumer.commit(offsets)
            except (kafka.CommitFailedError, kafka.IllegalStateError, kafka.IllegalOperation):
                return False
        return True


class _Listener(ConsumerRebalanceListener):
    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        came: Callable[[list[Place]], Awaitable[Mapping[Place, int]]],
        went: Callable[[list[Place]], Awaitable[None]],
    ) -> None:
        self._consumer = consumer
        self._came = came
        self._went = went

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        await self._went([Place(*one) for one in revoked])

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        for place, offset in (await self._came([Place(*one) for one in assigned])).items():
            self._consumer.seek(TopicPartition(*place), offset)


class PlainConsumer:
    """Reads partitions from outside any group, committed records only."""

    def __init__(self, broker: BrokerConfig) -> None:
        self._broker = broker
        self._consumer = AIOKafkaConsumer(
            **options(broker),
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
        )

    async def start(self) -> None:
        """Connect.

        Errors  ConfigError, TransportError
        """
        with kafka_errors(self._broker, "no connection"), _quiet():
            await self._consumer.start()

    async def stop(self) -> None:
        """Let go."""
        await self._consumer.stop()

    def assign(self, places: Mapping[Place, int | None]) -> None:
        """Read these partitions from an offset; None: from the first."""
        partitions = [TopicPartition(*place) for place in places]
        self._consumer.assign(partitions)
        for place, offset in places.items():
            if offset is not None:
                self._consumer.seek(TopicPartition(*place), offset)

    async def read(self, timeout_ms: int = POLL_MS) -> dict[Place, list[Record]]:
        """Return records of partitions, those of each in order."""
        with kafka_errors(self._broker, "reading broke off"):
            found = await self._consumer.getmany(timeout_ms=timeout_ms, max_records=20 * _RECORDS_MAX)
        return {Place(*place): records for place, records in found.items()}

    async def ends(self, places: Collection[Place]) -> dict[Place, int]:
        """Return where committed records end now."""
        with kafka_errors(self._broker, "offsets cannot be read"):
            found = await self._consumer.end_offsets([TopicPartition(*place) for place in places])
        return {Place(*place): offset for place, offset in found.items()}

    async def firsts(self, places: Collection[Place]) -> dict[Place, int]:
        """Return the first offsets there are."""
        with kafka_errors(self._broker, "offsets cannot be read"):
            found = await self._consumer.beginning_offsets([TopicPartition(*place) for place in places])
        return {Place(*place): offset for place, offset in found.items()}

    async def offsets_at(self, places: Collection[Place], timestamp_ms: int) -> dict[Place, int | None]:
        """Return the first offset of each partition whose record was written at or after an instant."""
        with kafka_errors(self._broker, "offsets cannot be read"):
            found = await self._consumer.offsets_for_times(
                {TopicPartition(*place): timestamp_ms for place in places}
            )
        return {Place(*place): None if one is None else one.offset for place, one in found.items()}

    async def position(self, place: Place) -> int:
        """Return the position of a partition."""
        position: int = await self._consumer.position(TopicPartition(*place))
        return position

    async def is_at_end(self) -> bool:
        """Tell whether everything that was committed at the last answers has been read."""
        for place in self._consumer.assignment():
            end = self._consumer.last_stable_offset(place)
            if end is None or await self._consumer.position(place) < end:
                return False
        return True


class Producer:
    """Writes rejected rows and releases, and waits until the brokers have them."""

    def __init__(self, broker: BrokerConfig) -> None:
        self._broker = broker
        self._producer = AIOKafkaProducer(**options(broker), acks="all", enable_idempotence=True)

    async def start(self) -> None:
        """Connect.

        Errors  ConfigError, TransportError
        """
        with kafka_errors(self._broker, "no connection"), _quiet():
            await self._producer.start()

    async def stop(self) -> None:
        """Let go."""
        await self._producer.stop()

    async def reject(
        self, event: Event, *, destination: str, status: int, reason: str, answer: bytes
    ) -> None:
        """Write a row that a destination refused, with what it said.

        Errors  TransportError  it may succeed later
        """
        headers = [
            ("rfm-destination", destination.encode()),
            ("rfm-status", str(status).encode()),
            ("rfm-reason", reason.encode()[:_HEADER_TEXT_MAX]),
            ("rfm-answer", answer[:ANSWER_BYTES_MAX]),
            ("rfm-topic", event.place.topic.encode()),
            ("rfm-partition", str(event.place.partition).encode()),
            ("rfm-offset", str(event.offset).encode()),
            ("rfm-timestamp", str(event.timestamp_ms).encode()),
            ("ce_specversion", b"1.0"),
            ("ce_id", event.id.encode()),
            ("ce_source", event.source.encode()),
            ("ce_type", event.type.encode()),
            ("ce_subject", event.subject.encode()),
            ("ce_time", event.time.encode()),
            ("content-type", b"application/json"),
        ]
        with kafka_errors(self._broker, "a rejected row cannot be written"):
            await self._producer.send_and_wait(
                self._broker.rejected_topic, event.raw, key=event.key, headers=headers
            )

    async def release(self, group: str, until_ms: int) -> None:
        """Note that a destination may go on.

        Errors  ConfigError, TransportError
        """
        value = orjson.dumps({"group": group, "released_until_ms": until_ms})
        with kafka_errors(self._broker, "the release cannot be written"):
            await self._producer.send_and_wait(self._broker.control_topic, value, key=group.encode())


async def send_release(broker: BrokerConfig, groups: Sequence[str]) -> None:
    """Note now that destinations may go on.

    Errors  ConfigError, TransportError
    """
    if broker.create_topics:
        await create_topics(broker, {broker.control_topic: {"cleanup.policy": "compact"}})
    producer = Producer(broker)
    try:
        await producer.start()
        for group in groups:
            await producer.release(group, time.time_ns() // 1_000_000)
    finally:
        await producer.stop()


async def follow_releases(
    broker: BrokerConfig, released: Callable[[str, int], None], ready: asyncio.Event
) -> None:
    """Call `released(group, until_ms)` for every release there was and will be; `ready` once those that were are in."""
    place = Place(broker.control_topic, 0)
    consumer = PlainConsumer(broker)
    try:
        await consumer.start()
        consumer.assign({place: None})
        end = (await consumer.ends([place]))[place]
        while True:
            if not ready.is_set() and await consumer.position(place) >= end:
                ready.set()
            try:
                found = await consumer.read()
            except TransportError as error:
                _log.warning("releases cannot be read", extra={"error": str(error)})
                await asyncio.sleep(1)
                continue
            for record in found.get(place, ()):
                _take_release(record, released)
    finally:
        await consumer.stop()


def _take_release(record: Record, released: Callable[[str, int], None]) -> None:
    try:
        said = orjson.loads(record.value or b"null")
        released(str(said["group"]), int(said["released_until_ms"]))
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        _log.warning("a record of the control topic is no release", extra={"offset": record.offset})


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the client's own lines out of the log while a failure is about to be told in one of ours."""
    logger = logging.getLogger("aiokafka")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
