"""The ids of topics: one that was deleted and created anew has another.

aiokafka (0.14) knows versions of the request that are older than the ids, so a newer one is here.

Source  KIP-516; Kafka's protocol guide, Metadata version 10 (brokers from 2.8 on)
"""

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Final
from uuid import UUID

from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    AbstractType,
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)

from rfmstream.engine.live.model import JOINS, Source

_TEXT: Final = CompactString("utf-8")
_TAGS: Final = ("tags", TaggedFields)
_NONE: Final = UUID(int=0)


class _Uuid(AbstractType[UUID]):
    @classmethod
    def encode(cls, value: UUID) -> bytes:
        return value.bytes

    @classmethod
    def decode(cls, data: BytesIO) -> UUID:
        return UUID(bytes=bytes(data.read(16)))


class _MetadataResponse(Response):
    API_KEY = 3
    API_VERSION = 10
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(("node_id", Int32), ("host", _TEXT), ("port", Int32), ("rack", _TEXT), _TAGS),
        ),
        ("cluster_id", _TEXT),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("topic", _TEXT),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        _TAGS,
                    ),
                ),
                ("authorized_operations", Int32),
                _TAGS,
            ),
        ),
        ("cluster_authorized_operations", Int32),
        _TAGS,
    )


class _MetadataRequest(RequestStruct):
    FLEXIBLE_VERSION = True
    API_KEY = 3
    API_VERSION = 10
    RESPONSE_TYPE = _MetadataResponse
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", _Uuid), ("topic", _TEXT), _TAGS)),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
        _TAGS,
    )


class _Ids(Request[_MetadataRequest]):
    API_KEY = 3

    def __init__(self, topics: Sequence[str]) -> None:
        self._topics = topics

    def build(self, request_struct_class: type[_MetadataRequest]) -> _MetadataRequest:
        names: list[tuple[UUID, str, dict[int, bytes]]] = [(_NONE, topic, {}) for topic in self._topics]
        # Not to be created for being asked for; nothing about rights.
        return request_struct_class(names, False, False, False, {})  # noqa: FBT003


async def topic_ids(admin: AIOKafkaAdminClient, topics: Sequence[str]) -> dict[str, str]:
    """Return the ids of topics; brokers that are too old to have them tell none.

    Errors  aiokafka's
    """
    try:
        response = await admin._send_request(_Ids(topics))  # noqa: SLF001 - it sends no requests of others
    except (kafka.IncompatibleBrokerVersion, NotImplementedError):
        return {}
    return {topic: str(id_) for code, topic, id_, *_ in response.topics if not code and id_ != _NONE}


def id_of(source: Source, ids: Mapping[str, str]) -> str | None:
    """Return the id of a topic, or of those that are read as one; None: the brokers do not tell.

    In      ids  of each topic
    """
    known = [ids[part.topic] for part in source.parts if part.topic in ids]
    return JOINS.join(known) if len(known) == len(source.parts) else None
