"""A worker that reads records by a map: envelopes, batches, frames; against a real broker and a registry over HTTP."""

import asyncio
import base64
import io
import json
from collections import Counter
from pathlib import Path

import fastavro
from kafka_cluster import Cluster
from kafka_logs import Sent, metrics_of, records_of, send_records, wait_until
from kafka_workers import flags_of, worker
from schema_registry import FakeRegistry, served

PARTITIONS = 2
MAP = """
name = "table"
[[event]]
customer_id = "customer"
order_id = "id"
occurred_at = "paid_at"
amount = "total"

[[event]]
type = "refunded"
customer_id = "customer"
order_id = "id"
occurred_at = "refunds[*].at"
amount = "refunds[*].total"
event_id = "refunds[*].id"
"""
AVRO = {
    "type": "record",
    "name": "Order",
    "fields": [{"name": name, "type": "string"} for name in ("id", "customer", "paid_at", "total")],
}


def row(customer: str, number: int, **more: object) -> dict:
    return {
        "id": f"o{number}",
        "customer": customer,
        "paid_at": "2026-10-01T10:00:00Z",
        "total": "10.00",
        **more,
    }


def framed(number: int, value: dict) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(AVRO), value)
    return b"\0" + number.to_bytes(4, "big") + out.getvalue()


def test_webhooks_rows_of_databases_and_frames(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "map.toml").write_text(MAP)
    event = {"specversion": "1.0", "id": "1", "source": "/shop", "type": "order"}
    refunds = [
        {"id": number, "at": "2026-10-02T10:00:00Z", "total": total}
        for number, total in ((1, "3.00"), (2, "7.00"))
    ]
    packed = base64.b64encode(json.dumps(row("a", 2)).encode()).decode()
    deleted = {"before": row("a", 1), "after": None, "op": "d", "source": {}}
    values: list[tuple[int, object]] = [
        (0, row("a", 1)),
        (0, {"schema": {}, "payload": {"before": None, "after": row("a", 1), "op": "r", "source": {}}}),
        (0, deleted),
        (0, None),
        (0, [{**event, "data_base64": packed}, {**event, "data": row("a", 3)}]),
        (1, framed(7, row("b", 1))),
        # The order, and what takes all of it back, in one record: nobody is left.
        (1, row("c", 1, refunds=refunds)),
        (1, framed(8, row("b", 2))),
        (1, b"Obj\x01"),
        (1, framed(7, row("b", 3))),
    ]
    sent = [
        Sent(at, value if value is None or isinstance(value, bytes) else json.dumps(value).encode(), b"k")
        for at, value in values
    ]
    asyncio.run(cluster.create(cluster.orders, PARTITIONS))
    registry = FakeRegistry(schemas={7: {"schema": json.dumps(AVRO)}})
    with served(registry):
        flags = flags_of(
            cluster,
            tmp_path / "state",
            listen="127.0.0.1:0",
            map=str(tmp_path / "map.toml"),
            schema_registry=registry.url,
        )
        asyncio.run(send_records(cluster, sent))
        with worker(flags, tmp_path / "log") as process:
            process.wait_for("partitions assigned")
            wait_until(lambda: metrics_of(process)["rfmstream_records_total"].total() == len(sent), process)
            metrics = metrics_of(process)
            process.kill()
        # What was committed is repeated from its records, by the same map.
        with worker(flags, tmp_path / "again") as process:
            process.wait_for("partitions assigned")
            wait_until(lambda: metrics_of(process)["rfmstream_customers"].total() == 3, process)
            process.terminate()
            assert process.exit_code() == 0, process.log.read_text()
    assert metrics["rfmstream_orders_applied_total"].total() == 8
    assert metrics["rfmstream_orders_duplicate_total"].total() == 1
    rejected = asyncio.run(records_of(cluster, cluster.outputs.rejected, PARTITIONS))
    assert [
        (dict(record.headers)["rfm-offset"], dict(record.headers)["rfm-detail"], record.value)
        for record in rejected[1]
    ] == [
        (b"2", b"the registry has no schema 8", sent[7].value),
        (b"3", b"is a whole Avro file, and no JSON", b"Obj\x01"),
    ]
    assert rejected[0] == []
    changes = asyncio.run(records_of(cluster, cluster.outputs.changes, PARTITIONS))
    told = Counter(
        (json.loads(record.value)["customer_id"], json.loads(record.value)["reason"])
        for records in changes.values()
        for record in records
    )
    assert (
        told["a", "first_order"]
        == told["b", "first_order"]
        == told["c", "first_order"]
        == told["c", "refund"]
        == 1
    )
