"""Records made for the decoder, and what it made of them."""

import io
import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from json_texts import GOOD

from rfmstream.engine.live.decode import Decoder
from rfmstream.engine.live.model import Headers, LogBatch, RawRecords
from rfmstream.schemas.orders import CANONICAL_SCHEMA, ORDER_SCHEMA

JSON = [("content-type", b"application/json")]
LINES = [("content-type", b"application/x-ndjson")]
ARROW = [("content-type", b"application/vnd.apache.arrow.stream")]
EVENT = [("content-type", b"application/cloudevents+json; charset=UTF-8")]

Value = bytes | None


def raw(values: Sequence[Value], headers: Headers = (), times_ms: Sequence[int] | None = None) -> RawRecords:
    """Return records at offsets 10, 12, ... and a second apart."""
    n = len(values)
    return RawRecords(
        keys=[f"k{at}".encode() for at in range(n)],
        values=list(values),
        headers=[headers] * n,
        timestamps_ms=[1000 * at for at in range(n)] if times_ms is None else times_ms,
        offsets=range(10, 10 + 2 * n, 2),
        position=10 + 2 * n,
    )


def decode(values: Sequence[Value], headers: Headers = (), **options: int) -> LogBatch:
    return checked(Decoder(currency="CNY", **options).decode(raw(values, headers)))


def checked(batch: LogBatch) -> LogBatch:
    """Every row is there once, and stands where it says."""
    assert batch.orders.schema == CANONICAL_SCHEMA
    batch.orders.validate(full=True)
    ordinals = batch.orders.column("row").to_pylist()
    firsts = batch.firsts.tolist()
    assert firsts[0] == 0
    assert len(firsts) == len(batch.records.offsets) + 1
    sizes = np.diff(batch.firsts).tolist()
    record_of = {offset: at for at, offset in enumerate(batch.records.offsets)}
    assert all(row.row < sizes[record_of[row.offset]] for row in batch.refused)
    refused = [firsts[record_of[row.offset]] + row.row for row in batch.refused]
    assert refused == sorted(refused)
    assert ordinals == sorted(ordinals)
    assert sorted(ordinals + refused) == list(range(firsts[-1]))
    record_of_row = np.repeat(np.arange(len(sizes)), sizes)
    assert batch.record_of.tolist() == record_of_row[ordinals].tolist()
    assert batch.position == batch.records.position
    return batch


def outcomes(batch: LogBatch) -> list[str]:
    """Return the order id of each row, or the reason for which it is refused."""
    words = dict(
        zip(batch.orders.column("row").to_pylist(), batch.orders.column("order_id").to_pylist(), strict=True)
    )
    refused = iter(batch.refused)
    return [words.get(ordinal) or next(refused).reason for ordinal in range(batch.firsts[-1])]


def order(order_id: str, **values: object) -> dict[str, object]:
    return json.loads(GOOD) | {"order_id": order_id, "event_id": None} | values


def text(order_id: str, **values: object) -> bytes:
    return json.dumps(order(order_id, **values)).encode()


def stream(*tables: pa.Table, **options: object) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, tables[0].schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        for table in tables:
            writer.write_table(table)
    return sink.getvalue()


def table(*order_ids: str, **values: object) -> pa.Table:
    rows = [order(order_id, **values) for order_id in order_ids]
    typed = {"occurred_at", "amount", "amount_minor"}
    schema = pa.schema([(f.name, pa.string() if f.name in typed else f.type) for f in ORDER_SCHEMA])
    found = pa.Table.from_pylist([{**row, "amount": str(row["amount"])} for row in rows], schema)
    return found.set_column(
        3, "occurred_at", found["occurred_at"].cast(pa.timestamp("us", "UTC"))
    ).set_column(4, "amount", found["amount"].cast(pa.decimal128(17, 4)))
