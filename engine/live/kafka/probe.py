"""A transaction that writes nothing and is given up: whether brokers let us have any, and what time it is there.

No request of Kafka's asks for a broker's time. But who coordinates a transaction notes when it began, and tells
(KIP-664, brokers from 3.0 on). The transaction belongs to an id of its own, app_id/check, joins the group's offsets,
commits none, and is rolled back.
"""

import time
from typing import Any, Final, NamedTuple

from aiokafka import errors as kafka
from aiokafka.client import ConnectionGroup, CoordinationType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Int64,
    Schema,
    TaggedFields,
)

from rfmstream.engine.live.kafka.transactional import TransactionalProducer
from rfmstream.engine.service.client_config import ClientConfig

_TEXT: Final = CompactString("utf-8")
_TAGS: Final = ("tags", TaggedFields)


class _DescribeResponse(Response):
    API_KEY = 65
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "states",
            CompactArray(
                ("error_code", Int16),
                ("transactional_id", _TEXT),
                ("state", _TEXT),
                ("timeout_ms", Int32),
                ("start_ms", Int64),
                ("producer_id", Int64),
                ("producer_epoch", Int16),
                (
                    "topics",
                    CompactArray(("topic", _TEXT), ("partitions", CompactArray(Int32)), _TAGS),
                ),
                _TAGS,
            ),
        ),
        _TAGS,
    )


class _DescribeRequest(RequestStruct):
    FLEXIBLE_VERSION = True
    API_KEY = 65
    API_VERSION = 0
    RESPONSE_TYPE = _DescribeResponse
    SCHEMA = Schema(("transactional_ids", CompactArray(_TEXT)), _TAGS)


class _Describe(Request[_DescribeRequest]):
    API_KEY = 65

    def __init__(self, name: str) -> None:
        self._name = name

    def build(self, request_struct_class: type[_DescribeRequest]) -> _DescribeRequest:
        return request_struct_class([self._name], {})


class Skew(NamedTuple):
    """By how much a broker's clock is ahead of ours, in ms: it lies between these."""

    low_ms: int
    high_ms: int

    @property
    def surely_ms(self) -> int:
        """Return by how much at least the clocks are apart, with its sign; 0: they may be alike."""
        return self.low_ms if self.low_ms > 0 else min(self.high_ms, 0)


async def probe_transaction(config: ClientConfig, app_id: str, timeout_ms: int) -> Skew | None:
    """Begin a transaction of a group's and give it up; return how far apart the clocks are, None: brokers do not tell.

    In      timeout_ms  as long as it may last
    Errors  aiokafka's  among them those of rights, and that so long a transaction is not allowed
    """
    name = f"{app_id}/check"
    producer = TransactionalProducer(config, name, timeout_ms=timeout_ms)
    try:
        await producer.start()
        before_ms = time.time_ns() // 1_000_000
        await producer.begin((), app_id)
        after_ms = time.time_ns() // 1_000_000
        began_ms = await _began_ms(producer, name)
        await producer.abort()
    finally:
        await producer.close()
    # The broker's milliseconds are cut, as ours are.
    return None if began_ms is None else Skew(began_ms - after_ms - 1, began_ms - before_ms + 1)


async def _began_ms(producer: TransactionalProducer, name: str) -> int | None:
    client = producer.client
    node = await client.coordinator_lookup(CoordinationType.TRANSACTION, name)
    request: Any = _Describe(name)
    try:
        response = await client.send(node, request, group=ConnectionGroup.COORDINATION)
    except (kafka.IncompatibleBrokerVersion, NotImplementedError):
        return None
    for state in response.states:
        code, _, _, _, start_ms = state[:5]
        if not code and start_ms >= 0:
            return int(start_ms)
    return None
