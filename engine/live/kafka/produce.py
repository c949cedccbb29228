"""The Produce request, built without copying its batches.

aiokafka (0.14, aiokafka/protocol/produce.py) copies the batches at each level of the request, six times in all, while
its event loop does nothing else.

Source: Kafka's protocol guide, Produce version 7 (brokers from 2.1 on).
"""

from collections.abc import Mapping, Sequence
from typing import Final

from aiokafka.protocol.api import Request
from aiokafka.protocol.produce import ProduceRequest_v7
from aiokafka.protocol.types import Int16, Int32, String

from rfmstream.engine.live.kafka.batches import RecordBatch

_ALL_REPLICAS: Final = -1
_TEXT: Final = String("utf-8")

Partitions = Sequence[tuple[int, RecordBatch]]
"""Partitions of a topic, and the batch for each."""


class _Produce(ProduceRequest_v7):
    def encode(self) -> bytes:
        """Return the request as it is sent."""
        transaction, replicas, timeout_ms, topics = (self.get_item(name) for name in self.SCHEMA.names)
        parts = [_TEXT.encode(transaction), Int16.encode(replicas), Int32.encode(timeout_ms)]
        parts.append(Int32.encode(len(topics)))
        for topic, partitions in topics:
            parts += _TEXT.encode(topic), Int32.encode(len(partitions))
            for partition, batch in partitions:
                parts += Int32.encode(partition), Int32.encode(batch.size()), *batch.parts
        return b"".join(parts)


class Produce(Request[_Produce]):
    """Writes batches within a transaction.

    In      transaction  the transactional id
            timeout_ms   until all replicas have them
            topics       batches that are stamped
    """

    API_KEY = 0

    def __init__(self, transaction: str, timeout_ms: int, topics: Mapping[str, Partitions]) -> None:
        self.topics = topics
        self._how = transaction, _ALL_REPLICAS, timeout_ms

    def build(self, request_struct_class: type[_Produce]) -> _Produce:
        """Return the request as it is sent."""
        return request_struct_class(*self._how, list(self.topics.items()))
