"""What the client fetched, as RawRecords: the only place that knows how the client holds its records.

aiokafka (0.14, aiokafka/consumer/fetcher.py) turns each record of a batch into an object, and that into another one
with topic, partition and sizes, which costs as much again as all the rest of reading it. A consumer that is made with
`as_fetched` as its key_deserializer gets the first object; all others are served as ever.
"""

from collections.abc import Sequence
from typing import Any

from aiokafka import TopicPartition
from aiokafka.consumer import fetcher

from engine.live.model import RawRecords


def as_fetched(key: bytes | None) -> bytes | None:
    """Return the key; as a key_deserializer it is a mark, and not called."""
    return key


class _PartitionRecords(fetcher.PartitionRecords):
    def _consumer_record(self, tp: TopicPartition, record: Any) -> Any:  # noqa: ANN401 - not typed there
        if self._key_deserializer is as_fetched:
            return record
        return super()._consumer_record(tp, record)


fetcher.PartitionRecords = _PartitionRecords


def raw_records(records: Sequence[Any], position: int) -> RawRecords:
    """Return records, in order of their offsets; `position` is the offset to read next."""
    return RawRecords(
        keys=[record.key for record in records],
        values=[record.value for record in records],
        headers=[record.headers for record in records],
        timestamps_ms=[record.timestamp for record in records],
        offsets=[record.offset for record in records],
        position=position,
    )


def joined(several: Sequence[RawRecords]) -> RawRecords:
    """Return consecutive records as one."""
    if len(several) == 1:
        return several[0]
    return RawRecords(
        keys=[key for each in several for key in each.keys],
        values=[value for each in several for value in each.values],
        headers=[headers for each in several for headers in each.headers],
        timestamps_ms=[time for each in several for time in each.timestamps_ms],
        offsets=[offset for each in several for offset in each.offsets],
        position=several[-1].position,
    )
