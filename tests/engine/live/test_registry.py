"""A schema registry and what is framed by it, over HTTP: Avro, Protobuf, JSON."""

import base64
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import fastavro
import pytest
from decoded import raw
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2
from schema_registry import FakeRegistry, served

from rfmstream.engine.files.mapping import load_map
from rfmstream.engine.live import registry as registry_module
from rfmstream.engine.live.mapped import MappedDecoder
from rfmstream.engine.live.model import LogBatch
from rfmstream.engine.live.registry import Registry
from rfmstream.schemas.errors import ConfigError, TransportError

MAP = """
name = "table"
[[event]]
customer_id = "customer"
order_id = "id"
occurred_at = "paid_at"
amount = "total"
"""
MONEY = {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}
ORDER = {
    "type": "record",
    "name": "Order",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "customer", "type": ["null", "string"], "default": None},
        {"name": "paid_at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "total", "type": MONEY},
    ],
}
VALUE = {
    "id": 2**62,
    "customer": "c1",
    "paid_at": datetime(2024, 5, 1, 10, 0, 0, 123, tzinfo=UTC),
    "total": Decimal("12.30"),
}
AT = datetime(2024, 5, 1, 10, 0, 0, 123, tzinfo=UTC)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_module, "_BACKOFF_S", 0)


@pytest.fixture
def there() -> Iterator[FakeRegistry]:
    with served(FakeRegistry()) as registry:
        yield registry


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "m.toml").write_text(MAP)
    return tmp_path / "m.toml"


def decode(path: Path, there: FakeRegistry, values: list[bytes], auth: str | None = None) -> LogBatch:
    decoder = MappedDecoder(load_map(path), currency="USD", registry=Registry(there.url, auth))
    return decoder.decode(raw(values))


def found(batch: LogBatch) -> list[tuple]:
    return [
        (row["customer_id"], row["order_id"], row["occurred_at"], row["amount_minor"])
        for row in batch.orders.to_pylist()
    ]


def framed(number: int, data: bytes) -> bytes:
    return b"\0" + number.to_bytes(4, "big") + data


def avro(value: dict, schema: dict) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), value)
    return out.getvalue()


def test_avro_with_decimals_instants_and_unions(path: Path, there: FakeRegistry) -> None:
    there.schemas[7] = {"schema": json.dumps(ORDER)}
    values = [framed(7, avro(VALUE, ORDER)), framed(7, avro({**VALUE, "customer": None}, ORDER)), None]
    batch = decode(
        path, there, [*values, framed(7, avro(VALUE, ORDER)[:-1]), framed(7, avro(VALUE, ORDER) + b"x")]
    )
    assert found(batch) == [("c1", str(2**62), AT, 1230)]
    assert [(row.offset, row.reason) for row in batch.refused] == [
        (12, "missing_customer_id"),
        (16, "malformed"),
        (18, "malformed"),
    ]
    assert str(batch.refused[2].detail) == "goes on behind what its Avro schema says"
    assert there.asked == ["/schemas/ids/7"]


def test_avro_in_debeziums_envelope_with_a_reference(path: Path, there: FakeRegistry) -> None:
    envelope = {
        "type": "record",
        "name": "Envelope",
        "fields": [{"name": "after", "type": ["null", "Order"]}, {"name": "op", "type": "string"}],
    }
    references = [{"name": "Order", "subject": "orders/value", "version": 3}]
    there.schemas[1] = {"schema": json.dumps(envelope), "references": references}
    there.subjects["orders/value", 3] = {"schema": json.dumps(ORDER)}
    named: dict = {}
    fastavro.parse_schema(ORDER, named_schemas=named)
    out = io.BytesIO()
    fastavro.schemaless_writer(
        out, fastavro.parse_schema(envelope, named_schemas=named), {"after": VALUE, "op": "c"}
    )
    assert found(decode(path, there, [framed(1, out.getvalue())])) == [("c1", str(2**62), AT, 1230)]
    assert there.asked == ["/schemas/ids/1", "/subjects/orders%2Fvalue/versions/3"]


def test_json_behind_a_frame(path: Path, there: FakeRegistry) -> None:
    there.schemas[2] = {"schemaType": "JSON", "schema": "{}"}
    value = {"id": 1, "customer": "c", "paid_at": "2024-05-01T10:00:00.000123Z", "total": 12.3}
    batch = decode(path, there, [framed(2, json.dumps(value).encode()), framed(2, b"\x01")])
    assert found(batch) == [("c", "1", AT, 1230)]
    assert [row.detail for row in batch.refused] == ["is no JSON"]


def proto_file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="order.proto", package="shop", syntax="proto3")
    file.dependency.append("google/protobuf/timestamp.proto")
    file.message_type.add(name="Unused")
    outer = file.message_type.add(name="Box")
    order = outer.nested_type.add(name="Order")
    kinds = descriptor_pb2.FieldDescriptorProto
    for number, (name, kind) in enumerate(
        (("id", kinds.TYPE_INT64), ("customer", kinds.TYPE_STRING), ("total", kinds.TYPE_STRING)), 1
    ):
        order.field.add(name=name, number=number, type=kind, label=kinds.LABEL_OPTIONAL)
    order.field.add(
        name="paid_at",
        number=4,
        type=kinds.TYPE_MESSAGE,
        type_name=".google.protobuf.Timestamp",
        label=kinds.LABEL_OPTIONAL,
    )
    return file


def test_protobuf_by_its_descriptor(path: Path, there: FakeRegistry) -> None:
    file = proto_file()
    there.schemas[9] = {"schemaType": "PROTOBUF", "schema": "message Order {...}"}
    there.serialized["message Order {...}"] = base64.b64encode(file.SerializeToString()).decode()
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    order = message_factory.GetMessageClass(pool.FindMessageTypeByName("shop.Box.Order"))()
    order.id, order.customer, order.total = 2**62, "c1", "12.30"
    order.paid_at.FromDatetime(AT)
    # The second message of the file, and in it the first: two numbers, zigzag.
    good = framed(9, b"\x04\x02\x00" + order.SerializeToString())
    batch = decode(
        path,
        there,
        [
            good,
            framed(9, b"\x04\x02\x02"),
            framed(9, b"\x04\x02\x00\xff"),
            framed(9, b"\xff"),
            framed(9, b"\x00"),
        ],
    )
    assert found(batch) == [("c1", str(2**62), AT, 1230)]
    assert [row.detail for row in batch.refused] == [
        "is not what its Protobuf schema says",
        "is not what its Protobuf schema says",
        "has no numbers of a message in front",
        None,
    ]


def test_schemas_that_are_not_there_or_not_known(path: Path, there: FakeRegistry) -> None:
    there.schemas[1] = {"schemaType": "XSD", "schema": "<x/>"}
    there.schemas[2] = {"schema": '{"type": "record"'}
    # Ten bytes of it could hold 2**60 rows.
    empty = {"type": "record", "name": "E", "fields": []}
    fields = [{"name": "xs", "type": {"type": "array", "items": empty}}]
    there.schemas[3] = {"schema": json.dumps({"type": "record", "name": "R", "fields": fields})}
    batch = decode(path, there, [framed(number, b"\x02") for number in (1, 2, 3, 4, 4)])
    details = [str(row.detail) for row in batch.refused]
    assert details[0] == "schema 1 of the registry is XSD"
    assert details[1].startswith("schema 2 of the registry cannot be read: ")
    assert details[2] == "schema 3 of the registry cannot be read: it has arrays of what takes no bytes"
    assert details[3:] == ["the registry has no schema 4"] * 2
    assert there.asked.count("/schemas/ids/4") == 1


def test_a_registry_that_fails_for_a_while_is_asked_again(path: Path, there: FakeRegistry) -> None:
    there.schemas[7], there.auth = {"schema": json.dumps(ORDER)}, "me:secret"
    there.failures = [503, 500]
    assert len(found(decode(path, there, [framed(7, avro(VALUE, ORDER))], "me:secret"))) == 1
    assert len(there.asked) == 3


def test_a_registry_that_does_not_answer_costs_no_record(path: Path, there: FakeRegistry) -> None:
    there.failures = [503] * 10
    with pytest.raises(TransportError, match="the schema registry does not answer: it answers 503"):
        decode(path, there, [framed(7, b"\x02")])
    there.failures, there.auth = [], "me:secret"
    with pytest.raises(TransportError, match=r"it refuses us \(401\): check schema_registry_auth"):
        decode(path, there, [framed(7, b"\x02")])
    nobody = FakeRegistry(url="http://127.0.0.1:1")
    with pytest.raises(TransportError, match="does not answer"):
        decode(path, nobody, [framed(7, b"\x02")])


@pytest.mark.parametrize("url", ["registry:8081", "ftp://registry", "http://", "https://me:secret@registry"])
def test_addresses_are_looked_at_first(url: str) -> None:
    with pytest.raises(ConfigError, match="is no address of a registry") as raised:
        Registry(url)
    assert "secret" not in str(raised.value)
