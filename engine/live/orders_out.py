"""Makes records of orders for an input topic, and says when each is due: what `rfmstream produce` sends.

Source  docs/formats.md, the order event; docs/live.md, the forms of a record
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rfmstream.engine.core.buffers import values_of
from rfmstream.engine.files.text_rows import ROWS_AT_ONCE, json_lines
from rfmstream.schemas.orders import CANONICAL_SCHEMA, ORDER_TYPES
from rfmstream.schemas.plan import ATTRIBUTE

ValueForm = Literal["json", "ndjson", "array", "arrow"]
FORMS: Final[tuple[ValueForm, ...]] = get_args(ValueForm)
ROWS_PER_RECORD: Final = 500
"""Rows of a record that can hold many, unless told otherwise."""

_CONTENT_TYPES: Final[dict[ValueForm, bytes]] = {
    "ndjson": b"application/x-ndjson",
    "array": b"application/json",
    "arrow": b"application/vnd.apache.arrow.stream",
}
_TYPES: Final = pa.array(ORDER_TYPES, pa.string())

PartitionsOf = Callable[[Sequence[bytes]], NDArray[np.int64]]


class OutRecord(NamedTuple):
    """A record to be sent.

    Fields  key           the customer id; None where a record holds rows of many
            timestamp_ms  when its newest order happened; None: whenever it is sent
    """

    partition: int
    key: bytes | None
    value: bytes
    headers: list[tuple[str, bytes]]
    timestamp_ms: int | None


@dataclass(frozen=True)
class OrderEncoder:
    """Turns canonical orders into records.

    Fields  currency         what the minor units count; the worker rejects another one than its own
            form             json: an order a record; the others: many of one partition in each
            rows_per_record  at most
            shift_us         added to every order's time
            stamp_events     give each record the time of its newest order; else it gets the time it is sent
            partitions_of    the partition of each key
    """

    currency: str
    partitions_of: PartitionsOf
    form: ValueForm = "json"
    rows_per_record: int = ROWS_PER_RECORD
    shift_us: int = 0
    stamp_events: bool = True

    def oldest_us(self, orders: pa.RecordBatch) -> int:
        """Return the time that the first of some orders in order of time will have."""
        return int(orders.column("occurred_at")[0].value) + self.shift_us

    def records(self, orders: pa.RecordBatch) -> Iterator[OutRecord]:
        """Yield the records of a batch of CANONICAL_SCHEMA and attributes; those of a partition in the rows' order."""
        for start in range(0, orders.num_rows, ROWS_AT_ONCE):
            yield from self._records(orders.slice(start, ROWS_AT_ONCE))

    def _records(self, orders: pa.RecordBatch) -> Iterator[OutRecord]:
        keys = [key.encode() for key in orders.column(0).to_pylist()]
        partition = self.partitions_of(keys)
        wire = _wire_rows(orders, self.currency, self.shift_us)
        times_ms: list[int | None] = [None] * orders.num_rows
        if self.stamp_events:
            times_ms = (values_of(wire.column("occurred_at"), np.int64) // 1000).tolist()
        if self.form == "json":
            # A line feed within a string is escaped, so each one ends a row.
            lines = json_lines(wire).to_pybytes().split(b"\n")
            # zip ends before the empty piece after the last line feed.
            for to, key, line, time_ms in zip(partition.tolist(), keys, lines, times_ms, strict=False):
                # A record without the header is read as one plain object, and the header would make it a fifth longer.
                yield OutRecord(to, key, line, [], time_ms)
            return
        headers = [("content-type", _CONTENT_TYPES[self.form])]
        for to in np.unique(partition).tolist():
            rows = np.flatnonzero(partition == to)
            for start in range(0, len(rows), self.rows_per_record):
                some = rows[start : start + self.rows_per_record]
                value = packed(wire.take(pa.array(some)), self.form)
                yield OutRecord(to, None, value, headers, times_ms[some[-1]])


@dataclass
class Pace:
    """Says when each order is due, in seconds since the first was sent.

    Fields  rate     orders a second at most; None: no limit
            speedup  the events' own time passes so many times as fast; None: as fast as can be
    """

    rate: float | None = None
    speedup: float | None = None

    def __post_init__(self) -> None:
        self._count = 0
        self._first_us: int | None = None

    def due_s(self, times_us: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return when each of the next orders (in order of time) is due: f64[n], never falling."""
        due = np.zeros(len(times_us))
        if len(times_us) == 0:
            return due
        if self._first_us is None:
            self._first_us = int(times_us[0])
        if self.rate is not None:
            due = (self._count + np.arange(len(times_us))) / self.rate
        if self.speedup is not None:
            due = np.maximum(due, (times_us - self._first_us) / (1e6 * self.speedup))
        self._count += len(times_us)
        return due


def _wire_rows(orders: pa.RecordBatch, currency: str, shift_us: int) -> pa.RecordBatch:
    """Return canonical orders with the columns of the contract, and their attributes under their own names."""
    assert orders.schema.names[: len(CANONICAL_SCHEMA)] == CANONICAL_SCHEMA.names, "canonical orders only"
    customer_id, order_id, kind, occurred_at, amount_minor, event_id, _, *attributes = orders.columns
    if shift_us:
        moved = values_of(occurred_at, np.int64) + shift_us
        occurred_at = pa.array(moved).cast(occurred_at.type)
    columns = {
        "customer_id": customer_id,
        "order_id": order_id,
        "type": pa.DictionaryArray.from_arrays(kind.cast(pa.int8()), _TYPES),
        "occurred_at": occurred_at,
        "amount_minor": amount_minor,
        "currency": pa.DictionaryArray.from_arrays(
            pa.array(np.zeros(orders.num_rows, np.int8)), pa.array([currency])
        ),
    }
    if event_id.null_count < orders.num_rows:
        columns["event_id"] = event_id
    for name, column in zip(orders.schema.names[len(CANONICAL_SCHEMA) :], attributes, strict=True):
        columns.setdefault(name.removeprefix(ATTRIBUTE), column)
    return pa.RecordBatch.from_pydict(columns)


def packed(wire: pa.RecordBatch, form: ValueForm) -> bytes:
    """Return orders as the value of one record of a form that holds many."""
    if form == "arrow":
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, wire.schema) as stream:
            stream.write_batch(wire)
        value: bytes = sink.getvalue().to_pybytes()
        return value
    lines: bytes = json_lines(wire).to_pybytes()
    return lines if form == "ndjson" else b"[" + lines[:-1].replace(b"\n", b",") + b"]"
