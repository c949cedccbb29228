"""The requests that commit and fetch a group's offsets within transactions, in the versions of KIP-447.

A commit names its group generation; the broker rejects older generations. A fetch of offsets waits until no transaction
that writes them is open. aiokafka (0.14) has only older versions of the two requests.

Source: KIP-447; Kafka's protocol guide, TxnOffsetCommit version 3 and OffsetFetch version 7 (brokers from 2.5 on).
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from aiokafka import TopicPartition
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Int64,
    Schema,
    TaggedFields,
)
from aiokafka.structs import OffsetAndMetadata

UNSTABLE_OFFSET_COMMIT: Final = 88

_TEXT: Final = CompactString("utf-8")
_NO_EPOCH: Final = -1


class Membership(NamedTuple):
    """A member of one generation of the group, in whose name offsets are committed."""

    generation: int
    member_id: str


NOBODY: Final = Membership(-1, "")
"""For committing to a group that has no members."""


def _by_topic(*fields: tuple[str, Any]) -> CompactArray:
    """Return the type of what is said of partitions."""
    partitions = CompactArray(*fields, ("tags", TaggedFields))
    return CompactArray(("topic", _TEXT), ("partitions", partitions), ("tags", TaggedFields))


_OFFSET: Final = (("partition", Int32), ("offset", Int64), ("leader_epoch", Int32), ("metadata", _TEXT))


class _CommitResponse(Response):
    API_KEY = 28
    API_VERSION = 3
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("errors", _by_topic(("partition", Int32), ("error_code", Int16))),
        ("tags", TaggedFields),
    )


class _CommitRequest(RequestStruct):
    FLEXIBLE_VERSION = True
    API_KEY = 28
    API_VERSION = 3
    RESPONSE_TYPE = _CommitResponse
    SCHEMA = Schema(
        ("transactional_id", _TEXT),
        ("group_id", _TEXT),
        ("producer_id", Int64),
        ("producer_epoch", Int16),
        ("generation_id", Int32),
        ("member_id", _TEXT),
        ("group_instance_id", _TEXT),
        ("topics", _by_topic(*_OFFSET)),
        ("tags", TaggedFields),
    )


class _FetchResponse(Response):
    API_KEY = 9
    API_VERSION = 7
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("topics", _by_topic(*_OFFSET, ("error_code", Int16))),
        ("error_code", Int16),
        ("tags", TaggedFields),
    )


class _FetchRequest(RequestStruct):
    FLEXIBLE_VERSION = True
    API_KEY = 9
    API_VERSION = 7
    RESPONSE_TYPE = _FetchResponse
    SCHEMA = Schema(
        ("group_id", _TEXT),
        (
            "topics",
            CompactArray(("topic", _TEXT), ("partitions", CompactArray(Int32)), ("tags", TaggedFields)),
        ),
        ("require_stable", Boolean),
        ("tags", TaggedFields),
    )


class TxnOffsetCommit(Request[_CommitRequest]):
    """Commits offsets within a transaction.

    In      transaction  the transactional id
            producer     its id and epoch
            member       who owned the partitions when what is committed was made
    """

    API_KEY = 28

    def __init__(
        self,
        transaction: str,
        group_id: str,
        producer: tuple[int, int],
        member: Membership,
        offsets: Mapping[TopicPartition, OffsetAndMetadata],
    ) -> None:
        self._who = transaction, group_id, *producer, *member
        self._offsets = offsets

    def build(self, request_struct_class: type[_CommitRequest]) -> _CommitRequest:
        """Return the request as it is sent."""
        topics: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
        for place, (offset, metadata) in self._offsets.items():
            topics[place.topic].append((place.partition, offset, _NO_EPOCH, metadata, {}))
        return request_struct_class(
            *self._who, None, [(topic, places, {}) for topic, places in topics.items()], {}
        )


class OffsetFetch(Request[_FetchRequest]):
    """Asks for the committed offsets of partitions.

    In      places  the numbers of the partitions, by topic
            stable  refuse to answer, with UNSTABLE_OFFSET_COMMIT, while a transaction that writes it is open
    """

    API_KEY = 9

    def __init__(self, group_id: str, places: Mapping[str, Iterable[int]], *, stable: bool) -> None:
        self._group_id = group_id
        self._places: list[tuple[str, list[int], dict[int, bytes]]] = [
            (topic, list(numbers), {}) for topic, numbers in places.items()
        ]
        self._stable = stable

    def build(self, request_struct_class: type[_FetchRequest]) -> _FetchRequest:
        """Return the request as it is sent."""
        return request_struct_class(self._group_id, self._places, self._stable, {})
