"""How the brokers are reached, what becomes of the client's errors, and what is asked of topics and groups."""

import logging
import ssl
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, NamedTuple

from aiokafka import TopicPartition
from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.helpers import create_ssl_context

from rfmstream.engine.deliver.broker import BrokerConfig
from rfmstream.engine.deliver.model import Place
from rfmstream.schemas.errors import ConfigError, RfmError, TransportError


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
            with quiet_client():
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


@contextmanager
def quiet_client() -> Iterator[None]:
    """Keep the client's own lines out of the log while a failure is about to be told in one of ours."""
    logger = logging.getLogger("aiokafka")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
