"""What the user may do with topics, group and transactions: asked of the brokers before anything is read or written.

A client that lacks a right may fail late, in many lines, or retry for ever. So the worker checks all rights first and
names all missing ones together. aiokafka (0.14) has only versions of the request that do not return rights.

Source: KIP-430; Kafka's protocol guide, Metadata version 8 (brokers from 2.3 on)
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import CoordinationType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.group import HeartbeatRequest
from aiokafka.protocol.transaction import EndTxnRequest
from aiokafka.protocol.types import Array, Boolean, Int16, Int32, Schema, String

from rfmstream.engine.service.kafka.client import NO_RIGHT
from rfmstream.schemas.errors import ConfigError

Right = Literal["Read", "Write"]

_BITS: Final[dict[Right, int]] = {"Read": 1 << 3, "Write": 1 << 4}
_NOT_TOLD: Final = -(1 << 31)
_NO_MEMBER: Final = -1, ""
_NO_PRODUCER: Final = -1, -1
_TEXT: Final = String("utf-8")


class _MetadataResponse(Response):
    API_KEY = 3
    API_VERSION = 8
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("brokers", Array(("node_id", Int32), ("host", _TEXT), ("port", Int32), ("rack", _TEXT))),
        ("cluster_id", _TEXT),
        ("controller_id", Int32),
        (
            "topics",
            Array(
                ("error_code", Int16),
                ("topic", _TEXT),
                ("is_internal", Boolean),
                (
                    "partitions",
                    Array(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", Array(Int32)),
                        ("isr", Array(Int32)),
                        ("offline_replicas", Array(Int32)),
                    ),
                ),
                ("authorized_operations", Int32),
            ),
        ),
        ("cluster_authorized_operations", Int32),
    )


class _MetadataRequest(RequestStruct):
    API_KEY = 3
    API_VERSION = 8
    RESPONSE_TYPE = _MetadataResponse
    SCHEMA = Schema(
        ("topics", Array(_TEXT)),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
    )


class _Rights(Request[_MetadataRequest]):
    API_KEY = 3

    def __init__(self, topics: Sequence[str]) -> None:
        self._topics = list(topics)

    def build(self, request_struct_class: type[_MetadataRequest]) -> _MetadataRequest:
        # Do not create topics; no rights of the cluster; the rights of the topics.
        return request_struct_class(self._topics, False, False, True)  # noqa: FBT003


async def require_rights(admin: AIOKafkaAdminClient, needed: Mapping[str, Sequence[Right]]) -> None:
    """Refuse to go on where the user may not do with each topic what is needed.

    Errors  ConfigError  names all rights that lack
            aiokafka's   the brokers do not answer
    """
    response = await admin._send_request(_Rights(list(needed)))  # noqa: SLF001 - it sends no requests of others
    lacking: list[str] = []
    for code, topic, _, _, told in response.topics:
        is_hidden = kafka.for_code(code) is kafka.TopicAuthorizationFailedError
        # Brokers tell nothing about absent topics.
        allowed = 0 if is_hidden else -1 if told == _NOT_TOLD else told
        rights = [right for right in needed[topic] if not allowed & _BITS[right]]
        if rights:
            lacking.append(f"{' and '.join(rights)} on the topic {topic}")
    if lacking:
        raise ConfigError("the user lacks rights", fix=f"grant {', '.join(lacking)}")


async def require_group(admin: AIOKafkaAdminClient, app_id: str) -> None:
    """Refuse to go on where the user may use neither the group of an application nor its transactions.

    Who may only see them learns where they are, and no more. So each is asked for something that changes nothing, as
    it is of a member and of a transaction that are not there: brokers look at the rights first.

    Errors  ConfigError  names the right that lacks
            aiokafka's   the brokers do not answer
    """
    begin = f"{app_id}/"
    asked: tuple[tuple[str, CoordinationType, Request[Any], str], ...] = (
        (
            app_id,
            CoordinationType.GROUP,
            HeartbeatRequest(app_id, *_NO_MEMBER),
            f"Read on the group {app_id}",
        ),
        (
            begin,
            CoordinationType.TRANSACTION,
            EndTxnRequest(begin, *_NO_PRODUCER, False),  # noqa: FBT003 - the protocol's
            f"Write on the transactional ids that begin with {begin}",
        ),
    )
    for key, kind, request, grant in asked:
        try:
            node = await admin.find_coordinator(key, kind)
            response = await admin._send_request(request, node)  # noqa: SLF001 - it sends no requests of others
        except kafka.GroupCoordinatorNotAvailableError:
            # A new cluster first creates its coordinators; joining members wait for that, too.
            continue
        except NO_RIGHT as error:
            refused: type[BaseException] = type(error)
        else:
            refused = kafka.for_code(response.error_code)
        if issubclass(refused, NO_RIGHT):
            raise ConfigError("the user lacks a right", fix=f"grant {grant}")
